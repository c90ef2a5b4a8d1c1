"""The study ``seal-health``: do responses to a seal's challenges predict an audit's results on a net?"""

import math
from contextlib import suppress
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Final, cast, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.controls import Ruling, control
from wheeltap.core import seeds
from wheeltap.core.errors import DataError
from wheeltap.core.records import Control, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortSpec, MemberSpec, Metric, Rule
from wheeltap.stats import held_out, members
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.members import NumberScale, Single, over_nets
from wheeltap.studies.base import Study
from wheeltap.studies.measures import AuditMetric
from wheeltap.studies.rules import WORST
from wheeltap.studies.table import LEVEL, MemberTable, Numbers
from wheeltap.suites.seal.specs import SEAL_RESPONSES

NETS, FORGOT = "nets", "nets that forgot a digit"

DIGIT: Final = 3  # the one that nets forget

WORKS: Final = 0.5
"""R2 from which an audit counts as distilled: one halving of the squared error."""

RISE: Final = Metric(
    key="loss_at_4_bits", title="Loss at 4 bits", unit="log of its ratio to the clean loss", code="WT103",
    reads="One grid per channel; the audit `quantization`.",
)  # fmt: skip
BACK: Final = Metric(
    key="relearnt", title="Digit relearned after 16 steps", unit="accuracy", code="WT107",
    reads="Recovered after 16 steps on 4 images of the digit; the audit `relearning`.",
)  # fmt: skip
HALF: Final = Metric(
    key="half_dose", title="Half dose of relative noise", unit="dose", code="WT101", log=True, ends=(0.0, None)
)
"""Number that responses must predict: they are responses to that noise."""

COHORTS: Final = {RISE: NETS, BACK: FORGOT, HALF: NETS}
"""Nets that have each number."""

_PREDICTED: Final = "Halvings of the squared error by a ridge regression on all other nets: 1 is R2 = .5, 0 is nothing."


def by_responses(metric: Metric) -> str:
    """Key of the metric of how well a number is predicted."""
    return f"{metric.key}_by_responses"


VARIED: Final[dict[str, tuple[Scalar, ...]]] = {
    "hidden": ("16,16", "24,24", "32,32", "24,24,24", "48,48"),
    "noise": (0.0, 0.0, 0.1, 0.2, 0.4),
    "rho": (0.0, 0.0, 0.05, 0.1),
    "decay": (0.0, 0.0, 1e-5, 1e-4),
    "rate": (3e-3, 1e-2),
    "average": (0.0, 0.0, 0.98),
}
"""How nets differ in training: of each setting, one value is drawn for each net. So small that 4 bits cost some of
them something, and trained so long that most score alike."""

_LOST: Final = AuditMetric("lost_at_4_bits", "quantization", {"doses": [4.0], "tested": 4.0, "others": False})
_HALF: Final = AuditMetric(
    HALF.key, "relative-noise", {"block_map": False, "rungs": [-2, 0, 2, 4], "control_rungs": [0]}, estimate="half_dose"
)  # fmt: skip
_BACK: Final = AuditMetric(
    BACK.key, "relearning",
    {"group": DIGIT, "steps": [16], "benign_steps": [1], "noise": [0.2], "noise_draws": 2, "attacks": []},
    estimate="recovered after 16 steps",
)  # fmt: skip


def predicted(features: FloatArray, outcome: FloatArray) -> FloatArray:
    """How well features ``[member, feature]`` predict an outcome, ``[member]``; empty where nothing can."""
    try:
        return np.round(held_out.halvings(features, outcome), 9)  # the rest is rounding
    except DataError:  # few nets, or all alike: rules on these numbers say that no member has them
        return np.zeros(0)


class SealHealthSettings(Settings, frozen=True, kw_only=True):
    """How many nets.

    Attributes:
        seeds: Nets; of each, a copy is made to forget a digit.
        seed: Root of what nets are made from.
        epochs: Of training; of half of the nets half as many.
    """

    seeds: Annotated[int, msgspec.Meta(ge=held_out.FEWEST, le=1000)] = 96
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    epochs: Annotated[int, msgspec.Meta(ge=2, le=10_000)] = 80


