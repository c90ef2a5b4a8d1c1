"""WT103 and WT104: what rounding to fewer bits and pruning cost."""

from abc import abstractmethod
from typing import ClassVar, final

from wheeltap.audits.base import Audit, AuditSettings, Case, Draft, Unanswered, Values, Verdict, pair
from wheeltap.plans import Plan
from wheeltap.records import Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.stats.effect import mean_effect, smallest_detectable


class ModifySettings(AuditSettings, frozen=True, kw_only=True):
    """Doses and thresholds.

    Attributes:
        doses: Doses measured, mildest first.
        tested: The dose the verdict is about.
        margin: Loss of score that does not matter; the test is of a larger one.
        worth: Smallest loss that a ``not_found`` must have been able to see.
    """

    doses: tuple[float, ...]
    tested: float
    margin: float = 0.02
    worth: float = 0.10


class QuantizationSettings(ModifySettings, frozen=True, kw_only=True):
    """Bits per weight."""

    doses: tuple[float, ...] = (8, 6, 4, 3, 2)
    tested: float = 4


class PruningSettings(ModifySettings, frozen=True, kw_only=True):
    """Share of weights removed from each layer."""

    doses: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    tested: float = 0.3


class ModifyAudit(Audit):
    """Loss of score at each dose of a deterministic change, judged at one dose."""

    perturbation: ClassVar[str]
    variants: ClassVar[tuple[tuple[str, dict[str, Scalar]], ...]]

    def ask(self, case: Case) -> list[Trial]:
        """Every dose of every variant on every subject."""
        if not case.known(case.plan.baselines()):
            return []
        return [t for subject in case.plan.subjects for t in self._trials(case, subject).values()]

    def fixed_doses(self) -> tuple[tuple[str, float], ...]:
        """The doses listed in its settings, and the tested one."""
        return tuple((self.perturbation, dose) for dose in self._doses())

    def most(self, plan: Plan) -> int:
        """All doses and variants of every subject."""
        return len(plan.subjects) * len(self._doses()) * len(self.variants)

    def _doses(self) -> tuple[float, ...]:
        listed = self.settings.doses
        return listed if self.settings.tested in listed else (*listed, self.settings.tested)

    def _trials(self, case: Case, subject: SubjectRecord) -> dict[tuple[str, float], Trial]:
        return {
            (label, dose): case.plan.trial(subject, self.perturbation, settings=settings, dose=dose)
            for label, settings in self.variants
            for dose in self._doses()
        }

    def judge(self, case: Case) -> Verdict:
        """One finding per subject about its own loss, one per pair about whose loss is larger."""
        verdict = Verdict()
        for subject in case.plan.subjects:
            verdict.drafts.append(self._single(case, subject))
        for rival in case.rivals:
            verdict.drafts.append(self._pair(case, rival))
        return verdict

    def _lost(self, case: Case, subject: SubjectRecord, trial: Trial) -> Values:
        sign = 1.0 if case.plan.probe.higher_is_better else -1.0
        return (sign * (case.clean(subject) - case.values(trial)))[None, :]

    def _single(self, case: Case, subject: SubjectRecord) -> Draft:
        trials = self._trials(case, subject)
        try:
            losses = {
                key: self._estimate(case, self._lost(case, subject, trial), self._label(*key))
                for key, trial in trials.items()
            }
        except Unanswered as gap:
            return self.unanswered(subject.name, gap)
        tested = losses[(self.variants[0][0], self.settings.tested)]
        finding = Finding(
            code=self.code,
            title=self.title,
            status="found",
            subject=subject.name,
            estimates=(tested, *(e for e in losses.values() if e is not tested)),
            smallest_detectable=smallest_detectable(
                tested, alpha=case.plan.alpha, margin=case.worth(self.settings.margin)
            ),
            because=f"{subject.name} loses {tested} of its score at {tested.name}: "
            f"more than {case.worth(self.settings.margin):.2g}.",
            trials=tuple(trial.key for trial in trials.values()),
        )
        return Draft(
            finding,
            test=tested,
            worth=case.worth(self.settings.worth),
            one_sided=True,
            otherwise=f"{subject.name} loses {tested} of its score at {tested.name}: "
            f"not shown to be more than {case.worth(self.settings.margin):.2g}.",
        )

    def _pair(self, case: Case, rival: SubjectRecord) -> Draft:
        plan, key = case.plan, (self.variants[0][0], self.settings.tested)
        one, two = (self._trials(case, subject)[key] for subject in (plan.reference, rival))
        name, title = pair(plan.reference, rival), f"{self.title}: difference"
        try:
            difference = self._lost(case, rival, two) - self._lost(case, plan.reference, one)
        except Unanswered as gap:
            return self.unanswered(name, gap, title=title)
        margin = case.worth(self.settings.margin)
        gap = mean_effect(difference, margin=margin, name="loss_difference", unit=plan.probe.measure)
        words = f"At {self._label(*key)}, {rival.name} loses {gap} more of its score than {plan.reference.name}."
        finding = Finding(
            code=self.code, title=title, status="found", subject=name, estimates=(gap,), because=words,
            smallest_detectable=smallest_detectable(gap, alpha=plan.alpha, margin=margin), trials=(one.key, two.key),
        )  # fmt: skip
        return Draft(finding, test=gap, worth=case.worth(self.settings.worth), otherwise=words)

    def _estimate(self, case: Case, lost: Values, label: str) -> Estimate:
        probe = case.plan.probe
        margin = case.worth(self.settings.margin)
        return mean_effect(lost, margin=margin, bounded=probe.bounded, name=label, unit=probe.measure)

    @abstractmethod
    def _label(self, variant: str, dose: float) -> str:
        """What was done, in words that name the estimate."""


@final
class QuantizationAudit(ModifyAudit):
    """Score lost when every weight is rounded to a grid of fewer bits."""

    name = "quantization"
    code = "WT103"
    title = "Rounding to fewer bits"
    settings_type = QuantizationSettings
    perturbation = "quantize"
    variants = (("per channel", {"scale": "channel"}), ("per tensor", {"scale": "tensor"}))

    def _label(self, variant: str, dose: float) -> str:
        return f"{dose:g} bits {variant}"


@final
class PruningAudit(ModifyAudit):
    """Score lost when the smallest weights of every layer are removed."""

    name = "pruning"
    code = "WT104"
    title = "Pruning the smallest weights"
    settings_type = PruningSettings
    perturbation = "prune"
    variants = (("", {}),)

    def _label(self, variant: str, dose: float) -> str:
        return f"{dose:.0%} pruned"
