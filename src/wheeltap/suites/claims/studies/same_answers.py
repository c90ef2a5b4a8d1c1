"""The studies ``twins`` and ``addition``: nets with the same answers, and other insides. What tells them apart?

A gauge twin computes what its net computes, with other weights. Noise that costs it another score reads how a net is
written, and not how it is organized. Such a gap counts where it is larger than that between nets of other seeds. Of
nets that add, the *clock* multiplies by attention, the *pizza* gives both numbers the same weight: both are right
nearly everywhere.

Source: Kumar et al. (2025, arXiv:2505.11581), for nets with one output and other insides; Kornblith et al. (2019,
arXiv:1905.00414), for linear CKA; Zhong, Liu, Tegmark & Andreas (2023, arXiv:2306.17844), for nets that add.
"""

from typing import Annotated, ClassVar, Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.controls import Ruling, control
from wheeltap.core.records import Estimate, Scalar, SubjectRecord, Trial
from wheeltap.core.study import CohortSpec, Metric, Rule
from wheeltap.stats.members import Single
from wheeltap.studies.measures import AuditMetric
from wheeltap.studies.table import MemberTable, Numbers
from wheeltap.suites.claims.specs import DIGITS, HIDDEN_VECTORS
from wheeltap.suites.claims.studies.digit_nets import NETS, DigitNets, DigitNetSettings, Draws, Noises, scores

TWINS, CANCELING, OTHERS = "twins", "canceling twins", "other seeds"
"""Cohorts; each member stands beside the net of the same number."""

OUTPUTS, INSIDE = "outputs", "inside"
SAME: Final = 1e-3  # largest difference of twins' outputs, as a share of the spread of outputs, that rounding may make
UNLIKE: Final = 0.3  # distance (1 - CKA) from which insides count as other ones
MATTERS: Final = 0.1  # smallest difference of interest between two gaps, in points of score

gap_of = "gap_{}".format
"""Key of the gap between a member and its net under a disturbance."""

CLOCK, PIZZA, SCORE, SYMMETRY = "clock", "pizza", "score", "symmetry"
SMALLEST: Final = 0.05  # difference of means that tells the kinds apart
ALIKE: Final = 0.01  # difference of mean scores up to which the kinds add equally well


class TwinSettings(DigitNetSettings, frozen=True, kw_only=True):
    """Which twins, and how much noise.

    Attributes:
        spread: Standard deviation of the logarithms of the factors by which units of twins are rescaled.
        draws: Of noise, at each dose.
    """

    spread: Annotated[float, msgspec.Meta(gt=0.0, le=4.0)] = 4.0
    draws: Draws = 16


@control("twins compute what their nets compute", "gate")
def same_outputs(table: MemberTable) -> Ruling:
    """Are the outputs of twins those of their nets, up to rounding?"""
    values = [value for kind in (TWINS, CANCELING) for value in table.values(kind, OUTPUTS)]
    if not values:
        raise NoAnswer("skipped", "No twin has outputs.")
    found = Estimate.exact("largest_difference", max(values), "share of their spread", n=len(values))
    because = (
        f"The outputs of {len(values)} twins differ by at most {max(values):.1e} of their spread ({SAME:g} may be)."
    )
    return "passed" if max(values) <= SAME else "failed", (found,), because