@final
class SealHealth(Study):
    """Whether survival at 4 bits and relearning can be predicted from a few responses to challenges."""

    name = "seal-health"
    title = "Can an audit be distilled into responses to a seal's challenges?"
    code = "WT103"
    settings_type = SealHealthSettings
    small: ClassVar[dict[str, Scalar]] = {"seeds": 48}
    settings: SealHealthSettings
    version: ClassVar[int] = 3  # since 3 sealed inputs are drawn at random
    caveats = (
        "Small nets on handwritten digits that differ in training: nets of another kind may be predicted better or "
        "worse, and a regression must be fitted to audited nets of the same kind first.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return "digits"

    def cast(self) -> tuple[CohortSpec, ...]:
        """Nets trained in different ways; and each of them after it was made to forget a digit."""
        nets = tuple(self._net(index) for index in range(self.settings.seeds))
        forgot = tuple(
            MemberSpec(name=f"{net.name}, forgot", recipe="digits-forgot", settings={"digit": DIGIT}, seed=net.seed,
                       of=(net.name,)) for net in nets
        )  # fmt: skip
        return (
            CohortSpec(name=NETS, members=nets, about="Trained on handwritten digits, each in another way."),
            CohortSpec(name=FORGOT, members=forgot, about=f"The same after they forgot the digit {DIGIT}."),
        )

    def _net(self, index: int) -> MemberSpec:
        # Another version of the rules is never tried on nets seen before.
        seed = seeds.derive(self.settings.seed, self.name, self.version, index)
        rng = seeds.generator(seed, "varied")
        varied: dict[str, tuple[Scalar, ...]] = {**VARIED, "epochs": (self.settings.epochs // 2, self.settings.epochs)}
        settings = {key: values[int(rng.integers(len(values)))] for key, values in varied.items()}
        recipe = "digits-mislabeled" if rng.integers(6) == 0 else "digits"  # one of six, on wrong labels as well
        return MemberSpec(name=f"net {index + 1}", recipe=recipe, settings=settings, seed=seed)

    def metrics(self) -> tuple[Metric, ...]:
        """Outcomes, and how well each is predicted."""
        predictions = (
            Metric(key=by_responses(one), title=f"{one.title}, from seal responses: R2 in halvings of the error",
                   unit="halvings; 1 is R2 .5, 0 is R2 0", code=one.code, reads=_PREDICTED)
            for one in COHORTS
        )  # fmt: skip
        return (*COHORTS, *predictions)

    def rules(self) -> tuple[Rule, ...]:
        """Of each outcome, whether seal responses predict it."""
        return tuple(
            Rule(
                code=one.code, title=f"{one.title} is predicted by seal responses (R2 .5: 1 halving)",
                metric=by_responses(one), cohorts=(COHORTS[one],), statistic="mean", direction="more",
                margin=-math.log2(1.0 - WORKS), supports=f"{one.title}: seal responses predict it, R2 above {WORKS:g}.",
                refutes=f"{one.title}: seal responses do not predict it, R2 below {WORKS:g}.",
                otherwise=f"{one.title}: not decided whether seal responses predict it.",
            ) for one in (RISE, BACK)
        )  # fmt: skip

    def measures(self) -> tuple[AuditMetric, ...]:
        """Audits of all nets; each net has those of its cohort."""
        return (_BACK, _LOST, _HALF)

    def _of(self, member: SubjectRecord) -> tuple[AuditMetric, ...]:
        return (_BACK,) if member.name.endswith("forgot") else (_LOST, _HALF)

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """The reading, and the trials of the audits."""
        trials = [trial for measure in self._of(member) for trial in measure.ask(case)]
        return [case.plan.reading(member, SEAL_RESPONSES.name, {}), *trials]

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``: the outcomes of one net; how well they are predicted is known of all together."""
        self._features(case, member)  # a net without features is left out, and named
        values = dict[str, Single]()
        for measure in self._of(member):
            with suppress(NoAnswer):  # the other outcomes of this net count all the same
                values[measure.key] = Single(measure.numbers(case, member)[measure.key].value)
        if values.pop(_LOST.key, None) is not None:
            rounded, clean = (case.measured([one], "nll") for one in (*_LOST.ask(case), case.plan.clean(member)))
            if rounded is not None and clean is not None:
                values[RISE.key] = Single(float(_log(rounded.mean()) - _log(clean.mean())))
        return values

    def _features(self, case: Case, member: SubjectRecord) -> FloatArray:
        """Responses from which a net is predicted, ``[challenge]``; raises ``NoAnswer`` if there are none."""
        return _log(case.reading(case.plan.reading(member, SEAL_RESPONSES.name, {}))["responses"].mean(1))

    def table(self, case: Case) -> MemberTable:
        """See ``Study.table``: with what each net adds to how well an outcome is predicted."""
        plain = super().table(case)
        numbers = {name: dict(row) for name, row in plain.numbers.items()}
        for metric in COHORTS:
            names, features, outcome = self._columns(case, plain, metric)
            for name, value in zip(names, predicted(features, outcome), strict=False):
                numbers[name][by_responses(metric)] = Single(float(value))
        return replace(plain, numbers=numbers)

    def _columns(self, case: Case, table: MemberTable, metric: Metric) -> tuple[list[str], FloatArray, FloatArray]:
        """Nets that have a number, their features, and the number, ``[member]``."""
        names, values = table.having(COHORTS[metric], [metric.key]), table.values(COHORTS[metric], metric.key)
        records = {record.name: record for record in case.plan.subjects}
        features = np.array([self._features(case.on(records[name]), records[name]) for name in names])
        return names, features, _log(np.array(values)) if metric.log else np.array(values)

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        """See ``Study.controls``."""
        return [self._dealt(case, table), _planted(table)]

    def _dealt(self, case: Case, table: MemberTable) -> Control:
        """Outcomes that are dealt to other nets at random: nothing can predict them."""
        tests = list[members.MemberTest]()
        for metric in (RISE, BACK):
            _, features, outcome = self._columns(case, table, metric)
            rng = seeds.generator(case.plan.seed, self.name, "dealt", metric.key)
            for _ in range(20):
                if singles := [Single(float(one)) for one in predicted(features, rng.permutation(outcome))]:
                    tests.append(members.mean(singles, name=metric.key, scale=NumberScale("halvings", normal=True)))
        p_values = [p for test in tests if (p := test.above(0.0, "more")) is not None]
        smallest, bound = min(p_values, default=1.0), WORST / max(len(p_values), 1)
        return Control(
            name="outcomes dealt to other nets are not predicted", kind="null",
            status="skipped" if not p_values else "failed" if smallest < bound else "passed",
            estimates=tuple(test.estimate for test in tests[:1]),
            because=f"The smallest of {len(p_values)} p-values is {smallest:.2g} (fails below {bound:.2g}).",
        )  # fmt: skip


@control("seal responses predict the half dose of the same noise", "planted")
def _planted(table: MemberTable) -> Ruling:
    """Seal responses must predict how much of the same noise a net bears: else they see nothing at all."""
    values = table.values(COHORTS[HALF], by_responses(HALF))
    if len(values) < held_out.FEWEST:
        raise NoAnswer("skipped", "Too few nets have a half dose.")
    halved = over_nets(values, name="halvings", scale=NumberScale("halvings"), level=LEVEL)
    low, high = (math.nan if end is None else end for end in (halved.low, halved.high))
    because = f"Halvings of the error: {halved}. Passes above 0, fails below 1; between, so few nets do not show it."
    return "passed" if low > 0.0 else "failed" if high < 1.0 else "skipped", (halved,), because


def _log(values: NDArray[Any] | float) -> FloatArray:
    """Logarithms, of 0 that of the smallest number: features have long tails."""
    return cast("FloatArray", np.log(np.maximum(np.asarray(values, dtype=np.float64), math.exp(-30.0))))
