"""WT205: is a set of hidden units necessary for a behaviour (without it, it goes) and sufficient (alone, it stays)?"""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, final

import msgspec

from wheeltap.audits.base import Audit, AuditSettings, Case, Draft, Unanswered, Values, Verdict
from wheeltap.audits.limits import Count, Margin, Share
from wheeltap.core.records import Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.plans.plan import Plan
from wheeltap.stats.beyond import beyond_random
from wheeltap.stats.effect import mean_effect, smallest_detectable

ABLATIONS: Final = ("zero", "mean", "resample", "stochastic", "adversarial")
"""In the order of the reading's first axis."""

_SHOWN: Final = 12


class PartsSettings(AuditSettings, frozen=True, kw_only=True):
    """Which set, how it is tried, and thresholds; the first seven are the reading's own.

    Attributes:
        share: Share of the hidden units that make up the set: those whose mean-ablation costs most.
        units: The set itself, in place of ``share``: ``layer:unit,unit;layer:unit``.
        behaviour: Only examples of this group of the task (a class, where it names none) count; all where ``None``.
        nulls: Random sets of as many units of each layer.
        draws: Draws of the resample and stochastic ablations.
        tries: Steps of the search for the part that hurts most.
        most: Most hidden units that are tried one by one to find the set.
        at_least: Share of the score above chance that must go without the set (or stay with it alone).
        margin: The set must do this share of the score better than random sets.
        worth: Smallest excess over these thresholds that a ``not_found`` must have been able to see.
    """

    share: Share = 0.1
    units: Annotated[str, msgspec.Meta(pattern=r"^$|^[^:;]+:\d+(,\d+)*(;[^:;]+:\d+(,\d+)*)*$")] = ""
    behaviour: int | None = None
    nulls: Annotated[int, msgspec.Meta(ge=2)] = 16
    draws: Count = 4
    tries: Annotated[int, msgspec.Meta(ge=0)] = 4
    most: Count = 4096
    at_least: Share = 0.5
    margin: Margin = 0.05
    worth: Margin = 0.20


_READING: Final = ("share", "units", "behaviour", "nulls", "draws", "tries", "most")


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


NECESSARY: Final = Side("without", "necessary", "takes away", "ablated as a whole, or where that hurts most")
SUFFICIENT: Final = Side("alone", "sufficient", "keeps above chance", "whatever was done to the other hidden units")


@dataclass(frozen=True)
class Ablation:
    """What one kind of ablation says.

    Attributes:
        own: How much of the score goes without the set (or stays with it alone).
        least: What ``own`` must exceed; nothing is asked of it where ``None``.
        beyond: How much more that is than with random sets.
        margin: What ``beyond`` must exceed; nothing is asked of it where ``None``.
        best: The same as ``own`` for the random set that does best.
        loss: What ``beyond`` is in the loss.
    """

    kind: str
    own: Estimate
    least: float | None
    beyond: Estimate
    margin: float | None
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


@dataclass(frozen=True)
class Answer:
    """What was read of one side of one subject."""

    side: Side
    ablations: tuple[Ablation, ...]

    @property
    def weakest(self) -> tuple[Estimate, float]:
        """The test that rejects least, and its threshold: all must reject for the claim to hold.

        Source: Berger (1982), "Multiparameter hypothesis testing and acceptance sampling" (intersection-union test).
        """
        tests = [test for ablation in self.ablations for test in ablation.tests]
        return max(tests, key=lambda test: (test[0].p or 0.0, test[1] - (test[0].value or 0.0)))


