"""The study ``seal-health``: do answers to a seal's challenges predict what an audit would find of a net?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, Final, cast, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.controls import Ruling, control
from wheeltap.core import seeds
from wheeltap.core.errors import DataError
from wheeltap.core.records import Control, Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortSpec, MemberSpec, Metric, Rule
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.output_scores import OUTPUT_SCORES
from wheeltap.stats import held_out, members
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.members import NumberScale, Single, over_nets
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.measures import AuditMetric
from wheeltap.studies.rules import WORST, headline, listed, subject_of
from wheeltap.studies.table import LEVEL, MemberTable, Numbers
from wheeltap.suites.seal.specs import SEAL_RESPONSES

NETS, FORGOT = "nets", "nets that forgot a digit"

SCORE, LOST, RISE, BACK, HALF = "score", "lost_at_4_bits", "loss_at_4_bits", "relearnt", "half_dose"

RESPONSES, PLAIN, OUTPUTS, BOTH = "responses", "plain", "outputs", "both"

SOURCES: Final = {
    RESPONSES: "seal responses",
    PLAIN: "the same at examples",
    OUTPUTS: "outputs alone",
    BOTH: "outputs and seal responses",
}
"""What is predicted from. Outputs are those of a plain pass over all examples and over the sealed inputs."""

WORKS: Final = 0.5
"""R2 from which an audit counts as distilled: one halving of the squared error."""

WORTH: Final = 0.02
"""Smallest R2 that counts as added."""

Sources = Mapping[str, FloatArray]
"""Features of a member, by source, ``[feature]``."""


@final
@dataclass(frozen=True)
class AuditNumber:
    """A number of each net that is to be predicted.

    Attributes:
        key: Of the metric.
        cohort: Whose nets have it.
        title: Of the metric.
        what: Of it, within a sentence.
        code: Of the findings.
    """

    key: str
    cohort: str
    title: str
    what: str
    code: str

    def by(self, source: str) -> str:
        """Key of how well a source predicts it."""
        return f"{self.key}_by_{source}"

    @property
    def added(self) -> str:
        """Key of what seal responses add to outputs."""
        return f"{self.key}_added"


OUTCOMES: Final = (
    AuditNumber(LOST, NETS, "Score lost at 4 bits", "the score lost at 4 bits", "WT103"),
    AuditNumber(RISE, NETS, "Loss at 4 bits", "how much the loss rises at 4 bits", "WT103"),
    AuditNumber(BACK, FORGOT, "Digit relearned after 16 steps", "what comes back of a forgotten digit", "WT107"),
)

PLANTED: Final = AuditNumber(HALF, NETS, "Half dose of relative noise", "the half dose of relative noise", "WT101")
"""What seal responses must predict: they are answers to that noise."""


_UNIT: Final = "halvings; 1 is R2 .5, 0 is R2 0"


def _predicted(one: AuditNumber) -> list[Metric]:
    reads = (
        "How often the squared error is halved against the mean of the other nets: 1 is R2 = .5, 0 is nothing. Each "
        "net is predicted by a ridge regression on all others; its number is what it adds to the mean (jackknife)."
    )
    found = [
        Metric(key=one.by(source), title=f"{one.title}, from {words}: R2 in halvings of the error", unit=_UNIT,
               code=one.code, reads=reads)
        for source, words in SOURCES.items()
    ]  # fmt: skip
    added = Metric(
        key=one.added, title=f"{one.title}: R2 added to outputs", unit="R2", code=one.code,
        reads="R2 from outputs and seal responses less R2 from outputs alone.",
    )  # fmt: skip
    return [*found, added]


def _rules(one: AuditNumber) -> list[Rule]:
    return [
        Rule(
            code=one.code, title=f"{one.title} is predicted by seal responses (R2 .5: 1 halving)",
            metric=one.by(RESPONSES), cohorts=(one.cohort,), statistic="mean", direction="more",
            margin=-float(np.log2(1.0 - WORKS)),
            supports=f"Seal responses predict {one.what}: R2 above {WORKS:g}.",
            refutes=f"Seal responses do not predict {one.what}: R2 below {WORKS:g}.",
            otherwise=f"Not decided whether seal responses predict {one.what}.",
        ),
        Rule(
            code=one.code, title=f"{one.title}: seal responses add to outputs", metric=one.added,
            cohorts=(one.cohort,), statistic="mean", direction="more", margin=WORTH,
            supports=f"Seal responses add to outputs in predicting {one.what}: R2 by more than {WORTH:g}.",
            refutes=f"Seal responses add nothing to outputs in predicting {one.what}: R2 by less than {WORTH:g}.",
            otherwise="No evidence of added value.",
        ),
    ]  # fmt: skip


# ---- numbers --------------------------------------------------------------------------------------------------------


def predicted(one: AuditNumber, sources: Sequence[Sources], outcome: FloatArray) -> dict[str, FloatArray]:
    """How well each source predicts an outcome, ``[member]`` by metric; nothing where it cannot be tried."""
    columns = {name: np.stack([of[name] for of in sources]) for name in SOURCES if all(name in of for of in sources)}
    try:
        found = {one.by(name): held_out.halvings(features, outcome) for name, features in columns.items()}
        found[one.added] = held_out.gain(columns[BOTH], columns[OUTPUTS], outcome)
    except DataError:  # few nets, or all alike: rules on these numbers say that no member has them
        return {}
    return {key: np.round(numbers, _DIGITS) for key, numbers in found.items()}


_DIGITS: Final = 9
"""Decimals: what is below comes from rounding alone."""


def r2(table: MemberTable, one: AuditNumber, source: str) -> Estimate | None:
    """The share of the variance over nets that a source explains, its interval that of halvings."""
    values = table.values(one.cohort, one.by(source))
    if len(values) < held_out.FEWEST:
        return None
    halved = over_nets(values, name="R2", scale=NumberScale("halvings"), level=LEVEL)
    low, high = (None if end is None else held_out.r2_of(end) for end in (halved.low, halved.high))
    return Estimate(
        name="R2", value=held_out.r2_of(halved.value or 0.0), low=low, high=high, level=LEVEL, n=halved.n, unit="R2",
        method=f"leave-one-out ridge regression; {halved.method} on halvings of the squared error",
    )  # fmt: skip


# ---- words ----------------------------------------------------------------------------------------------------------


def said_of(table: MemberTable, one: AuditNumber) -> str:
    """R2 from each source, in a sentence; empty where nothing was predicted."""
    found = {words: r2(table, one, source) for source, words in SOURCES.items()}
    listed = [f"{words} {estimate}" for words, estimate in found.items() if estimate is not None]
    return f"{one.title}, held-out R2: {'; '.join(listed)}." if listed else ""


def answer_line(planned: Sequence[Rule], findings: Sequence[Finding]) -> str:
    """Plainly whether the distillation works; then for what, for what not, and of what that cannot be said."""
    status = {(one.title, one.subject): one.status for one in findings}
    by = {rule.metric: status.get((rule.title, subject_of(rule))) for rule in planned}
    said = {one.what: by.get(one.by(RESPONSES)) for one in OUTCOMES}
    found, excluded = ([what for what, status in said.items() if status == kind] for kind in ("found", "excluded"))
    open_ = [what for what in said if what not in (*found, *excluded)]
    if not (excluded or open_):
        return "An audit can be distilled into seal responses here: they predict all that was asked."
    if not (found or open_):
        return "An audit cannot be distilled into seal responses here: they predict nothing that was asked."
    parts = (
        (found, f"R2 above {WORKS:g} is shown for"), (excluded, "it is excluded for" if found else
         f"R2 above {WORKS:g} is excluded for"), (open_, "it is undecided for"),
    )  # fmt: skip
    listing = "; ".join(f"{words} {listed(of)}" for of, words in parts if of)
    if found:
        return f"An audit is distilled into seal responses in part: {listing}."
    if excluded:
        return f"The distillation is not shown to work: {listing}."
    return (
        f"Whether an audit can be distilled into seal responses cannot be decided here: of {len(open_)} outcomes, none "
        "was decided."
    )


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

MISLABELED: Final = 6
"""Of so many nets, one is trained on wrong labels as well."""

_LOST: Final = AuditMetric(LOST, "quantization", {"doses": [4.0], "tested": 4.0, "others": False})
_HALF: Final = AuditMetric(
    HALF, "relative-noise", {"block_map": False, "rungs": [-2, 0, 2, 4], "control_rungs": [0]}, estimate="half_dose"
)  # fmt: skip
_DEALT: Final = 20
"""Times that outcomes are dealt to other nets."""


class SealHealthSettings(Settings, frozen=True, kw_only=True):
    """How many nets, and what is forgotten.

    Attributes:
        seeds: Nets; of each, a copy is made to forget a digit.
        seed: Root of what nets are made from.
        epochs: Of training; of half of the nets half as many.
        digit: What copies forget.
        inputs: Sensitive inputs of each net.
        draws: Of each challenge.
    """

    seeds: Annotated[int, msgspec.Meta(ge=held_out.FEWEST, le=1000)] = 96
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    epochs: Annotated[int, msgspec.Meta(ge=2, le=10_000)] = 80
    digit: Annotated[int, msgspec.Meta(ge=1, le=9)] = 3
    inputs: Annotated[int, msgspec.Meta(ge=2, le=256)] = 16
    draws: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4


@final
class SealHealth(Study):
    """Whether survival at 4 bits and relearning can be read off a few answers to challenges, or off outputs alone."""

    name = "seal-health"
    title = "Can an audit be distilled into answers to a seal's challenges?"
    code = "WT103"
    settings_type = SealHealthSettings
    small: ClassVar[dict[str, Scalar]] = {"seeds": 48}
    settings: SealHealthSettings
    version: ClassVar[int] = 2  # since 2 answers saturate: in 1 one net's were 1e12 times their spread
    caveats = (
        "Small nets on handwritten digits that differ in training: nets of another kind may be predicted better or "
        "worse, and a regression must be fitted to audited nets of the same kind first.",
        "The score lost at 4 bits is counted on 599 images, of which few change: what is luck in it cannot be "
        "predicted. The rise of the loss has less of that.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return "digits"

    # ---- who, numbers and rules -----------------------------------------------------------------------------------

    def cast(self) -> tuple[CohortSpec, ...]:
        """Nets trained in different ways; and each of them after it was made to forget a digit."""
        nets = tuple(self._net(at) for at in range(self.settings.seeds))
        forgot = tuple(
            MemberSpec(name=f"{net.name}, forgot", recipe="digits-forgot", settings={"digit": self.settings.digit},
                  seed=net.seed, of=(net.name,))
            for net in nets
        )  # fmt: skip
        return (
            CohortSpec(name=NETS, members=nets, about="Trained on handwritten digits, each in another way."),
            CohortSpec(name=FORGOT, members=forgot, about=f"The same after they were made to forget the digit "
                 f"{self.settings.digit}."),
        )  # fmt: skip

    def _net(self, at: int) -> MemberSpec:
        # Another version of the rules is never tried on nets seen before.
        seed = seeds.derive(self.settings.seed, self.name, self.version, at)
        rng = seeds.generator(seed, "varied")
        varied: dict[str, tuple[Scalar, ...]] = {**VARIED, "epochs": (self.settings.epochs // 2, self.settings.epochs)}
        drawn = {key: some[int(rng.integers(len(some)))] for key, some in varied.items()}
        recipe = "digits-mislabeled" if rng.integers(MISLABELED) == 0 else "digits"
        return MemberSpec(name=f"net {at + 1}", recipe=recipe, settings=drawn, seed=seed)

    def metrics(self) -> tuple[Metric, ...]:
        """Outcomes, and how well each is predicted."""
        singles = (
            Metric(key=SCORE, title="Score", unit="accuracy", code="WT001", ends=(0.0, 1.0)),
            Metric(key=LOST, title=OUTCOMES[0].title, unit="accuracy", code="WT103",
                   reads="One grid per channel; the audit `quantization`."),
            Metric(key=RISE, title=OUTCOMES[1].title, unit="log of its ratio to the clean loss", code="WT103",
                   reads="Of the same trial: finer than a score that few examples change."),
            Metric(key=BACK, title=OUTCOMES[2].title, unit="accuracy", code="WT107",
                   reads="Recovered after 16 steps on 4 images of the digit; the audit `relearning`. The gap to any "
                   "one other net is this less a constant."),
            Metric(key=HALF, title=PLANTED.title, unit="dose", code="WT101", log=True, ends=(0.0, None)),
        )  # fmt: skip
        return (*singles, *(metric for one in (*OUTCOMES, PLANTED) for metric in _predicted(one)))

    def rules(self) -> tuple[Rule, ...]:
        """Of each outcome whether seal responses predict it, and whether they add to outputs."""
        return tuple(rule for one in OUTCOMES for rule in _rules(one))

    # ---- asking ---------------------------------------------------------------------------------------------------

    def measures(self) -> tuple[AuditMetric, ...]:
        """Of all nets; each has those of its cohort."""
        return (_LOST, _HALF, self._back)

    @property
    def _back(self) -> AuditMetric:
        """What relearning brings back: of all that the audit asks, no more than that takes."""
        return AuditMetric(
            BACK, "relearning",
            {"group": self.settings.digit, "steps": [16], "benign_steps": [1], "noise": [0.2], "noise_draws": 2,
             "attacks": []},
            estimate="recovered after 16 steps",
        )  # fmt: skip

    def _of(self, member: SubjectRecord) -> tuple[AuditMetric, ...]:
        return (self._back,) if member.name.endswith("forgot") else (_LOST, _HALF)

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """Two readings, and the trials of the audits."""
        asked = [trial for measure in self._of(member) for trial in measure.ask(case)]
        return [*self.readings(case.plan, member), *asked]

    def readings(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """Answers to challenges; outputs."""
        how: dict[str, Scalar] = {"inputs": self.settings.inputs, "draws": self.settings.draws}
        return [plan.reading(subject, SEAL_RESPONSES.name, how), plan.reading(subject, OUTPUT_SCORES.name, {})]

    def most(self, plan: Plan) -> int:
        """See ``Study.most``."""
        found = 0
        for member in plan.subjects:
            alone = Case(plan, lambda _: None).on(member).plan
            found += len(alone.baselines()) + len(self.readings(alone, member))
            found += sum(measure.made().most(alone) for measure in self._of(member))
        return found

    # ---- judging --------------------------------------------------------------------------------------------------

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``: the outcomes of one net; how well they are predicted is known of all together."""
        found = {SCORE: Single(float(case.clean(member).mean()))}
        self.sources(case, member)  # a net without features is left out, and named
        for measure in self._of(member):
            try:
                found[measure.key] = Single(measure.numbers(case, member)[measure.key].value)
            except NoAnswer:
                continue  # the other outcomes of this net count all the same
        if LOST in found:
            [trial] = _LOST.ask(case)
            rounded, clean = (case.measured([one], "nll") for one in (trial, case.plan.clean(member)))
            if rounded is not None and clean is not None:
                found[RISE] = Single(float(_log(rounded.mean()) - _log(clean.mean())))
        return found

    def sources(self, case: Case, member: SubjectRecord) -> Sources:
        """What a net is predicted from, by source, ``[feature]``.

        Raises:
            NoAnswer: If a reading gave nothing.
        """
        seal, outputs = (case.reading(trial) for trial in self.readings(case.plan, member))
        responses = _log(seal["sealed"].mean(1))
        alone = np.array([
            float(case.clean(member).mean()), outputs["margin"].mean(), _log(outputs["margin"].std()),
            _log(outputs["entropy"].mean()), _log(outputs["loss"].mean()),
            _log(seal["lead"].mean()), _log(seal["entropy"].mean()), _log(seal["scale"]),
        ])  # fmt: skip
        both = np.concatenate([alone, responses])
        plain = {PLAIN: _log(seal["plain"].mean(1))} if "plain" in seal else {}
        return {RESPONSES: responses, OUTPUTS: alone, BOTH: both, **plain}

    def table(self, case: Case) -> MemberTable:
        """See ``Study.table``: with what each net adds to how well an outcome is predicted."""
        plain = super().table(case)
        numbers = {name: dict(row) for name, row in plain.numbers.items()}
        for one in (*OUTCOMES, PLANTED):
            names, outcome = self._outcome(plain, one)
            for key, values in predicted(one, self._sources(case, names), outcome).items():
                for name, value in zip(names, values, strict=True):
                    numbers[name][key] = Single(float(value))
        return replace(plain, numbers=numbers)

    def _outcome(self, table: MemberTable, one: AuditNumber) -> tuple[list[str], FloatArray]:
        """Nets that have an outcome, and theirs, ``[member]``."""
        values = np.array(table.values(one.cohort, one.key))
        return table.having(one.cohort, [one.key]), _log(values) if table.metric(one.key).log else values

    def _sources(self, case: Case, names: Sequence[str]) -> list[Sources]:
        records = {record.name: record for record in case.plan.subjects}
        return [self.sources(case.on(records[name]), records[name]) for name in names]

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        """See ``Study.controls``."""
        return [self._dealt(case, table), _planted(table)]

    def _dealt(self, case: Case, table: MemberTable) -> Control:
        """Outcomes that are dealt to other nets at random: nothing can predict them."""
        name, tests = "outcomes dealt to other nets are not predicted", list[members.MemberTest]()
        for one in OUTCOMES:
            names, outcome = self._outcome(table, one)
            features = [of[RESPONSES] for of in self._sources(case, names)]
            rng = seeds.generator(case.plan.seed, self.name, "dealt", one.key)
            for _ in range(_DEALT):
                try:
                    halved = held_out.halvings(np.array(features), rng.permutation(outcome))
                except DataError:
                    break
                singles = [Single(float(value)) for value in halved]
                tests.append(members.mean(singles, name=one.key, scale=NumberScale("halvings", bounded=True)))
        above = [p for test in tests if (p := test.above(0.0, "more")) is not None]
        status = "skipped" if not above else "failed" if min(above) * len(above) < WORST else "passed"
        least = f"the smallest p-value is {min(above):.2g}, of {len(above)}" if above else "there was none to deal"
        return Control(
            name=name, kind="null", status=status, estimates=tuple(test.estimate for test in tests[:1]),
            because=f"Seal responses must predict nothing of them: {least} (fails below {WORST:g} / their number).",
        )  # fmt: skip

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        notes = tuple(note for one in (*OUTCOMES, PLANTED) if (note := said_of(table, one)))
        return StudyAnswer(
            headline=f"{answer_line(self.rules(), findings)} {headline(self.rules(), findings)}",
            about="Nets trained on handwritten digits.", notes=(*notes, *self._agreement(case, table)),
            caveats=self.caveats,
        )  # fmt: skip

    def _agreement(self, case: Case, table: MemberTable) -> list[str]:
        """How far two halves of the images agree on the score lost at 4 bits: what is luck cannot be predicted.

        Source: Spearman (1910) and Brown (1910), for the reliability of both halves together.
        """
        names = set(table.having(NETS, [LOST]))
        alone = [(case.on(record), record) for record in case.plan.subjects if record.name in names]
        lost = np.array([one.clean(record) - one.values(_LOST.ask(one)[0]) for one, record in alone])
        if len(lost) < held_out.FEWEST or min(lost[:, at::2].mean(1).std() for at in (0, 1)) == 0.0:
            return []
        r = float(np.corrcoef(lost[:, ::2].mean(1), lost[:, 1::2].mean(1))[0, 1])
        whole = max(2.0 * r / (1.0 + r), 0.0) if r > -1.0 else 0.0
        return [
            f"Score lost at 4 bits: two halves of the images agree with a correlation of {r:.2f} over nets, so that "
            f"about {whole:.2f} of its variance is not luck with the images."
        ]


@control("seal responses predict the half dose of the same noise", "planted")
def _planted(table: MemberTable) -> Ruling:
    """Seal responses must predict how much of the same noise a net bears: else they see nothing at all."""
    found = r2(table, PLANTED, RESPONSES)
    if found is None or found.low is None or found.high is None:
        raise NoAnswer("skipped", "Too few nets have a half dose.")
    because = f"Held-out R2 {found}: passes above 0, fails below {WORKS:g}; between, so few nets do not show it."
    return "passed" if found.low > 0.0 else "failed" if found.high < WORKS else "skipped", (found,), because


def _log(values: NDArray[Any] | float) -> FloatArray:
    """Logarithms, of 0 that of the smallest number: features have long tails."""
    return cast("FloatArray", np.log(np.maximum(np.asarray(values, dtype=np.float64), math.exp(_LEAST))))


_LEAST: Final = -30.0
"""Smallest logarithm."""
