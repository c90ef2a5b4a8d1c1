"""The study ``twins``: nets with the same outputs, and other insides. What does noise in the weights tell apart?

A gauge twin computes what its net computes, with other weights. Noise that costs it another score reads how a net is
written, and not how it is organized. Such a gap counts where it is larger than that between nets of other seeds.

Source: Kumar et al. (2025, arXiv:2505.11581), for nets with one output and other insides; Kornblith et al. (2019,
arXiv:1905.00414), for linear CKA.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.controls import Ruling, control
from wheeltap.core import seeds
from wheeltap.core.records import Control, Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortRole, CohortSpec, MemberSpec, Metric, Rule
from wheeltap.stats.members import Single
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.rules import headline
from wheeltap.studies.table import MemberTable, Numbers
from wheeltap.suites.claims.specs import DIGITS, HIDDEN_VECTORS

NETS, TWINS, CANCELING, OTHERS = "nets", "twins", "canceling twins", "other seeds"
"""Names of cohorts; those of the last three stand beside the net of the same number."""

SCORE, OUTPUTS, ANSWERS, INSIDE = "score", "outputs", "answers", "inside"

SAME: Final = 1e-3
"""Largest difference of twins' outputs, as a share of the spread of outputs, that rounding may make."""

UNLIKE: Final = 0.3
"""Distance (1 - CKA) from which insides count as other ones."""

MATTERS: Final = 0.1
"""Smallest difference of interest between two gaps, in points of score."""

NOISES: Final[dict[str, tuple[str, str, tuple[float, ...]]]] = {
    "std": ("Std-normalized noise", "WT101", (0.25, 0.5)),
    "relative": ("Relative noise", "WT101", (0.5, 1.0)),
    "function": ("Function-space noise", "WT102", (0.25, 0.5)),
}
"""Disturbances by name: in words, the code of their findings, doses."""


def gap_of(noise: str) -> str:
    """Key of the gap between a member and its net under a disturbance."""
    return f"gap_{noise}"


class TwinSettings(Settings, frozen=True, kw_only=True):
    """How many nets, and what twins are.

    Attributes:
        seeds: Nets; of each, one twin of either kind, and one net of another seed beside it.
        seed: Root of what nets are made from.
        spread: Standard deviation of the logarithms of the factors by which units of twins are rescaled.
        draws: Of noise, at each dose.
        hidden: Units of each hidden layer.
        epochs: Of training.
    """

    seeds: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 24
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    spread: Annotated[float, msgspec.Meta(gt=0.0, le=4.0)] = 4.0
    draws: Annotated[int, msgspec.Meta(ge=2, le=1000)] = 16
    hidden: str = "128,128"
    epochs: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 40


