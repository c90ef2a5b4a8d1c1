"""Budgets: how much a run may cost, and the plan that stays within it."""

import math
import re
from typing import Self

import msgspec

from wheeltap.audits.judge import audits_of
from wheeltap.audits.modify import ModifyAudit
from wheeltap.audits.noise import NoiseAudit
from wheeltap.errors import UsageError
from wheeltap.plans import Effort, Plan
from wheeltap.stats import foresee

_FORM = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(f|m|min|s|h)\s*")
_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_FEWEST = 4
"""With fewer draws a control cannot vouch for anything, and a sound run ends void."""


class Budget(msgspec.Struct, frozen=True):
    """Passes over the probe, or seconds, that a run may spend; exactly one of them.

    Attributes:
        forwards: Passes of the whole probe through a model.
        seconds: Wall-clock; turned into passes by timing one.
    """

    forwards: float | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """A budget such as ``200f`` (passes), ``90s``, ``10m`` or ``2h``.

        Raises:
            UsageError: If it is none.
        """
        found = _FORM.fullmatch(text)
        if found is None or float(found[1]) <= 0:
            raise UsageError(
                "The budget cannot be read.",
                expected="a positive number with its unit: 200f (passes over the examples), 90s, 10m or 2h",
                got=text,
            )
        size = float(found[1])
        return cls(forwards=size) if found[2] == "f" else cls(seconds=size * _SECONDS[found[2]])

    def passes(self, seconds_each: float) -> float:
        """The passes it allows, where one takes ``seconds_each``."""
        return self.forwards if self.forwards is not None else (self.seconds or 0.0) / max(seconds_each, 1e-9)


def most_trials(plan: Plan) -> int:
    """Upper bound on the trials that a plan can ask for."""
    return len(plan.baselines()) + sum(audit.most(plan) for audit in audits_of(plan))


def most_passes(plan: Plan) -> float:
    """Upper bound on the passes over the probe that a plan's trials can take."""
    return len(plan.baselines()) + sum(audit.most_passes(plan) for audit in audits_of(plan))


def within(plan: Plan, passes: float) -> Plan:
    """The plan with as many draws as ``passes`` allow: never more than it has.

    The copies from which detection power is told go first, then draws, then the block map.

    Raises:
        UsageError: If even two draws cost more, or if what is left could find nothing worth telling.
    """
    candidates = _cheaper(plan)
    for candidate in candidates:
        if most_passes(candidate) <= passes:
            _require_sight(candidate, plan, passes)
            return candidate
    undrawn, cheapest = candidates[1], candidates[-1]
    least = most_passes(cheapest)
    draws = f" ({_FEWEST} draws a dose)" if least < most_passes(undrawn) else ""
    costliest = max(audits_of(cheapest), key=lambda audit: audit.most_passes(cheapest)).name
    raise UsageError(
        "The budget is too small for these audits.",
        expected=f"at least {math.ceil(least)} passes{draws}; {sight(cheapest)}",
        got=f"{passes:.0f} passes",
        do="Give more" + (f", or leave out what costs most: {costliest}." if len(plan.audits) > 1 else "."),
    )


def _cheaper(plan: Plan) -> list[Plan]:
    """The plan and ever cheaper ones."""
    found = [plan, msgspec.structs.replace(plan, graded=())]
    for draws in range(plan.effort.draws, _FEWEST - 1, -1):
        effort = Effort(
            draws=draws,
            control_draws=min(draws, plan.effort.control_draws),
            block_draws=min(plan.effort.block_draws, max(draws // 4, 1)),
        )
        found.append(msgspec.structs.replace(_capped(plan, draws), graded=(), effort=effort))
    return [*found, msgspec.structs.replace(found[-1], effort=msgspec.structs.replace(found[-1].effort, block_draws=0))]


def _capped(plan: Plan, draws: int) -> Plan:
    """The plan with no more than ``draws`` of what modifications draw at random."""
    audits = [
        msgspec.structs.replace(spec, settings={**spec.settings, "draws": draws})
        if isinstance(audit, ModifyAudit) and audit.settings.draws > draws
        else spec
        for spec, audit in zip(plan.audits, audits_of(plan), strict=True)
    ]
    return msgspec.structs.replace(plan, audits=tuple(audits))


def _noise(plan: Plan) -> list[NoiseAudit]:
    return [audit for audit in audits_of(plan) if isinstance(audit, NoiseAudit)]


def _least_area(plan: Plan, noise: NoiseAudit) -> float:
    return foresee.area_difference(
        draws=plan.effort.draws, examples=plan.probe.examples, alpha=plan.alpha, margin=noise.settings.margin
    )


def _require_sight(plan: Plan, whole: Plan, passes: float) -> None:
    """Raises ``UsageError`` if a comparison under noise could see nothing that its audit calls worth telling."""
    if len(plan.subjects) < 2 or not plan.probe.bounded:
        return
    for noise in _noise(plan):
        least, worth = _least_area(plan, noise), noise.settings.worth
        if least > worth:
            raise UsageError(
                "The budget is too small to find anything worth telling.",
                where=f"{noise.name}, {plan.effort.draws} draws a dose on {plan.probe.examples} examples",
                expected=f"a smallest difference of {worth:g} that could be found ({_needed(whole, noise)})",
                got=f"{least:.2g}, with {passes:.0f} passes",
                do="Give a larger budget, or more examples.",
            )


def _needed(plan: Plan, noise: NoiseAudit) -> str:
    """The passes from which a comparison sees what is worth telling."""
    for candidate in reversed(_cheaper(plan)):
        if _least_area(candidate, noise) <= noise.settings.worth:
            return f"from about {math.ceil(most_passes(candidate))} passes on"
    return "not with this plan's draws"


def sight(plan: Plan) -> str:
    """What the plan will be able to find, in one sentence."""
    if not plan.probe.bounded:
        return "what it can find depends on how the scores vary, which is known after a few passes"
    parts: list[str] = []
    noise = _noise(plan)
    if noise and len(plan.subjects) > 1:
        parts.append(f"a difference of curve area of {max(_least_area(plan, one) for one in noise):.2g}")
    if any(isinstance(audit, ModifyAudit) for audit in audits_of(plan)):
        least = foresee.loss(examples=plan.probe.examples, alpha=plan.alpha, margin=0.02)
        parts.append(f"a loss of score of {math.ceil(least * 100) / 100:.2g} at one dose")
    if not parts:
        return "what it can find is not known beforehand; its findings say how small an effect they would have seen"
    return (
        f"it can find (4 times out of 5, each by itself) {' and '.join(parts)}, if draws and examples vary as on the "
        "networks we measured"
    )
