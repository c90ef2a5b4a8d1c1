"""Budgets: how much a run may cost, and the plan that stays within it."""

import math
from collections.abc import Iterator

import msgspec

from wheeltap.audits.census import ALWAYS
from wheeltap.audits.deployment import DeploymentAudit
from wheeltap.audits.modify import ModifyAudit
from wheeltap.audits.noise import NoiseAudit
from wheeltap.audits.settle import audits_of
from wheeltap.core.errors import UsageError
from wheeltap.core.settings import LARGE
from wheeltap.plans.plan import Effort, Plan
from wheeltap.stats import foresee

_FEWEST = 4
"""With fewer draws no control vouches for anything."""

_STEPS = 64
"""Shares of the effort that are tried."""


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan's parts take on one machine, in seconds.

    Attributes:
        clean: A pass of the undisturbed model.
        beside: By audit, what a trial takes beside its passes, on average: drawing and writing weights, training,
            finding units. An audit that was not timed counts by its passes alone.
        kept: What keeping an outcome takes.
        copy: What making a control copy takes.
        spent: What finding all this out took, which is part of the budget.
    """

    clean: float
    beside: dict[str, float] = {}
    kept: float = 0.0
    copy: float = 0.0
    spent: float = 0.0

    def seconds(self, plan: Plan) -> float:
        """About the most that planning, running and judging a plan take."""
        beside = sum(audit.most(plan) * self.beside.get(audit.name, 0.0) for audit in audits_of(plan))
        trials = most_trials(plan) * (self.kept + JUDGED * plan.task.examples)
        work = most_passes(plan) * self.clean + beside + trials + len(plan.controls) * self.copy
        return self.spent + _RESERVE * work


_RESERVE = 1.1
"""What a run takes for each second that its parts took when they were timed: a machine gets busier too."""

JUDGED = 4e-7
"""Seconds of judging for each trial and example: 1e-7 to 2e-7 on a quiet machine, twice that on a busy one."""


def most_trials(plan: Plan) -> int:
    """Upper bound on the trials that a plan can ask for."""
    return len(plan.makings()) + len(plan.baselines()) + sum(audit.most(plan) for audit in audits_of(plan))


def most_passes(plan: Plan) -> float:
    """Upper bound on the passes over the task that a plan's trials can take."""
    # Passes of the undisturbed models: the first one of each subject, in which it settles, and the baselines. The
    # first of a large reference is its second baseline too.
    clean = len(plan.subjects) + len(plan.baselines())
    clean -= bool(plan.baselines()) and plan.reference.parameters >= LARGE
    return clean + sum(audit.most_passes(plan) for audit in audits_of(plan))


def within(plan: Plan, allowed: float, prices: Prices | None = None) -> Plan:
    """The plan with as much effort as ``allowed`` passes (seconds, with ``prices``) pay for: never more than it has.

    The copies from which detection power is measured go first, plants stronger than the first; then draws, and what
    readings look at; then the block map; then a family's ways of modifying weights beside the one that is judged. What
    was cut is listed in ``cuts``.

    Raises:
        UsageError: If the least effort costs more, if what is left could find no effect of interest, or of a study,
            whose nets and rules are fixed.
    """
    _require_no_study(plan)
    cost = most_passes if prices is None else prices.seconds
    for candidate in _cheaper(plan, _sighted(plan)):
        if cost(candidate) <= allowed:
            _require_sight(candidate, plan, allowed, prices)
            return candidate if candidate == plan else msgspec.structs.replace(candidate, cuts=_cuts(plan, candidate))
    blind, cheapest = (list(_cheaper(plan, fewest))[-1] for fewest in (_FEWEST, _sighted(plan)))
    if cost(blind) <= allowed:
        _require_sight(blind, plan, allowed, prices)
    costliest = max(audits_of(cheapest), key=lambda audit: audit.most_passes(cheapest)).name
    drawn = cost(cheapest) < cost(msgspec.structs.replace(cheapest, effort=plan.effort))
    draws = f" ({cheapest.effort.draws} draws a dose)" if drawn else ""
    several = sum(spec.name not in ALWAYS for spec in plan.audits) > 1
    raise UsageError(
        "The budget is too small for these audits.",
        expected=f"at least {_amount(cost(cheapest), prices)}{draws}; {sight(cheapest)}",
        got=_amount(allowed, prices),
        do="Give a larger --budget" + (f", or leave out what costs most: {costliest}." if several else "."),
    )


def _require_no_study(plan: Plan) -> None:
    if plan.study is not None:
        raise UsageError(
            "The plan of a study cannot be cut to a budget: its nets and rules are fixed.",
            where=plan.command,
            expected="the plan of an audit or a comparison",
            do="Give the budget to the run, which stops there and resumes: wheeltap study NAME --budget 10m",
        )


def least(plan: Plan) -> Plan:
    """The plan with as little effort as a budget may leave, and all ways of modifying weights.

    Raises:
        UsageError: If it is that of a study.
    """
    _require_no_study(plan)
    return _less(plan, 0.0, _FEWEST)


def _amount(cost: float, prices: Prices | None) -> str:
    """Passes or seconds in words; rounded up, so that what is named would do."""
    return f"{math.ceil(cost)} {'passes' if prices is None else 's'}"


def _cheaper(plan: Plan, fewest: int) -> Iterator[Plan]:
    """The plan and cheaper ones, those first that leave out least; none with fewer draws a dose than ``fewest``."""
    yield plan
    yield msgspec.structs.replace(plan, graded=())
    ungraded = msgspec.structs.replace(plan, graded=(), stronger=())
    yield ungraded
    unmapped = msgspec.structs.replace(ungraded, effort=msgspec.structs.replace(plan.effort, block_draws=0))
    alone = tuple(  # without a family's other ways of modifying weights
        msgspec.structs.replace(spec, settings={**spec.settings, "others": False})
        if isinstance(audit, ModifyAudit) and audit.settings.others
        else spec
        for spec, audit in zip(unmapped.audits, audits_of(unmapped), strict=True)
    )
    for barer in (ungraded, unmapped, msgspec.structs.replace(unmapped, audits=alone)):
        for step in range(_STEPS - 1, 0, -1):
            yield _less(barer, step / _STEPS, fewest)


