"""The study ``example-detection``: do disturbed weights tell labeled examples apart better than what costs less?"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.case import Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.core import seeds
from wheeltap.core.records import Control, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortSpec, MemberSpec, Metric, Rule
from wheeltap.plans.plan import Plan
from wheeltap.plans.readings.input_shift import INPUT_SHIFT
from wheeltap.plans.readings.output_scores import OUTPUT_SCORES
from wheeltap.stats import members
from wheeltap.stats.added_value import added, folds
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.delong1988 import placements
from wheeltap.stats.members import NumberScale, Single
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.measures import AuditMetric
from wheeltap.studies.rules import WORST, headline
from wheeltap.studies.table import MemberTable, Numbers
from wheeltap.suites.training.studies.detection import SHIFT_PASSES

NETS: Final = "nets"  # the one cohort
MISLABELED: Final = "wheeltap.sources.digits:mislabeled"  # what nets memorize where no others are named
WORTH: Final = 0.02  # smallest gain in AUC that counts
SCORE, LOSS, MARGIN, ENTROPY, INPUTS = "score", "loss", "margin", "entropy", "inputs"
RELATIVE, FUNCTION = "relative", "function"
OUTPUTS, CHEAP, ALL = "outputs", "outputs_inputs", "everything"

WEIGHTS: Final = {RELATIVE: "Relative noise", FUNCTION: "Function-space noise"}
"""What is added, and what it is called; the audits are named after them."""

_CODES: Final = {RELATIVE: "WT101", FUNCTION: "WT102"}
_AUC: Final = "AUC"

_BY_HEART: Final[dict[str, Scalar]] = {"hidden": "192,192", "epochs": 150, "batch": 100, "rate": 6e-3}
"""Of the recipe: chosen so that nets answer every example as labeled, and for nothing else."""

_EVEN: Final = "labeled examples have more of it more often than not above .5; at .5 it says nothing."


gain_of, half_of = "gain_{}".format, "half_{}".format
"""Keys: of what a kind of noise adds, and of its dose at which half of the score is lost."""


class ExampleDetectionSettings(Settings, frozen=True, kw_only=True):
    """Which nets, which examples, which label.

    Attributes:
        models: Specs of models of your own, with commas between; nets that memorized wrong labels, where empty.
        data: The examples, with a factor of 0 and 1: a data file, or ``module:callable``. Where empty, those that the
            first model brings; or the training digits, some labels of which are wrong.
        label: Name of that factor.
        image: ``8x8`` where each example is an image of that size, given as one row of numbers.
        seeds: Nets that are made, where no models are named.
        seed: Root of what they are made from.
    """

    models: str = ""
    data: str = ""
    label: Annotated[str, msgspec.Meta(min_length=1)] = "wrong"
    image: str = ""
    seeds: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0


@final
@dataclass(frozen=True, eq=False)
class ExampleScores:
    """What a net says of each example; more of it where the net is less sure, or loses more."""

    labels: FloatArray  # [example] of 0 and 1
    # Of a plain pass, [example], by metric. Entropy and loss are logarithms: only so does a linear combination
    # make full use of them.
    outputs: Mapping[str, FloatArray]
    inputs: FloatArray  # score lost under disturbed inputs, mean over draws and doses, [example, disturbance]
    weights: Mapping[str, FloatArray]  # score lost under noise in the weights, likewise, [example], by metric

    def combined(self, labels: FloatArray) -> dict[str, Single]:
        """AUC of outputs, of outputs and inputs, of weights as well; and what each kind of noise adds to the first two.

        Args:
            labels: ``[example]``, those asked about or others.
        """
        fold, outputs = folds(labels), np.column_stack(list(self.outputs.values()))
        cheap = np.column_stack([outputs, self.inputs])
        gains = {gain_of(key): added(cheap, lost[:, None], labels, groups=fold) for key, lost in self.weights.items()}
        return {
            OUTPUTS: Single(added(outputs, self.inputs, labels, groups=fold).without),
            CHEAP: Single(next(iter(gains.values())).without),
            ALL: Single(added(cheap, np.column_stack(list(self.weights.values())), labels, groups=fold).with_score),
            **{key: Single(one.gain, one.se, _CROSS_FITTED) for key, one in gains.items()},
        }


_CROSS_FITTED: Final = "cross-fitted ridge logistic regression, 10 folds; DeLong over examples"


@final
class ExampleDetection(Study):
    """Whether noise in the weights adds to outputs and input noise in telling labeled examples from the others."""

    name = "example-detection"
    title = "Does noise in the weights tell which examples are labeled, beyond outputs and input noise?"
    code = "WT101"
    settings_type = ExampleDetectionSettings
    small: ClassVar[dict[str, Scalar]] = {"seeds": 6}
    settings: ExampleDetectionSettings
    caveats = (
        "About these examples and this label: with another label, weights may add something or nothing.",
        "Scores are combined by logistic regression. What they say together in other ways is not seen.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return self.settings.data or ("" if self.settings.models else MISLABELED)

    def cast(self) -> tuple[CohortSpec, ...]:
        """The user's models; or nets that answer all examples as labeled, however wrong."""
        how = self.settings
        specs = dict.fromkeys(spec.strip() for spec in how.models.split(",") if spec.strip())
        if specs:
            given = tuple(MemberSpec(name=spec, source=spec) for spec in specs)
            return (CohortSpec(name=NETS, members=given, role="given"),)
        made = tuple(
            MemberSpec(
                name=f"net {at + 1}", recipe="classifier", settings=_BY_HEART,
                seed=seeds.derive(how.seed, self.name, at), on_task=True,
            )
            for at in range(how.seeds)
        )  # fmt: skip
        return (CohortSpec(name=NETS, members=made, about="Trained on the examples until they answer all as labeled."),)

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``."""
        singles = (
            (MARGIN, "Margin alone", "WT001", "How little the right option leads"),
            (ENTROPY, "Entropy alone", "WT001", "How spread out the answer is"),
            (LOSS, "Loss alone", "WT001", "The loss of the right option"),
            (INPUTS, "Input noise alone", "WT701", "Score lost under disturbed inputs, mean over kinds and doses"),
            *(
                (key, f"{noise} alone", _CODES[key], f"Score lost under {noise.lower()}, mean over doses")
                for key, noise in WEIGHTS.items()
            ),
        )  # fmt: skip
        together = "All examples are scored by a logistic regression fitted to the others (10 folds)."
        aucs = [
            *((key, title, code, f"{reads}: {_EVEN}") for key, title, code, reads in singles),
            (OUTPUTS, "Outputs together", "WT001", together),
            (CHEAP, "Outputs and inputs together", "WT701", together),
            (ALL, "Weights as well", "WT101", together),
        ]
        return (
            Metric(key=SCORE, title="Score", unit="score", code="WT001", reads="Mean over all examples."),
            *(
                Metric(key=half_of(key), title=f"{noise}: half dose", unit="dose", code=_CODES[key], log=True,
                       reads="Dose at which half of the score is lost: doses of the scores lie around it.")
                for key, noise in WEIGHTS.items()
            ),
            *(
                Metric(key=key, title=title, unit=_AUC, code=code, ends=(0.0, 1.0), reads=reads)
                for key, title, code, reads in aucs
            ),
            *(
                Metric(key=gain_of(key), title=f"Gain from {noise.lower()}", unit=_AUC, code=_CODES[key],
                       ends=(-1.0, 1.0), reads=f"AUC with {noise.lower()} less AUC of outputs and inputs together.")
                for key, noise in WEIGHTS.items()
            ),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """One for each kind of noise: it adds at least so much."""
        return tuple(
            Rule(
                code=_CODES[key], title=f"{noise} adds to outputs and inputs", metric=gain_of(key), cohorts=(NETS,),
                statistic="mean", direction="more", margin=WORTH,
                supports=f"{noise} adds to outputs and input noise in telling {self.settings.label!r}: more than "
                f"{WORTH:g} AUC.",
                refutes=f"{noise} adds nothing in telling {self.settings.label!r}: less than {WORTH:g} AUC.",
                otherwise="No evidence of added value.",
            )
            for key, noise in WEIGHTS.items()
        )  # fmt: skip

    def measures(self) -> tuple[AuditMetric, ...]:
        """The audits of noise, whose curves bracket the half dose of each net."""
        return tuple(
            AuditMetric(half_of(key), f"{key}-noise", {"block_map": False}, estimate="half_dose") for key in WEIGHTS
        )

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """The curves under noise, and two readings."""
        return [*self.readings(case.plan, member), *super().ask_of(case, member)]

    def readings(self, plan: Plan, subject: SubjectRecord) -> list[Trial]:
        """Outputs with the label, and scores under disturbed inputs."""
        disturbed: dict[str, Scalar] = {"shift_draws": self.input_draws(plan), "image": self.settings.image}
        return [
            plan.reading(subject, OUTPUT_SCORES.name, {"label": self.settings.label}),
            plan.reading(subject, INPUT_SHIFT.name, disturbed),
        ]

    def input_draws(self, plan: Plan) -> int:
        """Draws of each disturbance of the inputs, so that they take as many passes as noise in the weights can."""
        alone = msgspec.structs.replace(plan, subjects=plan.subjects[:1], study=None)
        weights = sum(measure.made().most_passes(alone) for measure in self.measures())
        return math.ceil(weights / SHIFT_PASSES)

    def _curve(self, case: Case, measure: AuditMetric) -> list[list[Trial]]:
        """Trials of a curve, ``[dose][draw]``; the walk to its doses has fewer draws and is left out."""
        rows: dict[float, dict[str, Trial]] = {}
        for trial in measure.ask(case):
            rows.setdefault(trial.dose, {})[trial.key] = trial
        return [list(rows[dose].values()) for dose in sorted(rows) if len(rows[dose]) == case.plan.effort.draws]

    def scores(self, case: Case, member: SubjectRecord) -> ExampleScores:
        """What a net says of each example.

        Raises:
            NoAnswer: If a trial gave nothing.
        """
        plain, shifted = (case.reading(trial) for trial in self.readings(case.plan, member))
        sign, clean, tiny = case.plan.task.sign, case.clean(member), np.finfo(np.float32).tiny
        lost = sign * (clean - shifted["score"])
        logs = {key: np.log(plain[key].clip(tiny)) for key in (ENTROPY, LOSS)}
        return ExampleScores(
            labels=plain["label"].astype(np.float64),
            outputs={MARGIN: -plain["margin"], **logs},
            inputs=np.stack([lost[shifted["shift"] == shift].mean(0) for shift in np.unique(shifted["shift"])], axis=1),
            weights={
                key: sign * (clean - case.table(rows).mean((0, 1)))
                for key, measure in zip(WEIGHTS, self.measures(), strict=True)
                if (rows := self._curve(case, measure))
            },
        )

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        held, halves = self.scores(case, member), dict[str, Single]()
        try:
            halves |= super().numbers(case, member)
        except NoAnswer:
            if not held.weights:
                raise
        alone = {**held.outputs, INPUTS: held.inputs.mean(1), **held.weights}
        singles = dict[str, Single]()
        for key, values in alone.items():
            ones, zeros = placements(values[held.labels == 1.0], values[held.labels == 0.0])
            error = math.sqrt(float(ones.var(ddof=1)) / len(ones) + float(zeros.var(ddof=1)) / len(zeros))
            singles[key] = Single(float(ones.mean()), error, "DeLong over examples")
        return {SCORE: Single(float(case.clean(member).mean())), **halves, **singles, **held.combined(held.labels)}

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        """No score can detect as many labels that are assigned at random."""
        found: dict[str, list[Single]] = {}
        for member in case.plan.subjects:
            if member.name in table.numbers:
                held = self.scores(case.on(member), member)
                # Assigned again for each net: else luck with one assignment would pass for what all nets share.
                dealt = seeds.generator(case.plan.seed, self.name, member.fingerprint).permutation(held.labels)
                numbers = held.combined(dealt)
                for key in map(gain_of, held.weights):
                    found.setdefault(key, []).append(numbers[key])
        scale = NumberScale(_AUC, bounded=True)
        tests = [members.mean(singles, name=key, scale=scale) for key, singles in found.items()]
        above = [p for test in tests if (p := test.above(WORTH, "more")) is not None]
        status = "skipped" if not above else "failed" if min(above) * len(above) < WORST else "passed"
        control = Control(
            name="labels assigned at random are not detected", kind="null", status=status,
            estimates=tuple(test.estimate for test in tests),
            because="As many examples, assigned at random for each net: the mean gain must not be shown to be above "
            f"{WORTH:g} (fails at a p-value below {WORST:g}).",
        )  # fmt: skip
        return [control]

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        passes = SHIFT_PASSES * self.input_draws(case.plan)
        notes = (
            *(
                f"Outputs and inputs together reach a mean AUC of {row.cohorts[0].mean}: no more than what is left to "
                "1 can be added."
                for row in table.rows()
                if row.metric.key == CHEAP
            ),
            f"Equal cost: of each net at least {passes} passes with disturbed inputs, no more with disturbed weights.",
        )
        return StudyAnswer(
            headline=headline(self.rules(), findings), notes=notes, caveats=self.caveats,
            about=f"Examples of {case.plan.task.name}; label: {self.settings.label}.",
        )  # fmt: skip
