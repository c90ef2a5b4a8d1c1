"""WTX01: what a few turned signs cost."""

from wheeltap.audits.base import Audit, Case, Draft, Unanswered, Verdict
from wheeltap.core.records import Finding, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.stats.effect import mean_effect, smallest_detectable


class SaltSettings(Settings, frozen=True, kw_only=True):
    """Thresholds.

    Attributes:
        dose: Share of weights whose sign is turned.
        margin: Loss of score that does not matter.
        min_effect: Smallest loss that a ``excluded`` must have been able to see.
    """

    dose: float = 0.2
    margin: float = 0.02
    min_effect: float = 0.1


class SaltAudit(Audit):
    """Score lost when a share of all signs is turned."""

    name = "salt"
    code = "WTX01"
    title = "Turned signs"
    settings_type = SaltSettings

    def _trials(self, case: Case, subject: SubjectRecord) -> list[Trial]:
        draws = range(case.plan.effort.draws)
        return [case.plan.trial(subject, "salt", dose=self.settings.dose, seed=seed) for seed in draws]

    def ask(self, case: Case) -> list[Trial]:
        """Every draw on every subject."""
        return [trial for subject in case.plan.subjects for trial in self._trials(case, subject)]

    def judge(self, case: Case) -> Verdict:
        """One finding per subject."""
        return Verdict(drafts=[self._single(case, subject) for subject in case.plan.subjects])

    def _single(self, case: Case, subject: SubjectRecord) -> Draft:
        trials = self._trials(case, subject)
        try:
            lost = case.clean(subject) - case.table([trials])[0]
        except Unanswered as gap:
            return Draft(
                Finding(code=self.code, title=self.title, status=gap.status, subject=subject.name, because=gap.because)
            )
        effect = mean_effect(lost, margin=self.settings.margin, bounded=False, name="loss", unit=case.plan.task.measure)
        finding = Finding(
            code=self.code,
            title=self.title,
            status="found",
            subject=subject.name,
            estimates=(effect,),
            smallest_detectable=smallest_detectable(effect, alpha=case.plan.alpha, margin=self.settings.margin),
            because=f"{subject.name} loses {effect} of its score when {self.settings.dose:.0%} of the signs turn.",
            trials=tuple(trial.key for trial in trials),
        )
        return Draft(finding, test=effect, min_effect=self.settings.min_effect, one_sided=True, otherwise="It keeps its score.")
