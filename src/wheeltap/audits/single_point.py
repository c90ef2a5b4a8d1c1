"""WT105: whether a network depends on a single weight."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar, final

import msgspec
import numpy as np

from wheeltap.audits.base import Case, Hypothesis, Margin, NoAnswer, keeps_less
from wheeltap.audits.case import Arrays, Values
from wheeltap.audits.claims import LOSS, Edge
from wheeltap.audits.losses import NOTHING, grown_of
from wheeltap.audits.reading_audit import ReadingAudit
from wheeltap.core.records import Estimate, Scalar, SubjectRecord, Trial
from wheeltap.core.site import Site
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.single_point import SINGLE_POINT, SORTS, SinglePointSettings, held, text
from wheeltap.stats.evidence import Largest
from wheeltap.stats.sample import Sample, largest_gap

_PASSES = 3
"""Of one screen: one forward, and a backward that counts as two."""

_MEANS = (
    "Losing one number is what a flipped bit or a pruned weight does. Such weights come from how a network was trained "
    "(arXiv 2411.07191 calls them super weights): another network of equal score need not have any, and a "
    "reparametrized "
    "copy may spread one over many."
)
_LIMITS = "Only the weights that were removed are measured; one that the screens rank low may still matter."


class SinglePointAuditSettings(SinglePointSettings, frozen=True, kw_only=True):
    """Thresholds: shares of right answers, or of the way from chance to the score.

    Attributes:
        margin: Smallest loss of score by one weight of interest; the plan's, where it is not given.
        min_effect: Difference that the null control must have been able to see.
    """

    margin: Margin | None = None
    min_effect: Margin = 0.10


@dataclass(frozen=True)
class _Weight:
    """A single weight, bias or gain, and the trial without it.

    Attributes:
        place: Its indices in the parameter.
        sort: What it is, of ``SORTS``.
        value: ``None`` where it is not known.
    """

    parameter: str
    place: tuple[int, ...]
    sort: str
    value: float | None
    trial: Trial

    @property
    def address(self) -> str:
        """The parameter's name and the weight's indices: what ``dict(model.named_parameters())`` is asked for."""
        return f"{self.parameter}[{', '.join(map(str, self.place))}]" if self.place else self.parameter

    def __str__(self) -> str:
        said = [*self._role, *([] if self.value is None else [f"value {self.value:.4g}"])]
        return f"{self.address} ({'; '.join(said)})" if said else self.address

    @property
    def _role(self) -> list[str]:
        """What it is, where that is known."""
        if " and " not in self.sort:
            return [] if self.sort in ("weight", "number") else [f"a {self.sort}"]
        named = zip(self.sort.split(" and "), self.place, strict=False)
        taps = f" at {', '.join(map(str, self.place[2:]))} of the kernel" if self.place[2:] else ""
        return [f"{', '.join(f'{name} {index}' for name, index in named)}{taps}"]

    def of(self, plan: Plan, subject: SubjectRecord) -> "_Weight":
        """The weight at the same address in another subject, whose value is not known."""
        return replace(self, value=None, trial=_without(plan, subject, self.parameter, self.place))


def _without(plan: Plan, subject: SubjectRecord, parameter: str, place: tuple[int, ...]) -> Trial:
    return plan.trial(subject, "erase", site=Site.number(parameter, place), dose=1.0)


def _named(plan: Plan, subject: SubjectRecord, read: Arrays, of: str) -> list[_Weight]:
    """Candidates or random weights that a reading names."""
    found: list[_Weight] = []
    columns = (read[f"{of}_{what}"] for what in ("parameters", "places", "sorts", "values"))
    for parameter, place, sort, value in zip(*columns, strict=True):
        path, at = text(parameter), held(place)
        found.append(_Weight(path, at, SORTS[int(sort)], float(value), _without(plan, subject, path, at)))
    return found


_Lost = list[tuple[_Weight, Values]]
"""Weights, each with its loss of score per example."""


@dataclass(frozen=True)
class _WeightLosses:
    """A subject's candidates and random weights, each with its loss of score per example.

    Attributes:
        own: Its candidates, by its own screens.
        others: Weights at the addresses of those that other subjects' screens name.
        screened: Share of its weights, biases and gains that the screens could read.
    """

    subject: SubjectRecord
    own: _Lost
    others: _Lost
    nulls: _Lost
    screened: float

    @property
    def candidates(self) -> _Lost:
        """All weights among which the worst is looked for."""
        return [*self.own, *self.others]

    @property
    def worst(self) -> tuple[_Weight, Values]:
        """The candidate whose loss costs most; of equal ones (a weight, and the bias that feeds it) the largest."""
        return max(self.candidates, key=lambda pair: (pair[1].mean(), abs(pair[0].value or 0.0)))

    @property
    def random(self) -> tuple[_Weight, Values] | None:
        """The random weight whose loss costs most."""
        return max(self.nulls, key=lambda pair: pair[1].mean(), default=None)

    @property
    def floor(self) -> float:
        """What the worst random weight costs; 0 where none costs anything."""
        return 0.0 if self.random is None else max(0.0, float(self.random[1].mean()))

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Those without one weight."""
        return tuple(weight.trial for weight, _ in (*self.candidates, *self.nulls))


