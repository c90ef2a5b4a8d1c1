"""The study ``pictures``: a net that draws a picture, and nets trained to draw it too. Are they wired alike?

After Kumar et al. 2025, arXiv:2505.11581 (the fractured entangled representation hypothesis), which has the pictures
and the idea; the metrics were defined for this project (the paper measures nothing of the kind). What fools which is
measured in every study.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.case import Arrays, Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.audits.controls import Ruling, control
from wheeltap.core import seeds
from wheeltap.core.bounded import Npz
from wheeltap.core.errors import UnknownName
from wheeltap.core.records import Control, Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.section import Section
from wheeltap.core.settings import comma_separated
from wheeltap.core.study import CohortRole, CohortSpec, Member, MemberSpec, Metric, MetricRow, Rule
from wheeltap.plans.plan import Plan
from wheeltap.stats.members import Single
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.table import MemberTable, Numbers
from wheeltap.suites.pictures import specs
from wheeltap.suites.pictures.studies import report
from wheeltap.suites.pictures.studies.report import BY_KEY, ERROR, METRICS, OVER, TESTED, TRAINED

SAME: Final = 1e-9
"""Largest difference between a genome and its layered net, both computed in double precision: in hue, saturation or
brightness, as a share of the largest value that this has in the picture where that is above 1."""

RECODED: Final = "feature_symmetry"
"""The number that a net with its units in another order must have too; of the responses, the sample is another."""

RECODED_GAP: Final = 1e-3
"""Largest difference of that number, as a share of it, that rounding may make."""

SMALLEST: Final = 1e-6
"""Of numbers that are compared as shares: below it there is only rounding."""

FULLY: Final = 0.999
"""Symmetry that nets must be found to have that read |x|."""


@control("the layered net draws what the graph draws", "gate")
def same_function(case: Case, graph: Trial) -> Ruling:
    """Does the layered net draw what the graph draws?"""
    outcome = case.outcome(graph)
    if outcome is None:
        raise NoAnswer("skipped", "The graph was not read.")
    if outcome.status != "done":
        return "failed", (), outcome.because
    gap, rmse = (float(outcome.values.get(key, np.inf)) for key in ("gap", "rmse"))
    numbers = (
        ("largest_difference", gap, "share of hue, saturation or brightness"),
        ("picture_in_single_precision", rmse, "root mean square of color"),
    )
    rounded = f"off by a root mean square of {rmse:.1e} in color" if np.isfinite(rmse) else "not finite everywhere"
    because = (
        f"In double precision, and with weights rounded to single precision in both, they differ by at most "
        f"{gap:.1e} of the range of hue, saturation or brightness at any pixel ({SAME:g} is allowed). In single "
        f"precision, in which nets are measured, the picture is {rounded}."
    )
    estimates = tuple(Estimate.exact(*number) for number in numbers if np.isfinite(number[1]))
    return "passed" if gap <= SAME else "failed", estimates, because


@control("WT206 reparametrized copy", "null")
def recoded(own: Numbers, twin: Numbers) -> Ruling:
    """Has a copy with its units in another order the same numbers?"""
    if RECODED not in {*own, *twin}:
        raise NoAnswer("skipped", f"It takes {RECODED}, and the net does not have it.")
    gap = np.inf  # where one has the number and the other does not
    if RECODED in own and RECODED in twin:
        gap = abs(twin[RECODED].value - own[RECODED].value) / max(abs(own[RECODED].value), SMALLEST)
    apart = f"they differ by at most {gap:.1e}" if np.isfinite(gap) else "one has a number that the other has not"
    because = (
        "A copy with the units of each block in another order computes the same function and must have the "
        f"same {RECODED}: {apart} ({RECODED_GAP:g} is allowed)."
    )
    estimates = (Estimate.exact("largest_difference", gap, "share of the number"),) if np.isfinite(gap) else ()
    return "passed" if gap <= RECODED_GAP else "failed", estimates, because


FOLDED: Final = "abs-x"
"""Nets that read |x|: all their answers are mirror images of themselves."""


@control(f"WT204, WT206 {FOLDED} nets are symmetric", "planted")
def symmetric_inputs(table: MemberTable, *, mirror: bool) -> Ruling:
    """Do nets that read |x| answer with full symmetry, as they must?

    Args:
        table: The numbers.
        mirror: Whether the picture's symmetry is the mirror left-right.
    """
    keys = ("response_symmetry", "feature_symmetry")
    there = any(cohort.name == FOLDED for cohort in table.cohorts)
    values = [value for key in keys for value in table.values(FOLDED, key)] if there else []
    if not values or not mirror:
        because = f"It takes trained {FOLDED} nets and a picture whose symmetry is the mirror left-right."
        raise NoAnswer("skipped", because)
    least = min(values)
    because = (
        f"A net that reads |x| can only draw mirror images: every symmetry must be 1. The least is {least:.5f} "
        f"(fails below {FULLY:g})."
    )
    return "passed" if least >= FULLY else "failed", (Estimate.exact("least_symmetry", least, "share"),), because


@control("starts of training", "gate")
def training(case: Case) -> Ruling:
    """How training went: starts that were lost are counted."""
    makings = [case.outcome(case.plan.make(subject)) for subject in case.whole.subjects if subject.artifact is not None]
    lost = sum(int(one.values["restarts"]) for one in makings if one is not None and "restarts" in one.values)
    starts = Estimate.exact("starts_lost", float(lost), "starts", n=len(makings))
    because = f"Starts that were lost, and made again from another seed: {lost}."
    return "skipped" if None in makings else "passed", (starts,), because


UNTRAINED: Final = "untrained"

GIVEN: Final = "given: "
"""What the names of nets begin with that were there already."""

LOPSIDED: Final = ("scene",)
"""Built-in pictures without a symmetry: no nets that read |x| are trained to draw them."""

KINDS: Final[dict[str, dict[str, Scalar]]] = {
    TRAINED: {},
    "relu": {"units": "relu"},
    FOLDED: {"fold": "abs-x"},
    "l1": {"l1": 1e-4},
    "decay": {"decay": 0.1},
    "sam": {"rho": 0.02},
    "sparse": {"share": 0.2},
    UNTRAINED: {"steps": 0},
}
"""Kinds of nets, by what differs in their training: as published, and controls."""

_ABOUT: Final = {
    TRAINED: "Trained by the paper's recipe to draw the picture.",
    UNTRAINED: "The starts of the trained nets.",
    FOLDED: "Trained likewise, and given |x|: they can only draw mirror images.",
    "relu": "Trained likewise, with ReLU units in all layers.",
    "l1": "Trained likewise, with a penalty on the sum of absolute weights.",
    "decay": "Trained likewise, with weight decay.",
    "sam": "Trained likewise, by sharpness-aware minimization.",
    "sparse": "Trained likewise, and pruned to a fifth of the weights.",
}

_Nets = Annotated[int, msgspec.Meta(ge=1, le=100)]


class PicturesSettings(specs.MovedSettings, frozen=True, kw_only=True):
    """Which picture, which nets, and how much of each is looked at.

    Attributes:
        picture: A built-in picture: face, flower or scene.
        genome: A Picbreeder genome instead: XML, or a zip file that holds it.
        nets: Further nets to measure: an ``.npz`` file with ``arch`` and arrays of parameters.
        seeds: Nets trained to draw the picture.
        control_seeds: Nets of each kind of control nets.
        controls: Kinds of trained control nets, with commas between.
        size: Pixels of a side, in training.
        steps: Of training.
        seed: Root of what training draws.

    Raises:
        UnknownName: If there is no such kind of control nets.
    """

    picture: str = "face"
    genome: str = ""
    nets: str = ""
    seeds: Annotated[int, msgspec.Meta(ge=2, le=100)] = 5
    control_seeds: _Nets = 3
    controls: str = "abs-x,l1"
    size: Annotated[int, msgspec.Meta(ge=8, le=512)] = 64
    steps: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 4000
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0

    def __post_init__(self) -> None:
        allowed = [kind for kind in KINDS if kind not in (TRAINED, UNTRAINED)]
        wrong = next((kind for kind in self.kinds if kind not in allowed), None)
        if wrong is not None:
            raise UnknownName("kind of control net", wrong, allowed)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of trained control nets, each once."""
        return comma_separated(self.controls)

    @property
    def source(self) -> str:
        """The spec of the net under study."""
        return f"genome:{self.genome}" if self.genome else f"picture:{self.picture}"


