"""WTX01: what a few turned signs cost."""

from wheeltap.audits.base import Audit, Case, Hypothesis, NoAnswer, Verdict
from wheeltap.audits.claims import LOSS
from wheeltap.core.records import SubjectRecord, Trial
from wheeltap.core.section import Section, Table, Text
from wheeltap.core.settings import Settings
from wheeltap.stats.sample import Sample


class SaltSettings(Settings, frozen=True, kw_only=True):
    """Thresholds.

    Attributes:
        dose: Share of weights whose sign is turned.
        margin: Smallest loss of score of interest; the plan's, where it is not given.
    """

    dose: float = 0.2
    margin: float | None = None


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
        """One finding per subject, and a section with what each draw cost."""
        drafts = [self._single(case, subject) for subject in case.plan.subjects]
        return Verdict(drafts, sections=[self._draws(case, subject) for subject in case.plan.subjects])

    def _draws(self, case: Case, subject: SubjectRecord) -> Section:
        outcomes = [case.outcome(trial) for trial in self._trials(case, subject)]
        done = [one.values[case.plan.task.measure] for one in outcomes if one is not None and one.status == "done"]
        rows = tuple((f"draw {at}", f"{scores.mean():.3f}") for at, scores in enumerate(done))
        says = Text(text=f"Signs were turned in {len(rows)} draws.")
        table = Table(title="Score in each draw", heads=("draw", "score"), rows=rows)
        return Section(title=f"Grains of salt in {subject.name}", subject=subject.name, blocks=(says, table))

    def _single(self, case: Case, subject: SubjectRecord) -> Hypothesis:
        trials = self._trials(case, subject)
        try:
            clean = case.clean(subject)
            lost = clean - case.table([trials])[0]
        except NoAnswer as gap:
            return self.unanswered(subject.name, gap)
        margin, bounded = case.margin(self.settings.margin), case.plan.task.bounded
        ends = (float(clean.mean()) - 1.0, float(clean.mean())) if bounded else None
        sample = Sample(lost, 1.0 if bounded else None, ends, groups=case.groups, skewed=True)
        effect = sample.effect(margin=margin, name="loss", unit=case.plan.task.measure)
        words = f"{subject.name} loses {effect} of its score when {self.settings.dose:.0%} of the signs turn"
        claim = Hypothesis(
            test=effect, margin=margin, evidence=sample, one_sided=True, words=LOSS,
            found=f"{words}: more than {margin:.2g}.", otherwise=f"{words}: not shown to be more than {margin:.2g}.",
        )  # fmt: skip
        return self.draft(case, subject.name, claim, trials)
