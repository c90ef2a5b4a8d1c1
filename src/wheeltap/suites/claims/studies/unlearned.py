"""The study ``unlearned``: does a digit come back in nets that were made to forget it, more than in nets without it?

Nets that forgot are held against nets trained without the digit. Both know nothing of it by their score. What comes
back is measured after relearning on a few images, under noise and at 4 bits.

Source: Deeb & Roger (2024, arXiv:2410.08827), for relearning; Zhang et al. (arXiv:2410.16454), for 4 bits.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, Literal, final

import msgspec

from wheeltap.audits.case import Case
from wheeltap.core import seeds
from wheeltap.core.records import Finding, Scalar, SubjectRecord
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortSpec, MemberSpec, Metric, Rule
from wheeltap.stats.members import Single
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.measures import AuditMetric
from wheeltap.studies.rules import headline
from wheeltap.studies.table import Numbers
from wheeltap.suites.claims.specs import DIGITS, FORGOTTEN

NETS, FORGOT, RETRAINED = "nets", "unlearned", "retrained"
"""Names of cohorts."""

SCORE, RELEARNED, NOISE, BITS = "score", "relearned", "noise", "bits"

STEPS: Final = 16
"""Of relearning, on 4 images."""

_NOISE_DRAWS: Final = 10

ALIKE: Final = 0.02
"""Difference of scores that a benchmark would hardly show."""

BACK: Final[dict[str, tuple[str, str, float]]] = {
    RELEARNED: (f"Relearning in {STEPS} steps", f"recovered after {STEPS} steps", 0.2),
    NOISE: ("Noise", f"recovered under noise, best of {2 * _NOISE_DRAWS}", 0.05),
    BITS: ("Rounding to 4 bits", "recovered at 4 bits", 0.05),
}
"""What may bring the digit back: in words, the estimate of the audit ``relearning``, the smallest gap of interest."""


class UnlearnedSettings(Settings, frozen=True, kw_only=True):
    """How many nets, and how they forget.

    Attributes:
        seeds: Nets; of each, one that forgot, and beside it one that was trained without the digit.
        seed: Root of what nets are made from.
        method: How nets forget: ``forget`` teaches a net that knows the digit any other answer; ``retrain`` trains a
            new net without the digit, so that nothing is left that could come back.
        steps: Of forgetting.
        hidden: Units of each hidden layer.
        epochs: Of training.
    """

    seeds: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 24
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    method: Literal["forget", "retrain"] = "forget"
    steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 60
    hidden: str = "128,128"
    epochs: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 40


@final
class Unlearned(Study):
    """Nets that forgot a digit, and nets that never saw it: what brings it back?"""

    name = "unlearned"
    title = "Does a digit come back in nets that were made to forget it, more than in nets trained without it?"
    code = "WT107"
    settings_type = UnlearnedSettings
    small: ClassVar[dict[str, Scalar]] = {"seeds": 12}
    settings: UnlearnedSettings
    caveats = (
        "Small nets on handwritten digits, one digit, one way to forget: others may hide more or less.",
        "With larger steps a net that never knew the digit learns it as fast.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return "digits"

    @property
    def training(self) -> str:
        """Of nets that are trained without the digit; the others bring their own."""
        return "wheeltap.suites.claims.examples:without"

    def cast(self) -> tuple[CohortSpec, ...]:
        """Nets that forgot, nets that never knew, and those that knew."""
        how, places = self.settings, range(self.settings.seeds)
        shape: dict[str, Scalar] = {"hidden": how.hidden, "epochs": how.epochs}

        def seed(kind: str, at: int) -> int:
            return seeds.derive(how.seed, self.name, kind, at)

        def never(kind: str) -> tuple[MemberSpec, ...]:
            return tuple(
                MemberSpec(
                    name=f"{kind} {at + 1}", recipe="classifier", settings={**shape, "outputs": 10}, seed=seed(kind, at)
                )
                for at in places
            )

        nets = tuple(
            MemberSpec(name=f"{NETS} {at + 1}", recipe="digits", settings=shape, seed=seed(NETS, at)) for at in places
        )
        forgot = tuple(
            MemberSpec(
                name=f"{FORGOT} {at + 1}", recipe="digits-forgot", settings={"digit": FORGOTTEN, "steps": how.steps},
                seed=seed(FORGOT, at), of=(net.name,),
            )
            for at, net in enumerate(nets)
        )  # fmt: skip
        forgot = never(FORGOT) if how.method == "retrain" else forgot
        return (
            CohortSpec(name=NETS, members=nets, role="given", about="Trained on all digits."),
            CohortSpec(name=FORGOT, members=forgot, about=f"Made to forget the digit {FORGOTTEN} ({how.method})."),
            CohortSpec(name=RETRAINED, members=never(RETRAINED), role="compared",
                       about=f"Trained without the digit {FORGOTTEN}."),
        )  # fmt: skip

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``."""
        return (
            Metric(key=SCORE, title="Score", unit="accuracy", code="WT001", ends=(0.0, 1.0),
                   reads="On all digits, the forgotten one among them."),
            *(Metric(key=key, title=f"{words}: recovered", unit="accuracy", code="WT107", ends=(-1.0, 1.0),
                     toward="low", reads=f"Score gained on images of the digit {FORGOTTEN} that are not trained on.")
              for key, (words, _, _) in BACK.items()),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """One on the scores, and one for each way back."""
        pair = (FORGOT, RETRAINED)
        return (
            *(Rule(code="WT107", title=f"{words} brings back more", metric=key, cohorts=pair, statistic="paired",
                   direction="more", margin=margin, alarm=True,
                   supports=f"{words} brings back more of the digit where it was forgotten than where it never was, by "
                   f"over {100 * margin:g} points.",
                   refutes=f"{words} does not bring back more of the digit where it was forgotten, by "
                   f"{100 * margin:g} points or more.")
              for key, (words, _, margin) in BACK.items()),
            Rule(code="WT001", title="Other score", metric=SCORE, cohorts=pair, statistic="paired", margin=ALIKE,
                 supports=f"By their scores the two differ by over {100 * ALIKE:g} points.",
                 refutes=f"By their scores the two are alike, within {100 * ALIKE:g} points."),
        )  # fmt: skip

    def measures(self) -> tuple[AuditMetric, ...]:
        """One audit, three of its numbers."""
        asked: dict[str, Scalar | list[int | float]] = {
            "group": FORGOTTEN, "steps": [STEPS], "benign_steps": [1], "noise": [0.2, 0.4],
            "noise_draws": _NOISE_DRAWS, "attacks": [],
        }  # fmt: skip
        return tuple(AuditMetric(key, "relearning", asked, estimate=name) for key, (_, name, _) in BACK.items())

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``; of nets that know the digit the score alone."""
        found = {SCORE: Single(float(case.clean(member).mean()))}
        if not member.name.startswith(NETS):
            for key, one in super().numbers(case, member).items():
                found[key] = Single(round(one.value, DIGITS), one.se, one.method)
        return found

    def said(self, case: Case, table: object, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        return StudyAnswer(
            headline=headline(self.rules(), findings), about="ReLU nets on handwritten digits.", caveats=self.caveats
        )
