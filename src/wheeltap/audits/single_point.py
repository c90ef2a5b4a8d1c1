"""WT105: whether a network hangs by a single weight."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, final

import msgspec
import numpy as np

from wheeltap.audits.base import Audit, AuditSettings, Case, Draft, Unanswered, Values, Verdict, keeps_less, pair
from wheeltap.audits.limits import Count, Margin
from wheeltap.core.records import Estimate, Finding, SubjectRecord, Trial
from wheeltap.core.site import Site
from wheeltap.plans.plan import Plan
from wheeltap.stats.effect import mean_effect, smallest_detectable

READING = "single-point"
_PASSES = 3
"""Of the reading: one forward, and a backward that counts as two."""

_PLACE = (
    "A row is an output of the layer and a column an input; embeddings and the Conv1D of GPT-2 store them the other "
    "way round."
)

_MEANS = (
    "Losing one number is what a flipped bit or a pruned weight does. Such weights come from how a network was trained "
    "(arXiv 2411.07191 calls them super weights): another network of equal score need not have any, and a re-coded "
    "copy may spread one over many."
)
_LIMITS = "Only the weights that were taken out are measured; one that the screens rank low may still matter."


class SinglePointSettings(AuditSettings, frozen=True, kw_only=True):
    """Thresholds.

    Attributes:
        confirm: Weights taken out one at a time, those that the screens rank highest.
        nulls: Random weights of like size, taken out to compare.
        margin: Loss of score by one weight that does not matter; the test is of a larger one. This and ``worth`` are
            shares: of right answers, or of the way from chance to the score.
        worth: Smallest loss that a ``not_found`` must have been able to see.
    """

    confirm: Count = 3
    nulls: Annotated[int, msgspec.Meta(ge=0)] = 20
    margin: Margin = 0.05
    worth: Margin = 0.10


@dataclass(frozen=True)
class _Weight:
    """A single weight, and the trial without it.

    Attributes:
        place: Which of its first two indices is the input, then its indices in the parameter as stored; empty where
            the reading does not tell (before version 2).
    """

    site: Site
    value: float
    trial: Trial
    place: tuple[int, ...] = ()

    @property
    def address(self) -> str:
        """The parameter's name and the weight's indices: what ``dict(model.named_parameters())`` is asked for."""
        if not self.place:
            return str(self.site)
        name = f"{self.site.layer}.weight".lstrip(".")
        return f"{name}[{', '.join(map(str, self.place[1:]))}]"

    def __str__(self) -> str:
        if not self.place:
            row, column = self.site.position or (0, 0)
            return f"layer {self.site.layer}, row {row}, column {column} (value {self.value:.4g})"
        names = ("input", "output") if self.place[0] == 0 else ("output", "input")
        said = [f"{name} {index}" for name, index in zip(names, self.place[1:3], strict=True)]
        taps = f" at {', '.join(map(str, self.place[3:]))} of the kernel" if self.place[3:] else ""
        return f"{self.address} ({', '.join(said)}{taps}; value {self.value:.4g})"


@dataclass(frozen=True)
class _Measured:
    """A subject's candidates and random weights, each with its loss of score per example.

    Attributes:
        screened: Share of the weights that the screens could read.
    """

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
    def passes(self) -> int:
        """What it took to locate the worst candidate."""
        return _PASSES + len(self.candidates)

    @property
    def keys(self) -> tuple[str, ...]:
        """The trials behind it."""
        return tuple(weight.trial.key for weight, _ in (*self.candidates, *self.nulls))


@final
class SinglePointAudit(Audit):
    """Takes out, one at a time, the weights that two screens rank highest, and random ones of like size.

    Source: Yu et al. (2024), "The Super Weight in Large Language Models", arXiv 2411.07191, sec. 3.
    """

    name = "single-point"
    code = "WT105"
    title = "Single-point fragility"
    reads = (
        "Single weights that the whole network might depend on are looked for with one forward and one backward "
        "pass, then removed one at a time; random weights of the same size are removed beside them."
    )
    settings_type = SinglePointSettings
    spares: ClassVar[dict[str, int]] = {"nulls": 5}

    # ---- asking -----------------------------------------------------------------------------------------------

    def ask(self, case: Case) -> list[Trial]:
        """A reading of every subject; then each without one of the weights that it names."""
        if not case.known(case.plan.baselines()):
            return []
        wanted: list[Trial] = []
        for subject in case.plan.subjects:
            wanted.append(self._reading(case, subject))
            try:
                candidates, nulls, _ = self._named(case, subject)
            except Unanswered:
                continue
            wanted += [weight.trial for weight in (*candidates, *nulls)]
        return wanted

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """A weight is taken out whole."""
        return (("erase", 1.0),)

    def most(self, plan: Plan) -> int:
        """A reading, the candidates and the random weights of every subject."""
        return len(plan.subjects) * (1 + self.settings.confirm + self.settings.nulls)

    def most_passes(self, plan: Plan) -> float:
        """The reading takes a forward and a backward pass."""
        return self.most(plan) + len(plan.subjects) * (_PASSES - 1.0)

    def _reading(self, case: Case, subject: SubjectRecord) -> Trial:
        settings = {"confirm": self.settings.confirm, "nulls": self.settings.nulls}
        return case.plan.reading(subject, READING, settings)

    def _named(self, case: Case, subject: SubjectRecord) -> tuple[list[_Weight], list[_Weight], float]:
        """Candidates and random weights that the reading names, and the share of weights it screened."""
        read = case.reading(self._reading(case, subject))

        def listed(points: str, of: str) -> list[_Weight]:
            found: list[_Weight] = []
            places = read.get(f"{of}_places", np.empty((len(read[points]), 0)))
            for (layer, row, column), value, place in zip(read[points], read[f"{of}_values"], places, strict=True):
                site = Site.weight(subject.layers[int(layer)], row=int(row), column=int(column))
                trial = case.plan.trial(subject, "erase", site=site, dose=1.0)
                found.append(_Weight(site, float(value), trial, tuple(int(at) for at in place if at >= 0)))
            return found

        candidates, nulls = listed("candidates", "candidate"), listed("nulls", "null")
        return candidates, nulls, float(read["screened"])

    # ---- judging ----------------------------------------------------------------------------------------------

    def judge(self, case: Case) -> Verdict:
        """One finding per subject about its worst weight, one per pair about whose is worse."""
        measured: dict[str, _Measured | Unanswered] = {}
        for subject in case.plan.subjects:
            try:
                measured[subject.name] = self._measure(case, subject)
            except Unanswered as gap:
                measured[subject.name] = gap
        return Verdict(
            drafts=[
                *(self._single(case, subject, measured[subject.name]) for subject in case.plan.subjects),
                *(self._pair(case, rival, measured) for rival in case.rivals),
            ]
        )

    def _measure(self, case: Case, subject: SubjectRecord) -> _Measured:
        sign = 1.0 if case.plan.task.higher_is_better else -1.0
        clean = case.clean(subject)

        def lost(weights: list[_Weight]) -> list[tuple[_Weight, Values]]:
            return [(weight, sign * (clean - case.values(weight.trial))) for weight in weights]

        candidates, nulls, screened = self._named(case, subject)
        return _Measured(lost(candidates), lost(nulls), screened)

    def _single(self, case: Case, subject: SubjectRecord, one: _Measured | Unanswered) -> Draft:
        if isinstance(one, Unanswered):
            return self.unanswered(subject.name, one)
        weight, loss = one.worst
        margin = max(case.worth(self.settings.margin), one.floor)
        chosen = len(one.candidates)
        tested = _worst_of(chosen, self._loss(case, weight, loss, margin=margin, of=chosen))
        finding = Finding(
            code=self.code,
            title=self.title,
            status="found",
            subject=subject.name,
            estimates=(tested, *self._beside(case, one)),
            smallest_detectable=smallest_detectable(tested, alpha=case.plan.alpha / chosen, margin=margin),
            because=f"{subject.name} hangs by one weight. Without {weight} it loses {tested} of its score, more than "
            f"{margin:.2g}. {_compared(one)} {_cost(one)} {_order(weight)}{_MEANS}",
            trials=(self._reading(case, subject).key, *one.keys),
        )
        return Draft(
            finding,
            test=tested,
            worth=case.worth(self.settings.worth),
            one_sided=True,
            otherwise=f"Of the {chosen} weights that the screens rank highest, {subject.name} misses {weight} most: "
            f"it loses {tested} of its score, not shown to be more than {margin:.2g}. {_compared(one)} {_cost(one)} "
            f"{_order(weight)}{_LIMITS}",
        )

    def _pair(self, case: Case, rival: SubjectRecord, measured: dict[str, _Measured | Unanswered]) -> Draft:
        plan, title = case.plan, f"{self.title}: difference"
        name = pair(plan.reference, rival)
        one, two = measured[plan.reference.name], measured[rival.name]
        for gap in (one, two):
            if isinstance(gap, Unanswered):
                return self.unanswered(name, gap, title=title)
        assert isinstance(one, _Measured) and isinstance(two, _Measured)
        margin = max(case.worth(self.settings.margin), one.floor, two.floor)
        # Either worst weight was chosen among several: any pair of candidates might have been the one compared.
        chosen = len(one.candidates) * len(two.candidates)
        difference, level = two.worst[1] - one.worst[1], 1.0 - plan.alpha / chosen
        gap = _worst_of(
            chosen,
            mean_effect(
                difference[None, :], level=level, margin=margin, name="loss_difference", unit=plan.task.measure
            ),
        )
        words = (
            f"Without its worst weight, {two.worst[0]}, {rival.name} loses {gap} more of its score than "
            f"{plan.reference.name} without {one.worst[0]}"
        )
        finding = Finding(
            code=self.code, title=title, status="found", subject=name, estimates=(gap,), because=f"{words}. {_MEANS}",
            brief=keeps_less(self.title, plan.reference, rival, gap),
            smallest_detectable=smallest_detectable(gap, alpha=plan.alpha / chosen, margin=margin),
            trials=(*one.keys, *two.keys),
        )  # fmt: skip
        return Draft(
            finding,
            test=gap,
            worth=case.worth(self.settings.worth),
            otherwise=f"{words}: not shown to be more than {margin:.2g} either way. {_LIMITS}",
        )

    def _loss(self, case: Case, weight: _Weight, loss: Values, *, margin: float = 0.0, of: int = 1) -> Estimate:
        task, level = case.plan.task, 1.0 - case.plan.alpha / of
        name = f"loss without {weight.address}"
        return mean_effect(
            loss[None, :], level=level, margin=margin, bounded=task.bounded, name=name, unit=task.measure
        )

    def _beside(self, case: Case, one: _Measured) -> list[Estimate]:
        """The other candidates, the worst random weight, and the worst candidate's own number."""
        worst, random = one.worst[0], one.random
        others = [(w, loss) for w, loss in one.candidates if w is not worst]
        losses = [self._loss(case, *other) for other in others]
        if random is not None:
            found = self._loss(case, *random)
            name = f"largest of {len(one.nulls)} random losses, {random[0].address}"
            losses.append(msgspec.structs.replace(found, name=name))
        value = Estimate(
            name=f"weight {worst.address}", value=worst.value, low=worst.value, high=worst.value, level=1.0, n=1,
            unit="weight", method="exact",
        )  # fmt: skip
        # They only stand beside the tested one: their p-values are nobody's question.
        return [*(msgspec.structs.replace(estimate, p=None) for estimate in losses), value]


def _worst_of(several: int, effect: Estimate) -> Estimate:
    """The effect with a p-value that holds for any of ``several`` that might have been the worst (Bonferroni)."""
    return msgspec.structs.replace(effect, p=None if effect.p is None else min(1.0, several * effect.p))


def _order(weight: _Weight) -> str:
    """Which index is the input, where the address itself does not say."""
    return "" if weight.place else f"{_PLACE} "


def _compared(one: _Measured) -> str:
    if one.random is None:
        return "There are no other weights to compare with."
    weight, loss = one.random
    return f"Of {len(one.nulls)} random weights of like size the worst, {weight}, costs {loss.mean():.3f}."


def _cost(one: _Measured) -> str:
    missed = "" if one.screened >= 1.0 else f" The screens could read {one.screened:.1%} of the weights."
    return (
        f"Located after {one.passes} passes (1 forward; 1 backward, counted as 2; {len(one.candidates)} "
        f"confirmations); the random weights took {len(one.nulls)} more.{missed}"
    )
