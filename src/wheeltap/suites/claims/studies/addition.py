"""The study ``addition``: nets that add by two published algorithms. Do disturbed weights tell which?

The *clock* multiplies by attention, the *pizza* gives both numbers the same weight. Both are right nearly everywhere.

Source: Zhong, Liu, Tegmark & Andreas (2023, arXiv:2306.17844).
"""

from typing import Annotated, ClassVar, Final, final

import msgspec

from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.controls import Ruling, control
from wheeltap.core.records import Control, Estimate, Scalar, SubjectRecord
from wheeltap.core.study import CohortSpec, Metric, Rule
from wheeltap.stats.members import Single
from wheeltap.studies.measures import AuditMetric
from wheeltap.studies.table import MemberTable, Numbers
from wheeltap.suites.claims.studies.digit_nets import DigitNets, DigitNetSettings, Draws, Noises

CLOCK, PIZZA, SCORE, SYMMETRY = "clock", "pizza", "score", "symmetry"

SMALLEST: Final = 0.05
"""Difference of means that tells the kinds apart."""

ALIKE: Final = 0.01
"""Difference of mean scores up to which the kinds add equally well."""


class AdditionSettings(DigitNetSettings, frozen=True, kw_only=True):
    """How much noise.

    Attributes:
        draws: Of noise, at each dose.
    """

    epochs: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 600
    draws: Draws = 8


@final
class Addition(DigitNets):
    """Clocks against pizzas: the symmetry of their responses, and what noise leaves of their scores."""

    name = "addition"
    title = "Do disturbed weights tell two published algorithms apart that add equally well?"
    code = "WT204"
    settings_type = AdditionSettings
    settings: AdditionSettings
    measured_on = "wheeltap.suites.claims.adders:sums"
    noises: ClassVar[Noises] = {
        "relative": ("Relative noise", "WT101", (0.5, 1.0)),
        "function": ("Function-space noise", "WT102", (0.05, 0.1)),
    }
    caveats = (
        "Trained here, small, modulo 31: of the published nets, modulo 59, there is one of each kind, so that nothing "
        "is known of others (python -m benchmarks.clock_pizza). Four fifths of the sums were trained on.",
        "A kind is what it is built as: a clock may add in another way, a pizza cannot attend.",
    )

    def cast(self) -> tuple[CohortSpec, ...]:
        """Both kinds."""
        found = list[CohortSpec]()
        for kind, about in ((CLOCK, "Attention weighs the numbers."), (PIZZA, "Both numbers count as much.")):
            how: dict[str, Scalar] = {"epochs": self.settings.epochs, "attends": kind == CLOCK}
            made = self.cohort(kind, about, recipe="adding-net", how=how)
            members = tuple(msgspec.structs.replace(one, on_task=True) for one in made.members)  # most of the sums
            found.append(msgspec.structs.replace(made, members=members))
        return tuple(found)

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``."""
        share, title = (0.0, 1.0), "Symmetry of response"
        return (
            Metric(key=SCORE, title="Score", unit="accuracy", code="WT001", ends=share, reads="On all sums."),
            Metric(key=SYMMETRY, title=title, unit="share", code="WT204", ends=share, reads="To swapped numbers."),
            *self.left_metrics(),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """Whether each number, in either direction, tells the kinds apart."""
        return tuple(
            Rule(
                code=one.code, title=f"{one.title} tells the kinds apart", metric=one.key, cohorts=(CLOCK, PIZZA),
                statistic="difference", direction="either", margin=SMALLEST,
                supports=f"{one.title} tells clocks from pizzas: means differ by over {SMALLEST:g}.",
                refutes=f"{one.title} does not tell clocks from pizzas, by {SMALLEST:g}.",
            )
            for one in self.metrics()[1:]
        )  # fmt: skip

    def measures(self) -> tuple[AuditMetric, ...]:
        """See ``Study.measures``."""
        asked: dict[str, Scalar | list[int | float]] = {"weights": 24, "directions": 0, "copies": 0}
        return (AuditMetric(SYMMETRY, "symmetry", asked, estimate="single_weights"),)

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        found = {SCORE: float(case.clean(member).mean()), **self.left(case, member)}
        return {**super().numbers(case, member), **{key: Single(value) for key, value in found.items()}}

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        """See ``Study.controls``."""
        return [equal_scores(table)]


@control("both kinds add equally well", "gate")
def equal_scores(table: MemberTable) -> Ruling:
    """Are the mean scores of both kinds alike?"""
    clock, pizza = (table.values(kind, SCORE) for kind in (CLOCK, PIZZA))
    if not clock or not pizza:
        raise NoAnswer("skipped", "A kind has no scores.")
    gap = abs(sum(clock) / len(clock) - sum(pizza) / len(pizza))
    found = Estimate.exact("difference", gap, "accuracy", n=len(clock) + len(pizza))
    because = f"Mean scores differ by {gap:.4f} ({ALIKE:g} may be)."
    return "passed" if gap <= ALIKE else "failed", (found,), because