@final
class PartsAudit(Audit):
    """Score lost without a set of hidden units and kept with it alone, against random sets of equal size."""

    name = "parts"
    code = "WT205"
    title = "Necessary and sufficient parts"
    reads = (
        "A set of hidden units is ablated, or kept alone, in five ways, the last one searching for the subset "
        "that hurts most; random sets of the same size are the yardstick. Found means that the claim was shown."
    )
    asks = "structure"
    shows = True
    settings_type = PartsSettings
    spares: ClassVar[dict[str, int]] = {"nulls": 8, "draws": 2, "tries": 1}
    by_units = True

    def ask(self, case: Case) -> list[Trial]:
        """One reading per subject."""
        if not case.known(case.plan.baselines()):
            return []
        return [self._trial(case.plan, subject) for subject in case.plan.subjects]

    def most(self, plan: Plan) -> int:
        """One per subject."""
        return len(plan.subjects)

    def most_passes(self, plan: Plan) -> float:
        """Each unit alone, where the set is to be found; then every ablation of either side of every set."""
        how = self.settings
        # A step of the search: a slope (a forward, and a backward that counts as two), and a pass.
        each = 2 + 2 * how.draws + 4 * how.tries
        found = [0 if how.units else min(self._hidden(plan, subject), how.most) for subject in plan.subjects]
        return float(sum(2 + units + 2 * (1 + how.nulls) * each for units in found))

    def _hidden(self, plan: Plan, subject: SubjectRecord) -> int:
        units = plan.hidden(subject)
        return self.settings.most if units is None else units

    def judge(self, case: Case) -> Verdict:
        """Two findings per subject: is the set necessary, is it sufficient."""
        return Verdict(
            [self._finding(case, subject, side) for subject in case.plan.subjects for side in (NECESSARY, SUFFICIENT)]
        )

    def _trial(self, plan: Plan, subject: SubjectRecord) -> Trial:
        given: dict[str, Scalar | None] = {name: getattr(self.settings, name) for name in _READING}
        # A plan holds no nulls: what is not chosen is left out.
        return plan.reading(subject, "parts", {k: v for k, v in given.items() if v is not None})

    def _finding(self, case: Case, subject: SubjectRecord, side: Side) -> Draft:
        title, trial = f"A set of units is {side.claim}", self._trial(case.plan, subject)
        try:
            read = case.reading(trial)
            answer = self._answer(case, read, side)
        except Unanswered as gap:
            return self.unanswered(subject.name, gap, title=title)
        test, threshold = answer.weakest
        words = _Words(case, subject, read, answer, nulls=self.settings.nulls, behaviour=self.settings.behaviour)
        numbers = [e for a in answer.ablations for e in (a.own, a.beyond, a.best, a.loss)]
        finding = Finding(
            alarm=False,  # a claim that was shown is no bad news
            code=self.code, title=title, status="found", subject=subject.name, because=words.found(),
            estimates=(test, *(e for e in numbers if e is not test)),
            smallest_detectable=smallest_detectable(test, alpha=case.plan.alpha, margin=threshold),
            trials=(trial.key,),
        )  # fmt: skip
        worth = threshold + case.worth(self.settings.worth)
        return Draft(finding, test=test, worth=worth, one_sided=True, otherwise=words.otherwise())

    def _answer(self, case: Case, read: dict[str, Values], side: Side) -> Answer:
        """Every ablation's numbers, turned so that more is always more of what is claimed."""
        sign = 1.0 if case.plan.task.higher_is_better else -1.0
        clean, scores = sign * read["clean_score"], sign * read[f"{side.name}_score"]
        above = float(clean.mean()) - sign * case.chance
        if above <= 0.0:
            raise Unanswered("not_applicable", "The model does no better than chance here, so no part does anything.")
        effects = clean - scores if side is NECESSARY else scores - sign * case.chance
        losses = (1.0 if side is NECESSARY else -1.0) * read[f"{side.name}_loss"]
        least, margin = self.settings.at_least * above, case.worth(self.settings.margin)
        return Answer(
            side,
            tuple(
                _ablation(case, side, kind, effects=effects[at], losses=losses[at], thresholds=(least, margin))
                for at, kind in enumerate(ABLATIONS)
            ),
        )


