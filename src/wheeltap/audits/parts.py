"""WT205: is a set of hidden units necessary for a behaviour (without it, it goes) and sufficient (alone, it stays)?"""

from dataclasses import dataclass
from typing import ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.base import Case, Hypothesis, Margin, NoAnswer, Share
from wheeltap.audits.case import Arrays, Values
from wheeltap.audits.reading_audit import SingleReadingAudit
from wheeltap.core.records import Estimate, SubjectRecord
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.parts import ABLATIONS, PARTS, PartsSettings
from wheeltap.stats.beyond import Beyond
from wheeltap.stats.clusters import Groups
from wheeltap.stats.evidence import Smallest
from wheeltap.stats.sample import Sample

_SHOWN: Final = 12


class PartsAuditSettings(PartsSettings, frozen=True, kw_only=True):
    """Thresholds.

    Attributes:
        at_least: Share of the score above chance that must go without the set (or stay with it alone).
        margin: The set must do this share of the score better than random sets.
    """

    at_least: Share = 0.5
    margin: Margin = 0.05


@dataclass(frozen=True)
class Side:
    """One of the two questions.

    Attributes:
        name: Of the reading's arrays.
        claim: What the set is, if so.
        does: What the set does to the score, if so.
        shown: How that was shown.
    """

    name: str
    claim: str
    does: str
    shown: str

    @property
    def title(self) -> str:
        """Of its findings."""
        return f"A set of units is {self.claim}"


NECESSARY: Final = Side("without", "necessary", "costs", "Ablated as a whole, or where that hurts most")
SUFFICIENT: Final = Side("alone", "sufficient", "keeps above chance", "Whatever is done to the other hidden units")


@dataclass(frozen=True)
class Ablation:
    """What one kind of ablation says.

    Attributes:
        own: How much of the score goes without the set (or stays with it alone).
        least: What ``own`` must exceed; nothing is asked of it where ``None``.
        beyond: How much more that is than with random sets.
        margin: What ``beyond`` must exceed; nothing is asked of it where ``None``.
        sample: What ``own`` is the mean of.
        random: What ``beyond`` is of.
        best: The same as ``own`` for the random set that does best.
        loss: What ``beyond`` is in the loss.
    """

    kind: str
    own: Estimate
    least: float | None
    beyond: Estimate
    margin: float | None
    sample: Sample
    random: Beyond
    best: Estimate
    loss: Estimate

    @property
    def tests(self) -> tuple[tuple[Estimate, float], ...]:
        """What must reject, each with what it must exceed."""
        asked = (self.own, self.least), (self.beyond, self.margin)
        return tuple((test, threshold) for test, threshold in asked if threshold is not None)

    def holds(self, alpha: float) -> bool:
        """Whether its tests reject, taken alone."""
        return all((test.p or 0.0) <= alpha for test, _ in self.tests)


