"""The study ``sparse-circuits``: are circuits of nets with sparse weights smaller, and is that more than sparsity?

Dense and sparse twins of equal loss; the smallest circuit that each task needs, found by one search with the same
settings in both; and the same search where there is nothing to find. After Gao et al. 2025, arXiv:2511.13653 (circuits
of sparse nets are some 16 times smaller); Drori 2026, LessWrong (pruned circuits also solve nonsense tasks).
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, final

import msgspec
import numpy as np

from wheeltap.audits.base import Listed
from wheeltap.audits.case import Arrays, Case
from wheeltap.audits.claims import NoAnswer
from wheeltap.core import seeds
from wheeltap.core.records import Control, Estimate, Finding, Scalar, SubjectRecord, Trial
from wheeltap.core.section import Section
from wheeltap.core.settings import Settings
from wheeltap.core.study import CohortSpec, MemberSpec, Metric, Rule
from wheeltap.stats._scipy import binomial_share
from wheeltap.stats.members import Single
from wheeltap.studies.base import Study, StudyAnswer
from wheeltap.studies.rules import headline
from wheeltap.studies.table import MemberTable, Numbers
from wheeltap.suites.circuits.audits.view import CircuitView, Search, section
from wheeltap.suites.circuits.circuit import packed
from wheeltap.suites.circuits.specs import CIRCUIT_GRAPH, CIRCUIT_SEARCH, DENSE_TRAINING, TASKS, Null

SPARSE, DENSE = "sparse", "dense"
EDGES, UNITS, PER_UNIT, LOSS, SOLVED = "edges", "units", "edges_per_unit", "loss", "solved"

REACHED: Final = 0.05
"""Share of searches in nulls that may reach the target."""

SURE: Final = 0.01
"""P-value from which more than that share did."""

_NULLS: Final[tuple[tuple[str, Null, bool], ...]] = (
    ("weights in random order", "weights", False),
    ("answers swapped", "labels", False),
    ("labels by an irrelevant token", "none", True),
)


class SparseCircuitsSettings(Settings, frozen=True, kw_only=True):
    """How many nets, how they are trained, and how circuits are searched for.

    Attributes:
        seeds: Pairs of a dense and a sparse net.
        seed: Root of what nets are made from.
        sparse_steps: Training steps of sparse nets.
        dense_steps: Training steps of dense nets: as many as give an equal loss.
        tasks: Number of tasks, the first ones of ``specs.TASKS``. These are groups of the examples, in this order;
            nonsense tasks follow in the same order.
        target: Loss that a circuit must reach, nats.
        penalties: In turn; the smallest circuit counts.
        steps: Of each search.
        pairs: Searched on, and held out.
        batch: Pairs of a step.
        nulls: Searches in nulls in each net: its tasks in turn, each with another of the three kinds; at most all.
    """

    seeds: Annotated[int, msgspec.Meta(ge=2, le=100)] = 8
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    sparse_steps: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1800
    dense_steps: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1250
    tasks: Annotated[int, msgspec.Meta(ge=1, le=3)] = 3
    target: Annotated[float, msgspec.Meta(gt=0.0, lt=0.69)] = 0.15
    penalties: Listed = "1e-3,2.5e-3"
    steps: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 250
    pairs: Annotated[int, msgspec.Meta(ge=2, le=256)] = 256
    batch: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 32
    nulls: Annotated[int, msgspec.Meta(ge=1, le=9)] = 9


@final
class SparseCircuits(Study):
    """Dense and sparse twins: the smallest circuit of each task, and what the same search finds in nothing."""

    name = "sparse-circuits"
    title = "Are circuits of nets with sparse weights smaller, and by more than sparsity alone makes them?"
    code = "WT303"
    settings_type = SparseCircuitsSettings
    small: ClassVar[dict[str, Scalar]] = {
        "seeds": 4, "penalties": "1e-3", "steps": 120, "pairs": 64, "batch": 12, "nulls": 3,
    }  # fmt: skip
    settings: SparseCircuitsSettings
    version: ClassVar[int] = 1  # part of the seeds of all nets: nets stay the same while this does
    caveats = (
        "Two blocks on generated lines that look like Python: nothing is known here of large models. Circuits keep "
        "whole units, and everything else at its mean; under other ablations they may fail (wheeltap circuits check).",
        "A net with few weights has few between any units: most of a ratio of weights is that. Units are counted too.",
    )

    @property
    def examples(self) -> str:
        """See ``Study.examples``."""
        return "wheeltap.suites.circuits.sources:python_suite"

    # ---- who ------------------------------------------------------------------------------------------------------

    def cast(self) -> tuple[CohortSpec, ...]:
        """Sparse nets, and a dense twin of each."""
        about = {SPARSE: "All but some weights of each matrix are 0.", DENSE: "All weights are there; as good a loss."}
        return tuple(
            CohortSpec(
                name=kind, members=tuple(self._asked(kind, at) for at in range(self.settings.seeds)),
                role="studied" if kind == SPARSE else "compared", about=about[kind],
            )
            for kind in (SPARSE, DENSE)
        )  # fmt: skip

    def _asked(self, kind: str, at: int) -> MemberSpec:
        settings: dict[str, Scalar] = (
            {"steps": self.settings.sparse_steps} if kind == SPARSE
            else {**DENSE_TRAINING, "steps": self.settings.dense_steps}
        )  # fmt: skip
        seed = seeds.derive(self.settings.seed, self.name, self.version, at)
        return MemberSpec(name=f"{kind} {at + 1}", recipe="sparse", settings=settings, seed=seed)

    # ---- numbers and rules ----------------------------------------------------------------------------------------

    def metrics(self) -> tuple[Metric, ...]:
        """See ``Study.metrics``."""
        common = "Geometric mean over the tasks of which a circuit was found in both twins."
        return (
            Metric(key=EDGES, title="Weights of a circuit", unit="weights", code="WT303", ends=(0.0, None), log=True,
                   reads=f"{common} Weights that are not 0 between units that are kept."),
            Metric(key=UNITS, title="Units of a circuit", unit="units", code="WT303", ends=(0.0, None), log=True,
                   reads=f"{common} Unlike weights, they are not fewer only because the net has fewer."),
            Metric(key=PER_UNIT, title="Weights for each unit", unit="weights", code="WT303", ends=(0.0, None),
                   log=True, reads="The one over the other: what sparsity alone makes smaller."),
            Metric(key=SOLVED, title="Tasks with a circuit", unit="tasks", code="WT303", grain=1.0,
                   ends=(0.0, float(self.settings.tasks)), reads="In both twins."),
            Metric(key=LOSS, title="Loss on lines held out", unit="nats", code="WT303", ends=(0.0, None),
                   reads="Mean over next tokens. Twins must be equally good."),
        )  # fmt: skip

    def rules(self) -> tuple[Rule, ...]:
        """See ``Study.rules``."""
        both = (DENSE, SPARSE)
        return (
            Rule(code="WT303", title="Sparse circuits have an eighth of the weights", metric=EDGES, cohorts=both,
                 statistic="paired", direction="more", margin=7.0,
                 supports="Circuits of dense nets have over 8 times as many weights as those of their sparse twins.",
                 refutes="Circuits of dense nets have less than 8 times as many weights."),
            Rule(code="WT303", title="Sparse circuits have fewer units", metric=UNITS, cohorts=both,
                 statistic="paired", direction="more", margin=0.1,
                 supports="They also have over 10 % more units: the ratio is not made by sparsity alone.",
                 refutes="They do not have over 10 % more units: the ratio is made by sparsity alone."),
        )  # fmt: skip

    # ---- asking ---------------------------------------------------------------------------------------------------

    def ask_of(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """Every search; then, with the penalty that found each circuit, the same in what has none."""
        wanted = [trial for task in range(self.settings.tasks) for trial in self._searches(case, member, task)]
        if not case.known(wanted):
            return wanted
        return [*wanted, *(trial for _, trial, _ in self._nulls(case, member)), *self._graphs(case, member)]

    def _searches(self, case: Case, member: SubjectRecord, task: int) -> list[Trial]:
        return [self._search(case, member, task, penalty) for penalty in self._penalties]

    @property
    def _penalties(self) -> list[float]:
        return [float(one) for one in self.settings.penalties.split(",")]

    def _search(self, case: Case, member: SubjectRecord, task: int, penalty: float, null: Null = "none") -> Trial:
        how = self.settings
        given: dict[str, Scalar] = {
            "target": how.target, "steps": how.steps, "pairs": how.pairs, "batch": how.batch, "penalty": penalty,
            "group": task, "null": null,
        }  # fmt: skip
        return case.plan.reading(member, CIRCUIT_SEARCH.name, given)

    def _nulls(self, case: Case, member: SubjectRecord) -> list[tuple[int, Trial, str]]:
        """Searches in nulls, of those tasks of which a circuit was found: task, search, what it is one of."""
        found, tasks = list[tuple[int, Trial, str]](), self.settings.tasks
        net = [one.name for one in case.whole.subjects].index(member.name)
        for at in range(min(self.settings.nulls, len(_NULLS) * tasks)):
            task = (at + net * self.settings.nulls) % tasks
            words, null, nonsense = _NULLS[(task + at // tasks + net) % len(_NULLS)]
            best = self._best(case, member, task)
            if best is not None:
                group = task + len(TASKS) * nonsense
                found.append((task, self._search(case, member, group, self._penalties[best[0]], null), words))
        return sorted(found, key=lambda one: one[0])

    def _best(self, case: Case, member: SubjectRecord, task: int) -> tuple[int, Arrays] | None:
        """Which penalty found the smallest circuit, and what it found; ``None`` where none did.

        Raises:
            NoAnswer: If a search has not run.
        """
        found = [case.reading(trial) for trial in self._searches(case, member, task)]
        sizes = {at: int(one["size"]) for at, one in enumerate(found) if int(one["size"])}
        if not sizes:
            return None
        at = min(sizes, key=lambda one: sizes[one])
        return at, found[at]

    # ---- judging --------------------------------------------------------------------------------------------------

    def numbers(self, case: Case, member: SubjectRecord) -> Numbers:
        """See ``Study.numbers``."""
        twin = _twin(case, member)
        own, other = ({task: self._best(case, one, task) for task in range(self.settings.tasks)} for one in
                      (member, twin))  # fmt: skip
        both = [task for task in own if own[task] is not None and other[task] is not None]
        made = None if member.artifact is None else case.outcome(case.plan.make(member))
        found = {SOLVED: float(len(both))}
        if made is not None and "validation" in made.values:
            found[LOSS] = float(made.values["validation"].reshape(-1)[-1])
        if both:
            circuits = [one[1] for task in both if (one := own[task]) is not None]
            found[EDGES], found[UNITS] = (
                _geometric([float(one[key]) for one in circuits]) for key in ("edges", "size")
            )
            found[PER_UNIT] = found[EDGES] / found[UNITS]
        return {key: Single(value) for key, value in found.items()}

    def controls(self, case: Case, table: MemberTable) -> list[Control]:
        """Are circuits found where there are none?"""
        reached, tried = dict.fromkeys((words for words, _, _ in _NULLS), 0), 0
        for member in case.plan.subjects:
            try:
                for _, trial, words in self._nulls(case, member):
                    reached[words] += int(case.reading(trial)["size"]) > 0
                    tried += 1
            except NoAnswer:
                continue
        count = sum(reached.values())
        p = 1.0 - binomial_share(count - 1, tried, REACHED) if count else 1.0
        status = "failed" if p < SURE else "passed" if tried and count <= REACHED * tried else "skipped"
        listed = ", ".join(f"{words} {some}" for words, some in reached.items())
        return [Control(
            name="no circuit is found where there is none", kind="null", status=status,
            estimates=(Estimate.exact("searches that reached the target", float(count), "searches", n=max(tried, 1)),),
            because=f"Of {tried} searches in nulls, with the penalty that found the circuit, {count} reached the "
            f"target ({listed}).",
        )]  # fmt: skip

    def said(self, case: Case, table: MemberTable, findings: Sequence[Finding]) -> StudyAnswer:
        """See ``Study.said``."""
        return StudyAnswer(
            headline=f"{_ratios(table)} {headline(self.rules(), findings)}",
            about="Two blocks of width 128 on generated lines that look like Python; twins of equal loss.",
            notes=tuple(self._by_task(case)), caveats=self.caveats,
        )  # fmt: skip

    def _by_task(self, case: Case) -> list[str]:
        """Units and weights of every task's circuit, dense and sparse."""
        lines: list[str] = []
        for task in range(self.settings.tasks):
            parts: list[str] = []
            for kind in (DENSE, SPARSE):
                found = [self._found(case, one, task) for one in case.plan.subjects if one.name.startswith(kind)]
                sizes = [(int(one["size"]), int(one["edges"])) for one in found if one is not None]
                shown = ", ".join(f"{units:,} / {edges:,}" for units, edges in sizes) or "none"
                parts.append(f"{kind} {shown}")
            lines.append(f"{TASKS[task]}: units / weights of the circuit in {'; in '.join(parts)}.")
        return lines

    # ---- the page -------------------------------------------------------------------------------------------------

    def _pictured(self, case: Case) -> tuple[int, dict[str, Arrays]] | None:
        """The first task of which both nets of the first pair have a circuit, and these circuits by net."""
        names = [f"{kind} 1" for kind in (SPARSE, DENSE)]
        pair = [one for one in case.whole.subjects if one.name in names]
        for task in range(self.settings.tasks) if len(pair) == len(names) else ():
            found = {one.name: self._found(case, one, task) for one in pair}
            both = {name: read for name, read in found.items() if read is not None}
            if len(both) == len(names):
                return task, both
        return None

    def _graphs(self, case: Case, member: SubjectRecord) -> list[Trial]:
        """The circuit of one task as a graph, of the first pair alone."""
        pictured = self._pictured(case)
        if pictured is None or member.name not in pictured[1]:
            return []
        task, found = pictured
        circuit = packed(found[member.name]["rank"] < int(found[member.name]["size"]))
        return [case.plan.reading(member, CIRCUIT_GRAPH.name, {"circuit": circuit, "group": task})]

    def sections(self, case: Case, table: MemberTable) -> list[Section]:
        """See ``Study.sections``: one task in the first pair of twins, loss against size of both beside nulls."""
        pictured = self._pictured(case)
        if pictured is None:
            return []
        task, found = pictured
        own = {name: Search(name, False, read) for name, read in found.items()}
        made: list[Section] = []
        for member in (one for one in case.plan.subjects if one.name in found):
            alone, read = case.on(member), found[member.name]
            kept, edges = int(read["size"]), int(read["edges"])
            tried = [own[member.name], *(one for name, one in own.items() if name != member.name)]
            try:
                graph = case.reading(self._graphs(alone, member)[0])
                nulls = [(trial, words) for of, trial, words in self._nulls(alone, member) if of == task]
                tried += [Search(words, True, case.reading(trial)) for trial, words in nulls]
            except NoAnswer:
                continue
            made.append(section(CircuitView(
                subject=member.name, task=TASKS[task], target=self.settings.target, parts="units",
                kept=kept, of=len(read["rank"]), tried=tuple(tried), graph=graph,
                size=f"{kept:,} of {len(read['rank']):,} units, {edges:,} of {int(read['weights']):,} weights between "
                "units",
            )))  # fmt: skip
        return made

    def _found(self, case: Case, member: SubjectRecord, task: int) -> Arrays | None:
        try:
            best = self._best(case, member, task)
        except NoAnswer:
            return None
        return None if best is None else best[1]


