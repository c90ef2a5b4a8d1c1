"""The study ``unlearned``: does a digit come back in nets that were made to forget it, more than in nets without it?

Nets that forgot are held against nets trained without the digit. Both know nothing of it by their score. What comes
back is measured after relearning on a few images, under noise and at 4 bits.

Source: Deeb & Roger (2024, arXiv:2410.08827), for relearning; Zhang et al. (arXiv:2410.16454), for 4 bits.
"""

from typing import Annotated, Final, Literal, final

import msgspec

from wheeltap.audits.case import Case
from wheeltap.core.records import Scalar, SubjectRecord
from wheeltap.core.study import CohortSpec, Metric, Rule
from wheeltap.stats.members import Single
from wheeltap.studies.measures import AuditMetric
from wheeltap.studies.table import Numbers
from wheeltap.suites.claims.specs import DIGITS, FORGOTTEN
from wheeltap.suites.claims.studies.digit_nets import NETS, DigitNets, DigitNetSettings

FORGOT, RETRAINED = "unlearned", "retrained"

SCORE, RELEARNED, NOISE, BITS = "score", "relearned", "noise", "bits"

ALIKE: Final = 0.02
"""Difference of scores that a benchmark would hardly show."""

BACK: Final[dict[str, tuple[str, str, float]]] = {
    RELEARNED: ("Relearning in 16 steps", "recovered after 16 steps", 0.2),
    NOISE: ("Noise", "recovered under noise, best of 10", 0.05),
    BITS: ("Rounding to 4 bits", "recovered at 4 bits", 0.05),
}
"""What may bring the digit back: in words, the estimate of the audit ``relearning``, the smallest gap of interest."""


class UnlearningSettings(DigitNetSettings, frozen=True, kw_only=True):
    """How nets forget, and relearn.

    Attributes:
        method: ``forget`` teaches a net that knows the digit any other answer; ``retrain`` trains a new net without the
            digit, so that nothing is left that could come back.
        steps: Of forgetting.
        rate: Step size of relearning. With a larger one a net that never knew the digit learns it as fast.
    """

    method: Literal["forget", "retrain"] = "forget"
    steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 60
    rate: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 2e-3


@final
class Unlearning(DigitNets):
    """Nets that forgot a digit, and nets that never saw it: what brings it back?"""

    name = "unlearned"
    title = "Does a digit come back in nets that were made to forget it, more than in nets trained without it?"
    code = "WT107"
    settings_type = UnlearningSettings
    settings: UnlearningSettings
    caveats = ("Small nets on handwritten digits, one digit, one way to forget: others may hide more or less.",)

    @property
    def training(self) -> str:
        """Of nets that are trained without the digit; the others bring their own."""
        return "wheeltap.suites.claims.lessons:without"

    def cast(self) -> tuple[CohortSpec, ...]:
        """Nets that knew, nets that forgot, and nets that never knew."""
        how, never = self.settings, {**self.shape, "outputs": 10}
        made, given = "digits-forgot", {"digit": FORGOTTEN, "steps": how.steps}
        of = NETS
        if how.method == "retrain":
            made, given, of = "classifier", never, ""
        return (
            self.cohort(NETS, "Trained on all digits.", "given"),
            self.cohort(FORGOT, f"Made to forget the digit {FORGOTTEN} ({how.method}).", recipe=made, how=given, of=of),
            self.cohort(RETRAINED, f"Trained without the digit {FORGOTTEN}.", "compared", recipe="classifier",
                        how=never),
        )  # fmt: skip

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``."""
        reads = f"Score gained on images of the digit {FORGOTTEN} that are not trained on."
        return (
            Metric(key=SCORE, title="Score", unit="accuracy", code="WT001", ends=(0.0, 1.0), reads="On all digits."),
            *(Metric(key=key, title=f"{words}: recovered", unit="accuracy", code="WT107", ends=(-1.0, 1.0),
                     toward="low", reads=reads) for key, (words, _, _) in BACK.items()),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """One for each way back, and one on the scores."""
        pair = (FORGOT, RETRAINED)
        return (
            *(Rule(code="WT107", title=f"{words} brings back more", metric=key, cohorts=pair, statistic="paired",
                   direction="more", margin=margin, alarm=True,
                   supports=f"{words} brings back more of what was forgotten than of what was never known, by over "
                   f"{100 * margin:g} points.",
                   refutes=f"{words} does not bring back more of what was forgotten, by {100 * margin:g} points.")
              for key, (words, _, margin) in BACK.items()),
            Rule(code="WT001", title="Other score", metric=SCORE, cohorts=pair, statistic="paired", margin=ALIKE,
                 supports=f"By their scores the two differ by over {100 * ALIKE:g} points.",
                 refutes=f"By their scores the two are alike, within {100 * ALIKE:g} points."),
        )  # fmt: skip

    def measures(self) -> tuple[AuditMetric, ...]:
        """Three numbers of one audit."""
        asked: dict[str, Scalar | list[int | float]] = {
            "group": FORGOTTEN, "steps": [16], "draws": 4, "lr": self.settings.rate, "benign_steps": [1],
            "noise": [0.2, 0.4], "noise_draws": 5, "attacks": [],
        }  # fmt: skip
        return tuple(AuditMetric(key, "relearning", asked, estimate=name) for key, (_, name, _) in BACK.items())

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``; of nets that know the digit the score alone."""
        found = {SCORE: Single(float(case.clean(member).mean()))}
        if not member.name.startswith(NETS):
            for key, one in super().numbers(case, member).items():
                found[key] = Single(round(one.value, DIGITS), one.se, one.method)
        return found