def _less(plan: Plan, share: float, fewest: int) -> Plan:
    """About a share of a plan's draws, and of what its readings look at."""
    effort = plan.effort
    draws = max(min(fewest, effort.draws), math.ceil(share * effort.draws))
    fewer = Effort(
        draws=draws,
        control_draws=min(draws, effort.control_draws),
        block_draws=min(effort.block_draws, max(draws // 4, 1)),
    )
    audits = tuple(
        msgspec.structs.replace(spec, settings={**spec.settings, **audit.cheaper(plan, share)})
        for spec, audit in zip(plan.audits, audits_of(plan), strict=True)
    )
    return msgspec.structs.replace(plan, effort=fewer, audits=audits)


def _cuts(whole: Plan, cut: Plan) -> tuple[str, ...]:
    """What is left out of a plan, in words."""
    before, after = whole.effort, cut.effort
    found = ["detection power is not measured"] if len(cut.graded) < len(whole.graded) else []
    found += ["no plant stronger than the first is tried"] if len(cut.stronger) < len(whole.stronger) else []
    if after.draws < before.draws:
        found.append(f"{after.draws} draws a dose instead of {before.draws}")
    if after.control_draws < before.control_draws:
        found.append(f"{after.control_draws} draws of each control instead of {before.control_draws}")
    if after.block_draws < before.block_draws:
        few = f"{after.block_draws} draws a block instead of {before.block_draws}"
        found.append(few if after.block_draws else "no block map")
    for audit, less in zip(audits_of(whole), audits_of(cut), strict=True):
        names = (field.name for field in msgspec.structs.fields(audit.settings_type))
        pairs = ((name, getattr(audit.settings, name), getattr(less.settings, name)) for name in names)
        found += [f"{audit.name}: {_cut(*pair)}" for pair in pairs if pair[1] != pair[2]]
    return tuple(found)


def _cut(name: str, many: object, few: object) -> str:
    # What followed the plan's effort, and no longer does, has no number of its own to name.
    stated = f"{name} {few}" if many is None else f"{name} {few} instead of {many}"
    return f"{name} left out" if few is False else stated


def _sighted(plan: Plan) -> int:
    """The fewest draws a dose with which comparisons see what is worth telling; if none do, the fewest that vouch."""
    if len(plan.subjects) > 1 and plan.task.bounded:
        for draws in range(_FEWEST, plan.effort.draws + 1):
            fewer = msgspec.structs.replace(plan, effort=msgspec.structs.replace(plan.effort, draws=draws))
            if all(_least_area(fewer, noise) <= noise.settings.min_effect for noise in _noise(fewer)):
                return draws
    return _FEWEST


def _noise(plan: Plan) -> list[NoiseAudit]:
    return [audit for audit in audits_of(plan) if isinstance(audit, NoiseAudit)]


def _least_area(plan: Plan, noise: NoiseAudit) -> float:
    margin = plan.margin if noise.settings.margin is None else noise.settings.margin
    return foresee.area_difference(
        draws=plan.effort.draws, examples=plan.task.examples, alpha=plan.alpha, margin=margin
    )


def _require_sight(plan: Plan, whole: Plan, allowed: float, prices: Prices | None) -> None:
    """Raises ``UsageError`` if a comparison under noise could see nothing that its audit calls worth telling."""
    if len(plan.subjects) == 1 or not plan.task.bounded:
        return
    for noise in _noise(plan):
        least, most = _least_area(plan, noise), noise.settings.min_effect
        if least > most:
            raise UsageError(
                "The budget is too small to find anything of interest.",
                where=f"{noise.name}, {plan.effort.draws} draws a dose on {plan.task.examples} examples",
                expected=f"a smallest difference of {most:g} that could be found ({_needed(whole, noise, prices)})",
                got=f"{least:.2g}, with {_amount(allowed, prices)}",
                do="Give a larger budget, or more examples.",
            )


def _needed(plan: Plan, noise: NoiseAudit, prices: Prices | None) -> str:
    """What it takes for a comparison to see what is worth telling."""
    cheapest = list(_cheaper(plan, _sighted(plan)))[-1]
    if _least_area(cheapest, noise) > noise.settings.min_effect:
        return "not with this plan's draws"
    cost = most_passes if prices is None else prices.seconds
    return f"from about {_amount(cost(cheapest), prices)} on"


def sight(plan: Plan) -> str:
    """What the plan will be able to find, in one sentence."""
    if not plan.task.bounded:
        return "what it can find depends on how the scores vary, which is known after a few passes"
    parts: list[str] = []
    noise = _noise(plan)
    if noise and len(plan.subjects) > 1:
        parts.append(f"a difference of curve area of {max(_least_area(plan, one) for one in noise):.2g}")
    if any(isinstance(audit, ModifyAudit | DeploymentAudit) for audit in audits_of(plan)):
        least = foresee.loss(examples=plan.task.examples, alpha=plan.alpha, margin=plan.margin)
        parts.append(f"a loss of score of {math.ceil(least * 100) / 100:.2g} at one dose")
    if not parts:
        return "what it can find is not known beforehand; its findings state how small an effect they would have seen"
    return (
        f"it can find (4 times out of 5, each by itself) {' and '.join(parts)}, if draws and examples vary as on the "
        "networks we measured"
    )
