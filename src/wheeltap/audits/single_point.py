"""WT105: whether a network depends on a single weight."""

from dataclasses import dataclass
from typing import ClassVar, final

import msgspec

from wheeltap.audits.base import Arrays, Case, Tested, Unanswered, Values, keeps_less
from wheeltap.audits.claims import LOSS, Cells
from wheeltap.audits.limits import Margin
from wheeltap.audits.reading_audit import ReadingAudit
from wheeltap.core.records import Estimate, SubjectRecord, Trial
from wheeltap.core.site import Site
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.single_point import SINGLE_POINT, SinglePointSettings
from wheeltap.stats.effect import mean_effect

_PASSES = 3
"""Of the reading: one forward, and a backward that counts as two."""

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
    """

    margin: Margin | None = None


@dataclass(frozen=True)
class _Weight:
    """A single weight, and the trial without it.

    Attributes:
        place: Which of its first two indices is the input, then its indices in the parameter as stored.
    """

    parameter: str
    value: float
    trial: Trial
    place: tuple[int, ...]

    @property
    def address(self) -> str:
        """The parameter's name and the weight's indices: what ``dict(model.named_parameters())`` is asked for."""
        return f"{self.parameter}[{', '.join(map(str, self.place[1:]))}]"

    def __str__(self) -> str:
        names = ("input", "output") if self.place[0] == 0 else ("output", "input")
        said = [f"{name} {index}" for name, index in zip(names, self.place[1:3], strict=True)]
        taps = f" at {', '.join(map(str, self.place[3:]))} of the kernel" if self.place[3:] else ""
        return f"{self.address} ({', '.join(said)}{taps}; value {self.value:.4g})"


@dataclass(frozen=True)
class _Read:
    """A subject's candidates and random weights, each with its loss of score per example.

    Attributes:
        screened: Share of the layers' weights that the screens could read.
    """

    subject: SubjectRecord
    candidates: list[tuple[_Weight, Values]]
    nulls: list[tuple[_Weight, Values]]
    screened: float

    @property
    def worst(self) -> tuple[_Weight, Values]:
        """The candidate whose loss costs most."""
        return max(self.candidates, key=lambda pair: pair[1].mean())

    @property
    def random(self) -> tuple[_Weight, Values] | None:
        """The random weight whose loss costs most."""
        return max(self.nulls, key=lambda pair: pair[1].mean(), default=None)

    @property
    def floor(self) -> float:
        """What the worst random weight costs; 0 where none costs anything."""
        return 0.0 if self.random is None else max(0.0, float(self.random[1].mean()))

    @property
    def coverage(self) -> float:
        """Share of all the subject's weights among which the worst was looked for."""
        in_layers = self.subject.covered / self.subject.parameters if self.subject.covered else 1.0
        return self.screened * in_layers

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Those without one weight."""
        return tuple(weight.trial for weight, _ in (*self.candidates, *self.nulls))


@final
class SinglePointAudit(ReadingAudit[_Read]):
    """Removes, one at a time, the weights that two screens rank highest, and random ones of similar size.

    Source: Yu et al. (2024), "The Super Weight in Large Language Models", arXiv 2411.07191, sec. 3.
    """

    name = "single-point"
    code = "WT105"
    title = "Single-point fragility"
    reads = (
        "Single weights that the whole network might depend on are looked for with one forward and one backward "
        "pass, then removed one at a time; random weights of the same size are removed beside them."
    )
    asks = "deployment"
    settings_type = SinglePointAuditSettings
    spares: ClassVar[dict[str, int]] = {"nulls": 5}
    reading = SINGLE_POINT
    reads_twin = False
    copies = ()

    # ---- asking -----------------------------------------------------------------------------------------------

    def ask(self, case: Case) -> list[Trial]:
        """A reading of every subject; then each without one of the weights that it names."""
        wanted = super().ask(case)
        for subject in self.asked(case.plan) if wanted else ():
            try:
                candidates, nulls = self._named(case, subject, case.reading(self.trial(case.plan, subject)))
            except Unanswered:
                continue
            wanted += [weight.trial for weight in (*candidates, *nulls)]
        return wanted

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """A weight is removed whole."""
        return (("erase", 1.0),)

    def most(self, plan: Plan) -> int:
        """A reading, the candidates and the random weights of every subject."""
        return super().most(plan) + self._removed(plan)

    def most_passes(self, plan: Plan) -> float:
        """The readings, and a pass without each weight."""
        return super().most_passes(plan) + self._removed(plan)

    def passes(self, plan: Plan, subject: SubjectRecord) -> float:
        """A forward and a backward pass."""
        return _PASSES

    def _removed(self, plan: Plan) -> int:
        return len(self.asked(plan)) * (self.settings.confirm + self.settings.nulls)

    def _named(self, case: Case, subject: SubjectRecord, read: Arrays) -> tuple[list[_Weight], list[_Weight]]:
        """Candidates and random weights that the reading names."""

        def listed(points: str, of: str) -> list[_Weight]:
            found: list[_Weight] = []
            rows = zip(read[points], read[f"{of}_values"], read[f"{of}_places"], strict=True)
            for (layer, row, column), value, place in rows:
                site = Site.weight(subject.layers[int(layer)], row=int(row), column=int(column))
                trial = case.plan.trial(subject, "erase", site=site, dose=1.0)
                name = subject.weights[int(layer)]
                found.append(_Weight(name, float(value), trial, tuple(int(at) for at in place if at >= 0)))
            return found

        return listed("candidates", "candidate"), listed("nulls", "null")

    # ---- judging ----------------------------------------------------------------------------------------------

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> _Read:
        """The weights it names, each with what its loss costs."""
        sign = 1.0 if case.plan.task.higher_is_better else -1.0
        clean = case.clean(subject)

        def lost(weights: list[_Weight]) -> list[tuple[_Weight, Values]]:
            return [(weight, sign * (clean - case.values(weight.trial))) for weight in weights]

        candidates, nulls = self._named(case, subject, read)
        return _Read(subject, lost(candidates), lost(nulls), float(read["screened"]))

    def singles(self, case: Case, subject: SubjectRecord, read: _Read) -> list[Tested]:
        """Whether the worst weight costs more than the margin, and than any random one."""
        weight, loss = read.worst
        case.require_above_chance(subject)
        # Found is more than the margin and than any random weight costs; excluded is no more than the margin alone.
        margin = case.margin(self.settings.margin)
        bar, chosen = max(margin, read.floor), len(read.candidates)
        tested = _worst_of(chosen, self._loss(case, weight, loss, margin=bar, of=chosen))
        rest = f"{_compared(read)} {_cost(read)}"
        claim = Tested(
            test=tested, margin=margin, cells=Cells(loss[None, :], case.plan.task.bounded), among=chosen,
            one_sided=True, words=LOSS, beside=self._beside(case, read), trials=read.trials, scheme="worst-weight",
            coverage=read.coverage,
            found=f"{subject.name} depends on one weight. Without {weight} it loses {tested} of its score, more than "
            f"{bar:.2g}. {rest} {_MEANS}",
            otherwise=f"Of the {chosen} weights that the screens rank highest, {subject.name} depends most on "
            f"{weight}: without it {subject.name} loses {tested} of its score, not shown to be more than "
            f"{bar:.2g}. {rest} {_LIMITS}",
        )  # fmt: skip
        return [claim]

    def compared(self, case: Case, rival: SubjectRecord, one: _Read, two: _Read) -> Tested:
        """Which loses more without its own worst weight."""
        plan = case.plan
        for subject in (plan.reference, rival):
            case.require_above_chance(subject)
        margin = case.margin(self.settings.margin)
        bar = max(margin, one.floor, two.floor)
        # Either worst weight was chosen among several: any pair of candidates might have been the one compared.
        chosen = len(one.candidates) * len(two.candidates)
        difference, level = two.worst[1] - one.worst[1], 1.0 - plan.alpha / chosen
        alone = mean_effect(
            difference[None, :], level=level, margin=bar, name="loss_difference", unit=plan.task.measure
        )
        gap = _worst_of(chosen, alone)
        words = (
            f"Without its worst weight, {two.worst[0]}, {rival.name} loses {gap} more of its score than "
            f"{plan.reference.name} without {one.worst[0]}"
        )
        return Tested(
            test=gap, margin=margin, among=chosen, title="without its worst weight", scheme="worst-weight",
            coverage=min(one.coverage, two.coverage),
            trials=(*one.trials, *two.trials), brief=keeps_less(self.title, plan.reference, rival, gap),
            found=f"{words}. {_MEANS}",
            otherwise=f"{words}: not shown to be more than {bar:.2g} either way. {_LIMITS}",
        )  # fmt: skip

    def _loss(self, case: Case, weight: _Weight, loss: Values, *, margin: float = 0.0, of: int = 1) -> Estimate:
        task, level = case.plan.task, 1.0 - case.plan.alpha / of
        name = f"loss without {weight.address}"
        return mean_effect(
            loss[None, :], level=level, margin=margin, bounded=task.bounded, name=name, unit=task.measure
        )

    def _beside(self, case: Case, read: _Read) -> tuple[Estimate, ...]:
        """The other candidates, the worst random weight, and the worst candidate's own number."""
        worst, random = read.worst[0], read.random
        losses = [self._loss(case, w, loss) for w, loss in read.candidates if w is not worst]
        if random is not None:
            name = f"largest of {len(read.nulls)} random losses, {random[0].address}"
            losses.append(msgspec.structs.replace(self._loss(case, *random), name=name))
        value = Estimate(
            name=f"weight {worst.address}", value=worst.value, low=worst.value, high=worst.value, level=1.0, n=1,
            unit="weight", method="exact",
        )  # fmt: skip
        unit, sign = case.plan.task.measure, case.plan.task.sign
        without = float((case.clean(read.subject) - sign * read.worst[1]).mean())
        score = Estimate(
            name="score", value=without, low=None, high=None, level=0.95, n=len(read.worst[1]), unit=unit, method="mean"
        )
        # They only stand beside the tested one: their p-values are nobody's question.
        return (score, *(msgspec.structs.replace(estimate, p=None) for estimate in losses), value)


def _worst_of(several: int, effect: Estimate) -> Estimate:
    """The effect with a p-value that holds for any of ``several`` that might have been the worst (Bonferroni)."""
    return msgspec.structs.replace(effect, p=None if effect.p is None else min(1.0, several * effect.p))


def _compared(read: _Read) -> str:
    if read.random is None:
        return "There are no other weights to compare with."
    weight, loss = read.random
    return f"Of {len(read.nulls)} random weights of similar size the worst, {weight}, costs {loss.mean():.3f}."


def _cost(read: _Read) -> str:
    missed = "" if read.screened >= 1.0 else f" The screens could read {read.screened:.1%} of the weights."
    confirmed = len(read.candidates)
    return (
        f"Located after {_PASSES + confirmed} passes (1 forward; 1 backward, counted as 2; {confirmed} "
        f"confirmations); the random weights took {len(read.nulls)} more.{missed}"
    )