@final
class SinglePointAudit(ReadingAudit[_WeightLosses]):
    """Removes, one at a time, the weights that screens rank highest, and random ones of similar size.

    Each weight that is named in one of two compared subjects is removed in the other too.

    Source: Yu et al. (2024), "The Super Weight in Large Language Models", arXiv 2411.07191, sec. 3.
    """

    name = "single-point"
    code = "WT105"
    title = "Single-point fragility"
    reads = (
        "Single weights, biases and gains that the whole network might depend on are looked for with a few forward and "
        "backward passes, then removed one at a time; random weights of the same size are removed beside them."
    )
    asks = "deployment"
    number = "loss"
    settings_type = SinglePointAuditSettings
    large: ClassVar[dict[str, Scalar | list[int | float]]] = {"confirm": 3, "states": 1}
    spares: ClassVar[dict[str, int]] = {"nulls": 5, "confirm": 1, "states": 1}
    reading = SINGLE_POINT

    # ---- asking -----------------------------------------------------------------------------------------------

    def ask(self, case: Case) -> list[Trial]:
        """The readings; then each subject without one of the weights that they name."""
        wanted = super().ask(case)
        known = {subject.fingerprint: subject for subject in self.read_subjects(case.plan)}
        for trial in [one for one in wanted if one.kind == "read"]:
            with suppress(NoAnswer):
                named = self._removals(case, known[trial.subject], case.reading(trial))
                wanted += [weight.trial for of in named for weight in of]
        return list({trial.key: trial for trial in wanted}.values())

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """A weight is removed whole."""
        return (("erase", 1.0),)

    def most(self, plan: Plan) -> int:
        """The readings, and what is removed."""
        return super().most(plan) + self._removed(plan)

    def most_passes(self, plan: Plan) -> float:
        """The readings, and a pass without each weight."""
        return super().most_passes(plan) + self._removed(plan)

    def passes(self, plan: Plan, subject: SubjectRecord) -> float:
        """A forward and a backward pass for each screen."""
        return _PASSES * self.settings.states

    def cheaper(self, plan: Plan, share: float) -> dict[str, int]:
        """The further states go first: each of them costs a forward and a backward pass."""
        lower = super().cheaper(plan, share)
        return lower if share >= 1.0 or self.settings.states == 1 else {**lower, "states": 1}

    def _removed(self, plan: Plan) -> int:
        """Candidates and random weights of every subject, what each pair tries in each other, and the twin's."""
        rivals = len(plan.subjects) - 1
        own = len(plan.subjects) * (self.settings.confirm + self.settings.nulls)
        return own + (2 * rivals + (plan.twin is not None)) * self.settings.confirm

    def _removals(
        self, case: Case, subject: SubjectRecord, read: Arrays
    ) -> tuple[list[_Weight], list[_Weight], list[_Weight]]:
        """Own candidates, those of others, and random weights; of a copy the own alone."""
        own = _named(case.plan, subject, read, "candidate")
        if subject not in case.plan.subjects:
            return own, [], []
        known = {weight.trial.key for weight in own}
        others = {weight.trial.key: weight for weight in self._of_others(case, subject)}
        new = [weight for key, weight in others.items() if key not in known]
        return own, new, _named(case.plan, subject, read, "null")

    def _of_others(self, case: Case, subject: SubjectRecord) -> list[_Weight]:
        """Weights at the addresses of what it is compared with: each of these by its own screens."""
        plan, found = case.plan, list[_Weight]()
        for other in case.rivals if subject == plan.reference else (plan.reference,):
            with suppress(NoAnswer):
                found += _named(plan, other, case.reading(self.trial(plan, other)), "candidate")
        return [weight.of(plan, subject) for weight in found]

    # ---- judging ----------------------------------------------------------------------------------------------

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> _WeightLosses:
        """The weights that it names, and those that others name, each with what its loss costs."""
        clean = case.clean(subject)

        def lost(weights: Iterable[_Weight]) -> _Lost:
            return [(weight, case.plan.task.sign * (clean - case.values(weight.trial))) for weight in weights]

        own, others, nulls = self._removals(case, subject, read)
        # What is skipped is not there: the two are of other shapes.
        there = [weight for weight in others if not case.skipped([weight.trial])]
        return _WeightLosses(subject, lost(own), lost(there), lost(nulls), float(read["screened"]))

    def singles(self, case: Case, subject: SubjectRecord, read: _WeightLosses) -> list[Hypothesis]:
        """Whether the worst weight costs more than the margin, and than any random one."""
        weight, loss = read.worst
        case.require_above_chance(subject)
        # Found is more than the margin and than any random weight costs; excluded is no more than the margin alone.
        edge = case.edge(subject, own=self.settings.margin)
        margin, bar, chosen = edge.value, max(edge.value, read.floor), len(read.candidates)
        alone = _sample(case, loss, edge).effect(
            margin=bar,
            level=1.0 - case.plan.alpha / chosen,
            name=f"loss without {weight.address}",
            unit=case.plan.task.measure,
        )
        tested = _worst_of(chosen, alone)
        lost_text = case.plan.task.loss_text(tested)
        rest = f"{_compared(read)} {_cost(read, self.settings.states)}"
        named = "the screens of the compared models rank highest" if read.others else "the screens rank highest"
        claim = Hypothesis(
            test=tested, margin=margin, among=chosen,
            evidence=Largest([_sample(case, lost, edge) for _, lost in read.candidates]),
            one_sided=True, words=LOSS, beside=self._beside(case, read), trials=read.trials, scheme="worst-weight",
            coverage=read.screened,
            found=f"{subject.name} depends on one weight. Without {weight} it loses {lost_text}, more than "
            f"{bar:.2g}. {rest} {_MEANS}",
            otherwise=f"Of the {chosen} weights that {named}, {subject.name} depends most on "
            f"{weight}: without it {subject.name} loses {lost_text}, not shown to be more than "
            f"{bar:.2g}. {rest} {_LIMITS}",
        )  # fmt: skip
        return [claim]

    def compared(self, case: Case, rival: SubjectRecord, one: _WeightLosses, two: _WeightLosses) -> Hypothesis:
        """Which loses more without its own worst weight."""
        plan = case.plan
        for subject in (plan.reference, rival):
            case.require_above_chance(subject)
        margin = case.margin(self.settings.margin)
        bar = max(margin, one.floor, two.floor)
        # Either worst weight was chosen among several: any pair of candidates might have been the one compared.
        chosen = len(one.candidates) * len(two.candidates)
        # At one address a copy whose units are permuted has another weight: there each one's own candidates tell. They
        # differ where they do by both, their own and those of both.
        ways = [(replace(one, others=[]).worst, replace(two, others=[]).worst), (one.worst, two.worst)]
        first, second = min(ways, key=lambda pair: abs(float((pair[1][1] - pair[0][1]).mean())))
        bound, level = 2.0 if plan.task.bounded else None, 1.0 - plan.alpha / chosen
        difference = Sample((second[1] - first[1])[None, :], bound, groups=case.groups)
        alone = difference.effect(level=level, margin=bar, name="loss_difference", unit=plan.task.measure)
        gap = _worst_of(chosen, alone)
        losses = [np.stack([lost for _, lost in read.candidates]) for read in (one, two)]
        words = (
            f"Without its worst weight, {second[0]}, {rival.name} loses {plan.task.loss_text(gap, more=True)} than "
            f"{plan.reference.name} without {first[0]}"
        )
        return Hypothesis(
            test=gap, margin=margin, among=chosen,
            evidence=largest_gap(*losses, bound=bound, groups=case.groups),
            title="without its worst weight", scheme="worst-weight",
            coverage=min(one.screened, two.screened), min_effect=case.scaled(self.settings.min_effect),
            trials=(*one.trials, *two.trials), brief=keeps_less(self.title, plan.reference, rival, gap),
            found=f"{words}. {_MEANS}",
            otherwise=f"{words}: not shown to be more than {bar:.2g} either way. {_LIMITS}",
        )  # fmt: skip

    def null(self, case: Case, one: _WeightLosses, two: _WeightLosses) -> Hypothesis:
        """By what the twin loses more, each by its own screens alone: that the two agree is what is tested."""
        found = super().null(case, *(replace(read, others=[], nulls=[]) for read in (one, two)))
        return replace(found, margin=max(found.margin, case.way(self.settings.margin)))

    def _loss(self, case: Case, weight: _Weight, loss: Values) -> Estimate:
        name = f"loss without {weight.address}"
        return _sample(case, loss).effect(level=1.0 - case.plan.alpha, name=name, unit=case.plan.task.measure)

    def _beside(self, case: Case, read: _WeightLosses) -> tuple[Estimate, ...]:
        """The other candidates, the worst random weight, and the worst candidate's own number."""
        worst, random = read.worst[0], read.random
        losses = [self._loss(case, w, loss) for w, loss in read.candidates if w is not worst]
        if random is not None:
            name = f"largest of {len(read.nulls)} random losses, {random[0].address}"
            losses.append(msgspec.structs.replace(self._loss(case, *random), name=name))
        values = () if worst.value is None else (Estimate.exact(f"weight {worst.address}", worst.value, "weight"),)
        unit, sign = case.plan.task.measure, case.plan.task.sign
        without = float((case.clean(read.subject) - sign * read.worst[1]).mean())
        score = Estimate(
            name="score", value=without, low=None, high=None, level=0.95, n=len(read.worst[1]), unit=unit, method="mean"
        )
        # They only stand beside the tested one: their p-values are nobody's question.
        clean, scores = case.clean(read.subject), case.values(read.worst[0].trial)[None, :]
        grown = (grown_of(scores, clean, groups=case.groups),) if case.is_error(read.subject) else ()
        return (score, *grown, *(msgspec.structs.replace(estimate, p=None) for estimate in losses), *values)


def _sample(case: Case, loss: Values, edge: Edge = NOTHING) -> Sample:
    """A loss per example, to be held against a margin."""
    return Sample(loss[None, :], 1.0 if case.plan.task.bounded else None, groups=case.groups, margins=edge.each)


def _worst_of(several: int, effect: Estimate) -> Estimate:
    """The effect with a p-value that holds for any of ``several`` that might have been the worst (Bonferroni)."""
    return msgspec.structs.replace(effect, p=None if effect.p is None else min(1.0, several * effect.p))


def _compared(read: _WeightLosses) -> str:
    if read.random is None:
        return "There are no other weights to compare with."
    weight, loss = read.random
    return f"Of {len(read.nulls)} random weights of similar size the worst, {weight}, costs {loss.mean():.3f}."


def _cost(read: _WeightLosses, screens: int) -> str:
    missed = "" if read.screened >= 1.0 else f" The screens could read {read.screened:.1%} of the weights."
    confirmed = len(read.candidates)
    return (
        f"Located after {_PASSES * screens + confirmed} passes ({screens} forward; {screens} backward, each counted as "
        f"2; {confirmed} confirmations); the random weights took {len(read.nulls)} more.{missed}"
    )