@final
class PartsAudit(SingleReadingAudit[Arrays]):
    """Score lost without a set of hidden units and kept with it alone, against random sets of equal size."""

    name = "parts"
    code = "WT205"
    title = "Necessary and sufficient parts"
    reads = (
        "A set of hidden units is ablated, or kept alone, in five ways, the last one searching for the subset "
        "that hurts most; random sets of the same size are the comparison. Found means that the claim was shown."
    )
    asks = "structure"
    shows = True
    settings_type = PartsAuditSettings
    spares: ClassVar[dict[str, int]] = {"nulls": 8, "draws": 2, "tries": 1}
    by_units = True
    reading = PARTS

    def passes(self, plan: Plan, subject: SubjectRecord) -> float:
        """Each unit alone, where the set is to be found; then every ablation of either side of every set."""
        how, hidden = self.settings, plan.hidden(subject)
        found = how.most if hidden is None else min(hidden, how.most)
        # A step of the search: a slope (a forward, and a backward that counts as two), and a pass.
        each = 2 + 2 * how.draws + 4 * how.tries
        return 2.0 + (0 if how.units else found) + 2 * (1 + how.nulls) * each

    def titles(self) -> tuple[str, ...]:
        """Is the set necessary, is it sufficient."""
        return NECESSARY.title, SUFFICIENT.title

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> Arrays:
        """As they are: each side has its own."""
        return read

    def singles(self, case: Case, subject: SubjectRecord, read: Arrays) -> list[Hypothesis]:
        """Two claims, neither of which is bad news."""
        return [self._claim(case, subject, read, side) for side in (NECESSARY, SUFFICIENT)]

    def _claim(self, case: Case, subject: SubjectRecord, read: Arrays, side: Side) -> Hypothesis:
        answer = _Answer(case, subject, read, side, self._ablations(case, read, side), self.settings)
        test, threshold = answer.weakest
        numbers = [e for a in answer.ablations for e in (a.own, a.beyond, a.best, a.loss)]
        return Hypothesis(
            test=test, margin=threshold, evidence=answer.evidence, title=side.title,
            beside=tuple(e for e in numbers if e is not test), one_sided=True, alarm=False,
            found=answer.found(), otherwise=answer.otherwise(),
        )  # fmt: skip

    def _ablations(self, case: Case, read: Arrays, side: Side) -> tuple[Ablation, ...]:
        """Every ablation's numbers, turned so that more is always more of what is claimed."""
        sign = 1.0 if case.plan.task.higher_is_better else -1.0
        clean, scores = sign * read["clean_score"], sign * read[f"{side.name}_score"]
        above = float(clean.mean()) - sign * case.chance
        if above <= 0.0:
            raise NoAnswer("not_applicable", "The model does no better than chance here, so no part does anything.")
        effects = clean - scores if side is NECESSARY else scores - sign * case.chance
        losses = (1.0 if side is NECESSARY else -1.0) * read[f"{side.name}_loss"]
        least = self.settings.at_least * (clean - sign * case.chance)
        margin = case.scaled(self.settings.margin)
        groups = case.groups_of(read["rows"].astype(np.intp))
        return tuple(
            _ablation(case, side, kind, values=(effects[at], losses[at]), groups=groups, thresholds=(least, margin))
            for at, kind in enumerate(ABLATIONS)
        )


def _ablation(
    case: Case,
    side: Side,
    kind: str,
    *,
    values: tuple[Values, Values],
    groups: Groups | None,
    thresholds: tuple[Values, float],
) -> Ablation:
    """The numbers of one ablation from effects and losses ``[set, example]``; the first threshold by example."""
    (effects, losses), (shares, margin) = values, thresholds
    least = float(shares.mean())
    bounded, unit = case.plan.task.bounded, case.plan.task.measure
    bound = 1.0 if bounded else None
    best = effects[1 + int(effects[1:].mean(1).argmax())]
    sample = Sample(effects[:1], bound, groups=groups, margins=shares)
    own = sample.effect(margin=least, name=f"{kind}: the set {side.does}", unit=unit)
    random = Beyond(effects[0], effects[1:], bounded, groups)
    beyond = random.effect(margin=margin, name=f"{kind}: more than random sets", unit=unit)
    loss = Beyond(losses[0], losses[1:], groups=groups)
    # Half of a side is ablated at random: less than what the claim is about. A set that holds a spare of itself may
    # stand that and be necessary as a whole; where there are spares, random sets may stand it no worse than one that
    # is sufficient.
    mild = kind == "stochastic"
    return Ablation(
        kind,
        _upwards(own, least),
        None if mild and side is NECESSARY else least,
        _upwards(beyond, margin),
        None if mild and side is SUFFICIENT else margin,
        sample,
        random,
        Sample(best[None], bound, groups=groups).effect(name=f"{kind}: the best random set {side.does}", unit=unit),
        loss.effect(name=f"{kind}: more than random sets, loss", unit="loss"),
    )


def _upwards(test: Estimate, threshold: float) -> Estimate:
    """The test with the p-value of "no more than the threshold": far below it, or without a spread, is no evidence."""
    known = test.p is not None and (test.value or 0.0) > threshold
    return test if known else msgspec.structs.replace(test, p=1.0)