def _twin(case: Case, member: SubjectRecord) -> SubjectRecord:
    """The other net of a pair.

    Raises:
        NoAnswer: If it was not made.
    """
    kind, _, at = member.name.partition(" ")
    name = f"{DENSE if kind == SPARSE else SPARSE} {at}"
    found = next((one for one in case.whole.subjects if one.name == name), None)
    if found is None:
        raise NoAnswer("error", f"Its twin was not made ({name}).")
    return found


def _geometric(values: Sequence[float]) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, 1.0)))))


def _ratios(table: MemberTable) -> str:
    """Ratios of weights and units, dense over sparse, and how much of it density alone explains."""
    shares = {
        key: _geometric(table.values(DENSE, key)) / _geometric(table.values(SPARSE, key))
        for key in (EDGES, UNITS)
        if table.values(DENSE, key) and table.values(SPARSE, key)
    }
    if len(shares) < 2:
        return "No task has a circuit in both twins."
    density = 1.0 - np.log(shares[UNITS]) / np.log(shares[EDGES]) if shares[EDGES] > 1.0 else 1.0
    return (
        f"Circuits of dense nets have {shares[EDGES]:.1f} times the weights and {shares[UNITS]:.1f} times the units of "
        f"those of sparse twins: fewer weights for each unit make {density:.0%} of that ratio (of its logarithm)."
    )