@final
class Twins(DigitNets):
    """Nets, gauge twins of each and nets of other seeds: outputs, insides, and what is left under noise."""

    name = "twins"
    title = "Do nets with the same outputs differ inside, and does noise in the weights tell them apart?"
    code = "WT101"
    settings_type = TwinSettings
    checks = (same_outputs,)
    small: ClassVar[dict[str, Scalar]] = {"seeds": 12, "draws": 8}
    settings: TwinSettings
    noises: ClassVar[Noises] = {
        "std": ("Std-normalized noise", "WT101", (0.25, 0.5)),
        "relative": ("Relative noise", "WT101", (0.5, 1.0)),
        "function": ("Function-space noise", "WT102", (0.25, 0.5)),
    }
    caveats = (
        "Twins are constructed: how often training leads to such twins is not known from them.",
        "Small nets on handwritten digits. Insides are what hidden layers hand on, compared by linear CKA, which a "
        "rotation does not change and a rescaling of units does.",
    )

    def cast(self) -> tuple[CohortSpec, ...]:
        """Nets, twins of either kind, and nets of other seeds."""
        rescaled: dict[str, Scalar] = {"gauges": "rescale", "spread": self.settings.spread}
        return (
            self.cohort(NETS, "Trained on handwritten digits.", "given"),
            self.cohort(TWINS, "The same function, with rescaled units.", recipe="recoded", how=rescaled, of=NETS),
            self.cohort(CANCELING, "The same function, with added units that cancel each other.", recipe="recoded",
                        how={"gauges": "cancel"}, of=NETS),
            self.cohort(OTHERS, "Trained alike, from another seed.", "compared"),
        )  # fmt: skip

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``; all but what is left are of two nets."""
        share, beside = (0.0, 1.0), "From the net of the same number."
        return (
            Metric(key=OUTPUTS, title="Difference of outputs", unit="share of their spread", code="WT001",
                   ends=(0.0, None), reads=f"{beside} The largest over examples and options."),
            Metric(key=INSIDE, title="Distance inside", unit="1 - CKA", code="WT206", ends=share,
                   reads=f"{beside} Of what hidden layers hand on: 1 less the linear CKA, where that is least."),
            *self.left_metrics(),
            *(Metric(key=gap_of(key), title=f"{words}: gap", unit="accuracy", code=code, ends=share,
                     reads=f"{beside} Of what is left of the score, without a sign.")
              for key, (words, code, _) in self.noises.items()),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """One on insides, one for each noise on twins, one on canceling twins."""
        points = f"by over {100 * MATTERS:g} points more than nets of other seeds."
        return (
            Rule(
                code="WT206", title="Twins differ inside", metric=INSIDE, cohorts=(TWINS,), statistic="mean",
                direction="more", margin=UNLIKE,
                supports=f"Nets with the same outputs differ inside: CKA below {1 - UNLIKE:g}.",
                refutes=f"Nets with the same outputs are alike inside: CKA above {1 - UNLIKE:g}.",
            ),
            *(
                Rule(
                    code=code, title=f"{words} tells {kind} apart", metric=gap_of(key), cohorts=(kind, OTHERS),
                    statistic="paired", direction="more", margin=MATTERS,
                    supports=f"{words} tells {kind} apart, {points}",
                    refutes=f"{words} does not tell {kind} apart, {points}",
                )
                for key, kind in (*((key, TWINS) for key in self.noises), ("relative", CANCELING))
                for words, code, _ in [self.noises[key]]
            ),
        )  # fmt: skip

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """What layers read, and noise of each kind."""
        return [case.plan.reading(member, HIDDEN_VECTORS.name, {}), *super().ask_of(case, member)]

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        found, (kind, _, at) = self.left(case, member), member.name.rpartition(" ")
        if kind != NETS:
            net = next((one for one in case.whole.subjects if one.name == f"{NETS} {at}"), None)
            if net is None or case.outcome(case.plan.clean(net)) is None:
                raise NoAnswer("error", f"The net that it stands beside was not made ({NETS} {at}).")
            own, other = scores(case, net), scores(case, member)
            one, two = (case.reading(case.plan.reading(each, HIDDEN_VECTORS.name, {})) for each in (net, member))
            found |= {gap_of(key): abs(found[key] - other) for key, other in self.left(case, net).items()}
            found[OUTPUTS] = float((np.abs(own - other).max(0) / own.std(0)).max())
            found[INSIDE] = 1.0 - min(alike(one[layer], two[layer]) for layer in one)
        return {key: Single(round(value, DIGITS)) for key, value in found.items() if np.isfinite(value)}


def alike(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    """Linear CKA of two sets of vectors, ``[row, unit]``: 1 where one is a rotation of the other, 0 at the least."""
    x, y = (part - part.mean(0) for part in (one, two))
    return float(((x.T @ y) ** 2).sum() / np.sqrt(((x.T @ x) ** 2).sum() * ((y.T @ y) ** 2).sum()))


class AdditionSettings(DigitNetSettings, frozen=True, kw_only=True):
    """How much noise.

    Attributes:
        draws: Of noise, at each dose.
    """

    epochs: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 600
    draws: Draws = 8


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


@final
class Addition(DigitNets):
    """Clocks against pizzas: the symmetry of their responses, and what noise leaves of their scores."""

    name = "addition"
    title = "Do disturbed weights tell two published algorithms apart that add equally well?"
    code = "WT204"
    settings_type = AdditionSettings
    checks = (equal_scores,)
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