@final
class Twins(Study):
    """Nets, gauge twins of each and nets of other seeds: outputs, insides, and what is left under noise."""

    name = "twins"
    title = "Do nets with the same outputs differ inside, and does noise in the weights tell them apart?"
    code = "WT101"
    settings_type = TwinSettings
    small: ClassVar[dict[str, Scalar]] = {"seeds": 12, "draws": 8}
    settings: TwinSettings
    caveats = (
        "Twins are constructed: how often training leads to such twins is not known from them.",
        "Small nets on handwritten digits. Insides are what hidden layers hand on, compared by linear CKA, which a "
        "rotation does not change and a rescaling of units does.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return "digits"

    # ---- who, numbers and rules -----------------------------------------------------------------------------------

    def cast(self) -> tuple[CohortSpec, ...]:
        """Twins first, then nets of other seeds, then the nets that they stand beside."""
        made: dict[str, tuple[CohortRole, str]] = {
            NETS: ("given", "Trained on handwritten digits."),
            TWINS: ("studied", "The same function, with rescaled units."),
            CANCELING: ("studied", "The same function, with added units that cancel each other."),
            OTHERS: ("compared", "Trained alike, from another seed."),
        }
        return tuple(
            CohortSpec(name=kind, role=role, about=about, members=tuple(
                self._asked(kind, at) for at in range(self.settings.seeds)
            ))
            for kind, (role, about) in made.items()
        )  # fmt: skip

    def _asked(self, kind: str, at: int) -> MemberSpec:
        how, name = self.settings, f"{kind} {at + 1}"
        seed = seeds.derive(how.seed, self.name, kind, at)
        if kind in (NETS, OTHERS):
            return MemberSpec(
                name=name, recipe="digits", settings={"hidden": how.hidden, "epochs": how.epochs}, seed=seed
            )
        twin: dict[str, Scalar] = {"gauges": "rescale", "spread": how.spread}
        given: dict[str, Scalar] = twin if kind == TWINS else {"gauges": "cancel"}
        return MemberSpec(name=name, recipe="recoded", settings=given, seed=seed, of=(f"{NETS} {at + 1}",))

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``; all but the score and what is left are of two nets."""
        share, beside = (0.0, 1.0), "From the net of the same number."
        return (
            Metric(key=SCORE, title="Score", unit="accuracy", code="WT001", ends=share),
            Metric(key=OUTPUTS, title="Difference of outputs", unit="share of their spread", code="WT001",
                   ends=(0.0, None), reads=f"{beside} The largest over examples and options."),
            Metric(key=ANSWERS, title="Other answers", unit="share of examples", code="WT001", ends=share,
                   reads=beside),
            Metric(key=INSIDE, title="Distance inside", unit="1 - CKA", code="WT206", ends=share,
                   reads=f"{beside} Of what hidden layers hand on: 1 less the linear CKA, where that is least."),
            *(Metric(key=key, title=f"{words}: score left", unit="accuracy", code=code, ends=share,
                     reads=f"Mean over draws and doses {doses[0]:g} and {doses[1]:g}.")
              for key, (words, code, doses) in NOISES.items()),
            *(Metric(key=gap_of(key), title=f"{words}: gap", unit="accuracy", code=code, ends=share,
                     reads=f"{beside} The difference of what is left of the score, without its sign.")
              for key, (words, code, _) in NOISES.items()),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """One on insides, one for each noise on twins, one on canceling twins."""
        asked = [(key, TWINS) for key in NOISES] + [("relative", CANCELING)]
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
                    supports=f"{words} costs {kind} another score, by over {100 * MATTERS:g} points more than it does "
                    "nets of other seeds.",
                    refutes=f"{words} does not tell {kind} apart by {100 * MATTERS:g} points more than nets of other "
                    "seeds.",
                )
                for key, kind in asked
                for words, code, _ in [NOISES[key]]
            ),
        )  # fmt: skip

    # ---- asking and judging ---------------------------------------------------------------------------------------

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """One reading, and noise of each kind."""
        noise = [trial for key in NOISES for row in self._noise(case, member, key) for trial in row]
        return [case.plan.reading(member, HIDDEN_VECTORS.name, {}), *noise]

    def _noise(self, case: Case, member: SubjectRecord, key: str) -> list[list[Trial]]:
        draws = range(self.settings.draws)
        return [[case.plan.trial(member, key, dose=dose, seed=seed) for seed in draws] for dose in NOISES[key][2]]

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        found = {SCORE: float(case.clean(member).mean()), **self._left(case, member)}
        kind, _, at = member.name.rpartition(" ")
        if kind != NETS:
            net = next((one for one in case.whole.subjects if one.name == f"{NETS} {at}"), None)
            if net is None or case.outcome(case.plan.clean(net)) is None:
                raise NoAnswer("error", f"The net that it stands beside was not made ({NETS} {at}).")
            found |= self._beside(case, net, member)
            found |= {gap_of(key): abs(found[key] - left) for key, left in self._left(case, net).items()}
        return {key: Single(round(value, DIGITS)) for key, value in found.items() if np.isfinite(value)}

    def _left(self, case: Case, member: SubjectRecord) -> dict[str, float]:
        """The score under each noise, mean over doses and draws."""
        return {key: float(case.table(self._noise(case, member, key)).mean()) for key in NOISES}

    def _beside(self, case: Case, *pair: SubjectRecord) -> dict[str, float]:
        scores = case.measured([case.plan.clean(one) for one in pair], "scores")
        assert scores is not None, "nets of one task have as many outputs"
        one, two = (case.reading(case.plan.reading(each, HIDDEN_VECTORS.name, {})) for each in pair)
        return {
            OUTPUTS: float((np.abs(scores[0] - scores[1]).max(0) / scores[0].std(0)).max()),
            ANSWERS: float((scores[0].argmax(1) != scores[1].argmax(1)).mean()),
            INSIDE: 1.0 - min(alike(one[layer], two[layer]) for layer in one),
        }

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        """See ``Study.controls``."""
        return [same_outputs(table)]

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        return StudyAnswer(
            headline=headline(self.rules(), findings), about="ReLU nets on handwritten digits.", caveats=self.caveats
        )


def alike(one: NDArray[np.float64], two: NDArray[np.float64]) -> float:
    """Linear CKA of two sets of vectors, ``[row, unit]``: 1 where one is a rotation of the other, 0 at the least."""
    x, y = (part - part.mean(0) for part in (one, two))
    return float(((x.T @ y) ** 2).sum() / np.sqrt(((x.T @ x) ** 2).sum() * ((y.T @ y) ** 2).sum()))


@control("twins compute what their nets compute", "gate")
def same_outputs(table: MemberTable) -> Ruling:
    """Are the outputs of twins those of their nets, up to rounding?"""
    values = [value for kind in (TWINS, CANCELING) for value in table.values(kind, OUTPUTS)]
    if not values:
        raise NoAnswer("skipped", "No twin has outputs.")
    worst = max(values)
    found = Estimate.exact("largest_difference", worst, "share of their spread", n=len(values))
    because = f"The outputs of {len(values)} twins differ by at most {worst:.1e} of their spread ({SAME:g} is allowed)."
    return "passed" if worst <= SAME else "failed", (found,), because