@final
class PictureStudy(Study):
    """Nets that draw one picture: is the one under study one more of those trained to draw it?"""

    name = "pictures"
    title = "Is a net that draws a picture wired like nets trained to draw it?"
    code = "WT204"
    settings_type = PicturesSettings
    small: ClassVar[dict[str, Scalar]] = {"size": 32, "steps": 1500}
    settings: PicturesSettings
    version: ClassVar[int] = 2

    @property
    def examples(self) -> str:
        """The square that the nets draw."""
        return f"{self.settings.source},{self.settings.size}"

    # ---- who ------------------------------------------------------------------------------------------------------

    def cast(self) -> tuple[CohortSpec, ...]:
        """The net under study; nets trained to draw its picture, their starts, controls; nets that are given."""
        settings = self.settings
        own = MemberSpec(name=self.own, source=settings.source)
        cohorts = [CohortSpec(name=self.own, members=(own,), about="The net under study, laid out as a dense net.")]
        meant = [
            kind for kind in settings.kinds if kind != FOLDED or settings.genome or settings.picture not in LOPSIDED
        ]
        for kind in (TRAINED, UNTRAINED, *meant):
            count = settings.seeds if kind in (TRAINED, UNTRAINED) else settings.control_seeds
            cohorts.append(self._trained(kind, count))
        for name in self._given:
            asked = MemberSpec(name=f"{GIVEN}{name}", source=f"npz:{settings.nets}#{name}")
            cohorts.append(CohortSpec(name=asked.name, members=(asked,), role="given", about="Given with the study."))
        return tuple(cohorts)

    def _trained(self, kind: str, count: int) -> CohortSpec:
        roles: dict[str, CohortRole] = {TRAINED: "compared", FOLDED: "planted"}
        members = tuple(
            MemberSpec(
                name=f"{kind} {at + 1}", recipe="picture", settings={"steps": self.settings.steps, **KINDS[kind]},
                seed=seeds.derive(self.settings.seed, "fer", at), of=(self.own,),
            )
            for at in range(count)
        )  # fmt: skip
        return CohortSpec(name=kind, members=members, role=roles.get(kind, "null"), about=_ABOUT[kind])

    @cached_property
    def own(self) -> str:
        """Name of the net under study."""
        name = Path(self.settings.genome).stem if self.settings.genome else self.settings.picture
        taken = {*KINDS, *(f"{kind} {at + 1}" for kind in KINDS for at in range(100))}
        return f"{name} (under study)" if name in taken else name

    @cached_property
    def _given(self) -> tuple[str, ...]:
        """Names of the given nets."""
        if not self.settings.nets:
            return ()
        with Npz(Path(self.settings.nets).expanduser(), "file of nets") as archive:
            return tuple(name for name in archive.names if name != "arch")

    # ---- numbers and rules ----------------------------------------------------------------------------------------

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``."""
        return METRICS

    def rules(self) -> tuple[Rule, ...]:
        """One for each tested metric: could the net under study be one more of the trained ones?"""
        return tuple(
            Rule(
                code=BY_KEY[key].code, title=BY_KEY[key].title, metric=key, cohorts=(self.own, TRAINED),
                statistic="one_of", margin=tested.margin, relative=tested.relative,
                supports=f"{self.own} is not one more of the trained nets.",
                refutes=f"{self.own} is like the trained nets.", alarm=True,
            )
            for key, tested in TESTED.items()
        )  # fmt: skip

    # ---- asking ---------------------------------------------------------------------------------------------------

    def most(self, plan: Plan) -> int:
        """Two readings of each net, and some of three of them."""
        return 2 * len(plan.subjects) + 5

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """The graph of the net under study first: it decides how the others are read."""
        graph = self.graph(case)
        outcome = case.outcome(graph)
        if outcome is None or outcome.status != "done":
            return [graph]
        asked = [graph, self._numbers(case, member), case.plan.reading(member, specs.PICTURE_DRAWN.name, {})]
        if member == case.whole.reference:
            asked.append(self._numbers(case, member, reordered=True))
        return [*asked, *self.inside(case, member)]

    def graph(self, case: Case) -> Trial:
        """What is known of the graph that the net under study was laid out from."""
        return case.plan.reading(case.whole.reference, specs.PICTURE_GRAPH.name, {"source": self.settings.source})

    def inside(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """What is shown of a net beside its picture: of the one under study, the first trained and untrained one."""
        first = {kind: self._first(case, kind) for kind in (TRAINED, UNTRAINED)}
        explored = member in (case.whole.reference, first[TRAINED])
        if not explored and member != first[UNTRAINED]:
            return []
        given: dict[str, Scalar] = {"explored": explored}
        if explored:
            known = case.reading(self.graph(case))
            named = known["factor"] if member == case.whole.reference and "factor" in known else np.zeros((0, 4))
            given |= {
                **self._asked(known),
                "named": ",".join(str(int(one)) for one in named[:, 0]),
            }
        return [case.plan.reading(member, specs.PICTURE_INSIDE.name, given)]

    def _first(self, case: Case, kind: str) -> SubjectRecord | None:
        """The first net of a kind that was made."""
        for subject in case.whole.subjects:
            if subject.artifact is not None and subject.name.rpartition(" ")[0] == kind:
                made = case.outcome(case.plan.make(subject))
                if made is not None and made.status == "done":
                    return subject
        return None

    def _numbers(self, case: Case, member: SubjectRecord, *, reordered: bool = False) -> Trial:
        known = case.reading(self.graph(case))
        return case.plan.reading(member, specs.PICTURE_NUMBERS.name, {**self._asked(known), "reordered": reordered})

    def _asked(self, known: Arrays) -> dict[str, Scalar]:
        """The study's settings that a reading has too, and on which points a symmetry acts."""
        fields = (field.name for field in msgspec.structs.fields(specs.MovedSettings))
        return {**{name: getattr(self.settings, name) for name in fields}, "folds": int(known["folds"])}

    # ---- judging --------------------------------------------------------------------------------------------------

    def drawn(self, case: Case, member: SubjectRecord) -> Any:
        """The picture that a net draws, ``[row, column, 3]``.

        Raises:
            NoAnswer: If it was not read.
        """
        return case.reading(case.plan.reading(member, specs.PICTURE_DRAWN.name, {}))["picture"]

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        gap = self.drawn(case, member) - self.drawn(case, case.whole.reference)
        return {ERROR: Single(float(np.square(gap).mean())), **_singles(case.reading(self._numbers(case, member)))}

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        """See ``Study.controls``."""
        own, twin, mirror = case.whole.reference, dict[str, Single](), False
        if case.known([self.graph(case)]):
            with suppress(NoAnswer):
                twin = _singles(case.reading(self._numbers(case, own, reordered=True)))
            with suppress(NoAnswer):
                mirror = bool(case.reading(self._numbers(case, own))["mirror"])
        return [
            same_function(case, self.graph(case)),
            recoded(table.numbers.get(own.name, {}), twin),
            symmetric_inputs(table, mirror=mirror),
            training(case),
        ]

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        own, first = case.whole.reference, self._first(case, TRAINED)
        graph = case.reading(self.graph(case))
        moved = [(one.name, case.reading(self._numbers(case, one))) for one in (own, first) if one is not None]
        words = report.StudyWords(table, findings, self.own)
        return StudyAnswer(
            headline=words.headline(), about=specs.as_text(graph["about"]),
            notes=(words.distance(), *words.lacking(), *words.fooled()),
            caveats=report.caveats(moved, words.count, by_hand="factor" in graph),
        )  # fmt: skip

    def shown(self, case: Case, table: MemberTable) -> tuple[tuple[Member, ...], tuple[MetricRow, ...]]:
        """See ``Study.shown``."""
        return report.shown(report.StudyWords(table, (), self.own))

    def sections(self, case: Case, table: MemberTable) -> list[Section]:
        """See ``Study.sections``."""
        inside, drawn, names = dict[str, Arrays](), dict[str, Any](), dict[tuple[int, ...], str]()
        about = ""
        with suppress(NoAnswer):
            graph = case.reading(self.graph(case))
            about = specs.as_text(graph["about"])
            if "factor" in graph:
                labels = specs.as_text(graph["factors"]).split("\n")
                names = {tuple(place): label for place, label in zip(graph["factor"].tolist(), labels, strict=True)}
        for subject in case.whole.subjects:
            with suppress(NoAnswer):
                drawn[subject.name] = self.drawn(case, subject)
            with suppress(NoAnswer):
                for trial in self.inside(case, subject):
                    inside[subject.name] = case.reading(trial)
        pictures, *others = report.sections(report.StudyWords(table, (), self.own), inside, drawn, names)
        return [msgspec.structs.replace(pictures, says=about), *others]


def _singles(read: Arrays) -> dict[str, Single]:
    """Numbers of a net with their errors, as they were read."""
    found: dict[str, Single] = {}
    for at, key in enumerate(specs.METRICS):
        if read["there"][at]:
            value, se = float(read["value"][at]), float(read["se"][at])
            sampled, short = int(read["sampled"][at]), int(read["short"][at])
            how = OVER.get(key, "").format(sampled=sampled, short=short)
            found[key] = Single(value, se, how, sampled - 1) if sampled else Single(value)
    return found