@final
@dataclass(frozen=True)
class _Answer:
    """What was read of one side of one subject, and what is said of it."""

    case: Case
    subject: SubjectRecord
    read: Arrays
    side: Side
    ablations: tuple[Ablation, ...]
    settings: PartsAuditSettings

    @property
    def weakest(self) -> tuple[Estimate, float]:
        """The test that rejects least, and its threshold: all must reject for the claim to hold.

        Source: Berger (1982), "Multiparameter hypothesis testing and acceptance sampling" (intersection-union test).
        """
        tests = [test for ablation in self.ablations for test in ablation.tests]
        return max(tests, key=lambda test: (test[0].p or 0.0, test[1] - (test[0].value or 0.0)))

    @property
    def evidence(self) -> Smallest:
        """That one ablation leaves too much (or keeps too little), whichever: the claim does not hold then."""
        own = [(one.sample, one.least) for one in self.ablations if one.least is not None]
        beyond = [(one.random, one.margin) for one in self.ablations if one.margin is not None]
        return Smallest([*own, *beyond])

    def found(self) -> str:
        """Where the claim is shown."""
        side = self.side
        low = min((a.own for a in self.ablations if a.least is not None), key=lambda own: own.value or 0.0)
        return (
            f"{self._set()} is {side.claim} for {self._behaviour()}. {side.shown}, it {side.does} at least {low} of "
            f"the score, and more than random sets do. {self._units()} {self._others()}"
        )

    def otherwise(self) -> str:
        """Where it is not: under which ablations it looks as if, and under which not."""
        claim, alpha = self.side.claim, self.case.plan.alpha
        yes = [a.kind for a in self.ablations if a.holds(alpha)]
        no = [a.kind for a in self.ablations if not a.holds(alpha)]
        if not yes:
            said = f"is not shown to be {claim} for {self._behaviour()} under any ablation."
        elif no:
            said = (
                f"looks {claim} for {self._behaviour()} under {_listed(yes)} ablation, not under {_listed(no)} "
                f"ablation: so it is not shown to be."
            )
        else:
            said = f"looks {claim} for {self._behaviour()}, but not once all tests of this report are allowed for."
        test, _ = self.weakest
        return f"{self._set()} {said} The weakest number is {test} ({test.name}). {self._units()} {self._others()}"

    def _set(self) -> str:
        units, total = len(self.read["units"]), int(self.read["total"])
        return f"In {self.subject.name}, the set of {units} of {total} hidden units"

    def _units(self) -> str:
        by_layer: dict[str, list[int]] = {}
        for address in self.read["units"]:
            by_layer.setdefault(self.subject.layers[int(address[0])], []).append(int(address[1]))
        addresses = "; ".join(
            f"layer {layer}: {', '.join(map(str, units[:_SHOWN]))}{' ...' if len(units) > _SHOWN else ''}"
            for layer, units in by_layer.items()
        )
        return f"Its units: {addresses}."

    def _behaviour(self) -> str:
        group = self.settings.behaviour
        return "all examples together" if group is None else f"the examples of group {group}"

    def _others(self) -> str:
        """What it does not prove: other sets may do as well; and how hard the worst ablation was looked for."""
        side, settings = self.side, self.settings
        best = max((a.best for a in self.ablations if a.kind == "mean"), key=lambda e: e.value or 0.0)
        alone = (
            " If they all have one answer, a set that always gives it would look sufficient too."
            if settings.behaviour is not None and side is SUFFICIENT
            else ""
        )
        searched = " The worst ablation was searched for at random: a worse one may exist."
        return (
            f"Of {settings.nulls} random sets of as many units per layer, the best {side.does} {best} under mean "
            f"ablation. Other sets that were not tried may do as much.{alone}{'' if self.read['guided'] else searched}"
        )


def _listed(kinds: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(kinds[:-1]), kinds[-1]]))
