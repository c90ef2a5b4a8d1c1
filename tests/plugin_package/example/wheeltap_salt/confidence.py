"""WTX02: is a network surer of its answers than it is right? A reading, and the audit that judges it."""

from wheeltap.audits.base import Case, Hypothesis
from wheeltap.audits.case import Arrays, Values
from wheeltap.audits.reading_audit import ReadingAudit
from wheeltap.core.records import SubjectRecord
from wheeltap.core.settings import Settings
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.readings import Reading, Readings
from wheeltap.plans.readings import Array, ReadingSpec
from wheeltap.stats.sample import Sample

CONFIDENCE = ReadingSpec(
    name="confidence",
    title="Probability of the answer given",
    arrays={"confidence": Array("example", "largest probability over the options")},
)


class Confidence(Reading):
    """The softmax probability of each example's own answer."""

    spec = CONFIDENCE

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        return Readings({"confidence": to_array(task.scores(subject.model).softmax(-1).amax(-1))}, forwards=1.0)


class ConfidenceSettings(Settings, frozen=True, kw_only=True):
    """Thresholds, as shares."""

    margin: float = 0.02
    min_effect: float = 0.1


class ConfidenceAudit(ReadingAudit[Values]):
    """Confidence above the share of right answers, example by example."""

    name, code, title = "confidence", "WTX02", "Overconfidence"
    reads = "The probability that a network gives its answers is compared with how often they are right."
    settings_type, reading = ConfidenceSettings, CONFIDENCE

    def parsed(self, case: Case, subject: SubjectRecord, read: Arrays) -> Values:
        return read["confidence"] - case.clean(subject)

    def singles(self, case: Case, subject: SubjectRecord, read: Values) -> list[Hypothesis]:
        return [self.over(read, f"{subject.name} is surer than it is right")]

    def compared(self, case: Case, rival: SubjectRecord, one: Values, two: Values) -> Hypothesis:
        return self.over(two - one, f"{rival.name} is more overconfident than {case.plan.reference.name}", either=True)

    def over(self, gap: Values, words: str, *, either: bool = False) -> Hypothesis:
        how = self.settings
        sample = Sample(gap[None, :])
        test = sample.effect(margin=how.margin, name="confidence above accuracy", unit="share")
        found, otherwise = f"{words}, by {test}.", f"Not shown by more than {how.margin:g}: {test}."
        sides = {"one_sided": not either, "margin": how.margin, "min_effect": how.min_effect}
        return Hypothesis(test=test, evidence=sample, found=found, otherwise=otherwise, **sides)