def _ablation(
    case: Case, side: Side, kind: str, *, effects: Values, losses: Values, thresholds: tuple[float, float]
) -> Ablation:
    """The numbers of one ablation from effects and losses ``[set, example]``."""
    least, margin = thresholds
    scale: dict[str, Any] = {"bounded": case.plan.task.bounded, "unit": case.plan.task.measure}
    best = effects[1 + int(effects[1:].mean(1).argmax())]
    own = mean_effect(effects[:1], margin=least, name=f"{kind}: the set {side.does}", **scale)
    beyond = beyond_random(effects[0], effects[1:], margin=margin, name=f"{kind}: more than random sets", **scale)
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
        mean_effect(best[None], name=f"{kind}: the best random set {side.does}", **scale),
        beyond_random(losses[0], losses[1:], name=f"{kind}: more than random sets, loss", unit="loss"),
    )


def _upwards(test: Estimate, threshold: float) -> Estimate:
    """The test with the p-value of "no more than the threshold": far below it is no evidence."""
    return test if (test.value or 0.0) > threshold else msgspec.structs.replace(test, p=1.0)


@final
@dataclass(frozen=True)
class _Words:
    """What is told of one answer."""

    case: Case
    subject: SubjectRecord
    read: dict[str, Values]
    answer: Answer
    nulls: int
    behaviour: int | None

    def found(self) -> str:
        """Where the claim is shown."""
        side = self.answer.side
        low = min((a.own for a in self.answer.ablations if a.least is not None), key=lambda own: own.value or 0.0)
        return (
            f"{self._set()} is {side.claim} for {self._behaviour()}: {side.shown}, it {side.does} at least {low} of "
            f"the score, and more than random sets do. {self._others()}"
        )

    def otherwise(self) -> str:
        """Where it is not: under which ablations it looks as if, and under which not."""
        claim, alpha = self.answer.side.claim, self.case.plan.alpha
        yes = [a.kind for a in self.answer.ablations if a.holds(alpha)]
        no = [a.kind for a in self.answer.ablations if not a.holds(alpha)]
        if not yes:
            told = f"is not shown to be {claim} for {self._behaviour()} under any ablation."
        elif no:
            told = (
                f"looks {claim} for {self._behaviour()} under {_listed(yes)} ablation, not under {_listed(no)} "
                f"ablation: so it is not shown to be."
            )
        else:
            told = f"looks {claim} for {self._behaviour()}, but not once all tests of this report are allowed for."
        test, _ = self.answer.weakest
        return f"{self._set()} {told} The weakest number is {test} ({test.name}). {self._others()}"

    def _set(self) -> str:
        by_layer: dict[str, list[int]] = {}
        for address in self.read["units"]:
            by_layer.setdefault(self.subject.layers[int(address[0])], []).append(int(address[1]))
        addresses = "; ".join(
            f"layer {layer}: {', '.join(map(str, units[:_SHOWN]))}{' ...' if len(units) > _SHOWN else ''}"
            for layer, units in by_layer.items()
        )
        return (
            f"In {self.subject.name}, the set of {len(self.read['units'])} of {int(self.read['total'])} hidden units "
            f"({addresses})"
        )

    def _behaviour(self) -> str:
        return "all examples together" if self.behaviour is None else f"the examples of group {self.behaviour}"

    def _others(self) -> str:
        """What it does not prove: other sets may do as well; and how hard the worst ablation was looked for."""
        ablations = self.answer.ablations
        best = max((a.best for a in ablations if a.kind == "mean"), key=lambda e: e.value or 0.0)
        searched = (
            "" if self.read["guided"] else " The worst ablation was looked for at random: a worse one may well exist."
        )
        alone = (
            " If they all have one answer, a set that always gives it would look sufficient too."
            if self.behaviour is not None and self.answer.side is SUFFICIENT
            else ""
        )
        return (
            f"Of {self.nulls} random sets of as many units per layer, the best {self.answer.side.does} {best} under "
            f"mean ablation. Other sets that were not tried may do as well.{alone}{searched}"
        )


def _listed(kinds: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(kinds[:-1]), kinds[-1]]))
