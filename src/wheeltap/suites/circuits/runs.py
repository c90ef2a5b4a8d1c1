"""Circuits found, checked and trained, ``wt.circuits``, as ``wheeltap circuits`` does on the command line.

For example: ``task = wt.circuits.task("pairs.jsonl")``, ``found = wt.circuits.find(net, task, target=0.2)``,
``found.report.html("report.html")``, ``found.save("circuit.json")``, ``wt.circuits.check(net, task, "circuit.json")``.
"""

import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Final, NamedTuple, final

import msgspec
import numpy as np
import torch

from wheeltap.audits.base import Case, create
from wheeltap.audits.case import Arrays
from wheeltap.core.canon import Scalar
from wheeltap.core.choices import ChoiceTask, Tokenizer
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.clean import threads_for
from wheeltap.plans.artifacts import Artifacts
from wheeltap.plans.plan import AuditSpec, Plan
from wheeltap.plans.store import Outcomes, Store
from wheeltap.recipes import base
from wheeltap.recipes.make import Watch, make, place
from wheeltap.report.report import Report
from wheeltap.runs.given import Model, subjects_of
from wheeltap.runs.loop import run
from wheeltap.runs.planning import plan
from wheeltap.runs.ray_cluster import RayCluster
from wheeltap.sources import artifact
from wheeltap.sources.arrays import load_sequences
from wheeltap.sources.base import ExampleReader
from wheeltap.sources.specs import load_model
from wheeltap.suites.circuits import sources as source
from wheeltap.suites.circuits.audits.claims import CircuitStableAudit
from wheeltap.suites.circuits.audits.common import CHANCE, CircuitAudit, CircuitAuditSettings, unable
from wheeltap.suites.circuits.audits.view import answer
from wheeltap.suites.circuits.circuit import (
    FORMAT,
    Circuit,
    EdgeGraph,
    Origin,
    UnitCircuit,
    is_mib,
    load,
    of_units,
    packed,
    read_mib,
    write_mib,
)
from wheeltap.suites.circuits.engine.ablation import (
    REPHRASED,
    ROUNDS,
    EdgePairs,
    UnitPairs,
    halves,
    of_group,
    pairs_of,
    wired,
)
from wheeltap.suites.circuits.engine.units import UnitNet
from wheeltap.suites.circuits.recipes.search import GRADIENTS, REFINED, SCANNED, SCANNED_EDGES
from wheeltap.suites.circuits.recipes.sparse import DENSE, sparsified
from wheeltap.suites.circuits.specs import CIRCUIT_EFFECTS, CIRCUIT_SEARCH, DEFINITIONS, KINDS, RESAMPLES

if TYPE_CHECKING:
    from wheeltap.suites.circuits.cli import SparseNetSpec

_HELD: Final = 4
"""Passes of a search beside those of its sizes: held-out pairs, the whole net, no part of it."""


_PATIENCE: Final = 0.5
"""Seconds that timing one thing may take: other work on the machine shows in that time."""


@final
class RemainingWork(NamedTuple):
    """What is left to do of a run on a circuit.

    Attributes:
        seconds: About how long it takes on this machine as it is now.
        searches: For a circuit, in nulls, and by other seeds.
        judgments: Readings of what the circuit does.
    """

    seconds: float
    searches: int
    judgments: int


def remaining(plan: Plan, subject: Subject, task: BaseTask, *, store: Path, workers: int) -> RemainingWork:
    """Times one pass with parts ablated and one step of a search; counts what the store lacks.

    Args:
        plan: Of audits of circuits.
        subject: Its model.
        task: Of pairs.
        store: Where outcomes are, if it is there.
        workers: Processes that share the work.

    Raises:
        ModelError: If the units (edges) of the model are not known, or the task has no pairs.
    """
    audits = [one for spec in plan.audits if isinstance(one := create(spec.name, dict(spec.settings)), CircuitAudit)]
    searches, judgments = _left(plan, audits, store, rephrased=REPHRASED in task.annotations.factors)
    how = audits[0].settings
    each, step, slope = _seconds(how, subject, task) if searches or judgments else (0.0, 0.0, 0.0)
    if how.method == "masks":
        search = how.steps * step + (SCANNED + REFINED + _HELD) * each
    else:
        search = GRADIENTS[how.method] * slope + (SCANNED_EDGES + REFINED + _HELD) * each
    weights = 2 * len(KINDS) * how.weight_draws * (how.method == "masks")
    passes = len(DEFINITIONS) + 2 * RESAMPLES + how.subsets + 2 * how.random + weights
    whole = searches * search + judgments * (passes * each + ROUNDS * slope)
    return RemainingWork(whole / max(workers, 1), searches, judgments)


def _left(plan: Plan, audits: list[CircuitAudit], store: Path, *, rephrased: bool) -> tuple[int, int]:
    """Searches and judgments that have not run."""
    if store.is_file():
        with Store(store, readonly=True) as held:
            case = Case(plan, Outcomes(held))
            if case.known(plan.baselines()) and case.known(audits[0].searches(plan, plan.reference)):
                wanted = {trial.key: trial for audit in audits for trial in audit.ask(case) if not case.known([trial])}
                kinds = [trial.perturbation for trial in wanted.values()]
                return kinds.count(CIRCUIT_SEARCH.name), kinds.count(CIRCUIT_EFFECTS.name)
            own = sum(not case.known([trial]) for trial in audits[0].searches(plan, plan.reference))
    else:
        own = len(audits[0].searches(plan, plan.reference))
    more = sum(audit.settings.again for audit in audits if isinstance(audit, CircuitStableAudit))
    nulls = sum(audit.most_more() for audit in audits if audit.name == "circuit-nulls")
    return own + more + nulls, 1 + rephrased


def _seconds(how: CircuitAuditSettings, subject: Subject, task: BaseTask) -> tuple[float, float, float]:
    """Of a pass over half of the pairs, of a step of the search for masks, and of a gradient over half of the pairs."""
    searched, _ = halves(pairs_of(of_group(task, how.group, most=how.pairs)))
    with threads_for(subject.record.parameters), torch.no_grad():
        if how.method == "masks":
            net = UnitNet(subject.model, next(searched.batches()).clean)
            whole, parts = UnitPairs(searched, net), net.units
            step = UnitPairs(searched.part(range(min(how.batch, len(searched)))), net)
        else:
            known = wired(subject, searched)
            whole = step = EdgePairs(searched, known, "patch" if how.ablation == "patch" else "zero")
            parts = len(known.graph.edges)
        mask = (torch.arange(parts, device=whole.device) % 2).float()
        slope = _timed(lambda: whole.slope(mask))
        return _timed(lambda: whole.gaps(mask)), _timed(lambda: step.slope(mask)), slope


def _timed(run: Callable[[], object]) -> float:
    """Seconds of a run, the mean of as many as fit into half a second after one that warms up.

    The first alone, where that takes longer.
    """
    began = perf_counter()
    run()
    took, count = perf_counter() - began, 1
    if took < _PATIENCE:
        began, count = perf_counter(), 0
        while not count or perf_counter() - began < _PATIENCE:
            run()
            count += 1
        took = perf_counter() - began
    return took / count


MASKED: Final = 5_000_000
"""Weights up to which units are searched by default: for more, masks would take hours, and edges are searched."""

EDGES: Final[dict[str, Scalar]] = {"pairs": 32, "ablation": "patch"}
"""How edges are searched by default: pairs searched on and held out; ablated edges carry what they carry on the other
side of the pair, as the scores of EAP suppose. At their means, language models fail with most of their edges."""

CHEAP: Final[dict[str, Scalar]] = {"subsets": 4, "tries": 1, "again": 2}
"""What is drawn for a circuit of edges by default: in each draw every edge is run by itself."""

AUDITS: Final = ("circuit-sufficient", "circuit-necessary", "circuit-nulls", "circuit-stable")


def found(plan: Plan, subject: Subject, task: BaseTask, store: Path) -> UnitCircuit | Circuit | None:
    """The circuit of a run that searched for one, also while it runs.

    Where no search reached the target, or some have not run, it says so (``undecided``) and is the best so far. There
    is none where the model cannot do the task, or no search has run.
    """
    spec = next(spec for spec in plan.audits if spec.name in AUDITS)
    audit = create(spec.name, dict(spec.settings))
    assert isinstance(audit, CircuitAudit)
    with Store(store, readonly=True) as held:
        case, trials = Case(plan, Outcomes(held)), audit.searches(plan, plan.reference)
        searches = {at: read for at, trial in enumerate(trials) if (read := answer(case, trial)) is not None}
    if not searches or unable(float(next(iter(searches.values()))["own"])):
        return None
    how, undecided = audit.settings, ""
    target = how.target or float(next(iter(searches.values()))["target"])
    reached = [(int(read["size"]), at) for at, read in searches.items() if int(read["size"])]
    if reached:
        size, at = min(reached)
    else:
        size, at, loss = _closest(searches, share=how.recovered)
        undecided = (
            f"No search reached the target of {target:.3g} nats. This is the smallest circuit tried that does "
            f"{100.0 * how.recovered:.0f} % of what the best one does beyond a guess: its loss is {loss:.3f} nats on "
            "the pairs searched."
        )
    if len(searches) < len(trials):
        undecided = f"Only {len(searches)} of {len(trials)} searches have run. {undecided}".strip()
    kept = searches[at]["rank"] < size
    origin = Origin(
        model=subject.record.fingerprint, name=subject.name, task=task.name, examples=task.digest, group=how.group,
        found={"penalty": audit.penalties[at], "target": target, "seed": plan.seed,
               **{name: getattr(how, name) for name in _HOW}},
        undecided=undecided,
    )  # fmt: skip
    if audit.parts == "edges":
        graph, scores = EdgeGraph.of_numbers(searches[at]["decoder"]), searches[at]["score"].astype(np.float64)
        return Circuit(graph, scores, kept, graph.touched(kept), np.ones(len(kept), bool), origin=origin)
    net = UnitNet(subject.model, next(pairs_of(task).batches()).clean)
    sites = of_units(kept, tuple((site.name, site.units) for site in net.sites))
    return UnitCircuit(format=FORMAT, sites=sites, **msgspec.structs.asdict(origin))


def _closest(searches: Mapping[int, Arrays], *, share: float) -> tuple[int, int, float]:
    """Size, search and loss of the smallest circuit tried that does a share of what the best one does beyond chance."""
    tried = [
        (int(size), at, float(loss))
        for at, read in searches.items()
        for size, loss in zip(read["sizes"], read["losses"], strict=True)
    ]
    lowest = min(loss for _, _, loss in tried)
    enough = max(lowest, CHANCE - share * (CHANCE - lowest)) if lowest < CHANCE else lowest
    return min(one for one in tried if one[2] <= enough)


_HOW: Final = ("method", "recovered", "pairs", "steps", "batch", "rate", "ablation")
"""Settings that a circuit's file says."""


def save(circuit: UnitCircuit | Circuit, path: Path) -> str:
    """Writes a circuit to its file, one of edges as MIB's JSON; gives its size, and why it is undecided if it is."""
    if isinstance(circuit, UnitCircuit):
        circuit.save(path)
        return f"{circuit.size:,} units. {undecided(circuit)}".strip()
    write_mib(circuit, path)
    return f"{int(circuit.kept.sum()):,} edges, in the JSON of MIB. {undecided(circuit)}".strip()


def marked(path: Path) -> str:
    """Says that a circuit's file is undecided, where it is.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If it is no circuit.
    """
    why = undecided(read_mib(path) if is_mib(path) else load(path))
    return f"{path}: {why}" if why else ""


def undecided(circuit: UnitCircuit | Circuit) -> str:
    """Why a circuit is only the best of what was tried, in capitals first; empty where a search reached its target."""
    origin = circuit if isinstance(circuit, UnitCircuit) else circuit.origin
    return f"UNDECIDED: {origin.undecided}" if origin is not None and origin.undecided else ""


def wanted(asked: dict[str, Scalar], subject: Subject) -> tuple[AuditSpec, ...]:
    """The audits that search for a circuit as asked; what is not said, as fits the size of the model."""
    method = asked.get("method", "masks" if subject.record.parameters <= MASKED else "eap-ig")
    return _specs({"method": method, **({} if method == "masks" else EDGES), **asked})


def _specs(settings: dict[str, Scalar]) -> tuple[AuditSpec, ...]:
    cheap = {} if settings.get("method", "masks") == "masks" else CHEAP
    return tuple(AuditSpec(name, {**cheap, **settings}) for name in AUDITS)


def given(path: Path, subject: Subject, task: BaseTask) -> tuple[AuditSpec, ...]:
    """The audits that judge the circuit in a file, searching for others as it was searched for.

    Args:
        path: A circuit of units, or MIB's JSON of one of edges; of one that others wrote, the model and the task are
            taken on trust, but for the shape of the model, and others are searched for by EAP-IG.
        subject: The model.
        task: The task.

    Raises:
        MissingFile: If there is no such file.
        FileFormatError: If it is no circuit.
        ModelError: If it is a circuit of another model.
        UsageError: If it is one of another task, or of no edges.
    """
    if is_mib(path):
        edges = read_mib(path)
        edges.require_of(subject.record.fingerprint, _graph(subject, task), name=subject.name)
        origin, kept = edges.origin, edges.kept
    else:
        origin = load(path)
        origin.require_model(subject.record.fingerprint, name=subject.name)
        kept = origin.kept
    if not kept.any():
        raise UsageError("The circuit is empty.", where=str(path), expected="one unit or edge that is kept", got="none",
                         do="Mark the edges of it (in_graph), or find one: wheeltap circuits find.")  # fmt: skip
    flags: dict[str, Scalar] = {"circuit": packed(kept)}
    if origin is None:
        return _specs({**_OTHERS, **flags})
    if origin.examples != task.digest:
        raise UsageError("The circuit is of another task.", where=str(path), expected=f"{origin.task} as it was then",
                         got=task.name, do="Give the task that it was found on: --task.")  # fmt: skip
    known = {key: value for key, value in origin.found.items() if key != "seed"}
    return _specs({**known, "group": origin.group, **flags, "searched_here": True})


def _graph(subject: Subject, task: BaseTask) -> EdgeGraph:
    """The edges of a model.

    Raises:
        ModelError: If they are not known, or it cannot read the pairs.
    """
    try:
        return wired(subject, pairs_of(task)).graph
    except (IndexError, RuntimeError) as error:
        raise ModelError("The model cannot read these pairs.", where=subject.name, expected="token ids that it knows",
                         got=f"{type(error).__name__}: {error}"[:120],
                         do="Give pairs in ids of its own tokenizer, or as text.") from error  # fmt: skip


_OTHERS: Final[dict[str, Scalar]] = {"method": "eap-ig", **EDGES}
"""How other circuits are searched for where a file does not say how its own was."""


@final
class SparseNet(NamedTuple):
    """What was trained.

    Attributes:
        nonzero: Weights of its matrices that are not 0.
        loss: Mean over next tokens of sequences held out, nats.
    """

    nonzero: int
    loss: float


def train(asked: "SparseNetSpec", out: Path, *, watch: Watch | None = None) -> SparseNet:
    """Trains the small decoder of the recipe ``sparse``, or a decoder of the user's own; writes it to a file.

    States are kept in the user's cache: broken off, it is taken up again.

    Raises:
        UsageError: If a model is given without data, or data without a model.
        WheeltapError: If it cannot be trained.
    """
    shelf, share = place("circuits"), 1.0 if asked.dense else asked.share
    how: dict[str, Scalar] = {"share": share}
    if asked.steps is not None:
        how["steps"] = asked.steps
    if asked.model is None and asked.data is None:
        spec = base.spec("sparse", {**DENSE, **how} if share == 1.0 else how, seed=asked.seed)
        made = make(base.Given(spec), base.recipe_of(spec), Artifacts(shelf) if shelf else None, watch=watch)
        artifact.save(made.done(f"recipe {spec.recipe}"), spec, out)
    elif asked.model is None or asked.data is None:
        raise UsageError(
            "A decoder of your own is trained on sequences of your own.", where="wheeltap circuits train",
            expected="--model module:callable and --data FILE.npz, or neither",
            got="--data alone" if asked.model is None else "--model alone",
        )  # fmt: skip
    else:
        model, tokens = load_model(asked.model).model, load_sequences(asked.data)
        made = sparsified(model, tokens, how, seed=asked.seed, folder=shelf, watch=watch)
        artifact.save_weights(made.done(f"{asked.model}"), out)
    return SparseNet(int(made.report["nonzero"][0]), float(made.report["validation"][-1]))


def task(name: str | Path, tokenizer: Tokenizer | None = None) -> ChoiceTask:
    """A task of pairs.

    Args:
        name: ``quote`` or another generated task; ``agreement``; or a ``.jsonl`` file, an object a line with ``clean``,
            ``corrupted``, ``answer`` and ``wrong``, as text or token ids.
        tokenizer: Of the model, where pairs are text.

    Raises:
        WheeltapError: If there is no such task or file, or a line of it is no pair; it is named by its number.
    """
    return source.PairData().load(str(name), ExampleReader(tokenizer))


@final
@dataclass(frozen=True)
class CircuitSearchResult:
    """What a search found.

    Attributes:
        report: What the audits say of it: sufficient, necessary, better than its nulls, stable.
        circuit: Of units, or of edges between heads and MLPs; ``None`` where the model cannot do the task. Where no
            search reached the target it is the best that was tried: see ``undecided``.
    """

    report: Report
    circuit: UnitCircuit | Circuit | None

    @property
    def undecided(self) -> str:
        """Why the circuit is only the best of what was tried; empty where a search reached the target."""
        return "" if self.circuit is None else undecided(self.circuit)

    def _repr_html_(self) -> str:
        return self.report._repr_html_()  # pyright: ignore[reportPrivateUsage] - as notebooks call it

    def save(self, path: str | Path) -> Path:
        """Writes the circuit to a file, one of edges as MIB's JSON.

        Raises:
            ValueError: If there is none.
        """
        if self.circuit is None:
            raise ValueError("the model cannot do the task: there is no circuit")
        save(self.circuit, Path(path))
        return Path(path)


def find(
    model: Model,
    task: BaseTask,
    *,
    store: str | Path | None = None,
    seed: int = 0,
    workers: int | RayCluster = 1,
    **settings: Scalar,
) -> CircuitSearchResult:
    """Searches for a small circuit that does a task, and judges it.

    Args:
        model: A decoder, in eval mode; it comes back bit-identical.
        task: Of pairs.
        store: File that keeps every outcome; the same call resumes. In a temporary file if not given.
        seed: Root of every draw.
        workers: Processes; 1 runs in this one. Or a Ray cluster.
        settings: ``method``, ``target`` (nats), ``pairs``, ``penalties``, ``steps``, ``ablation``, and all others of
            ``audits.common.CircuitAuditSettings``.

    Raises:
        WheeltapError: If the model's units (edges) are not known, or the task has no pairs.
    """
    (own,) = subjects_of(model)
    made = plan([own], task, audits=wanted(settings, own), seed=seed)
    with _place(store) as place:
        report = run(made, [own], task, store=place, workers=workers)
        return CircuitSearchResult(report, found(made, own, task, place))


def check(
    model: Model, task: BaseTask, circuit: str | Path, *, store: str | Path | None = None, seed: int = 0,
    workers: int | RayCluster = 1,
) -> Report:  # fmt: skip
    """Judges the circuit in a file: of ``find``, or MIB's JSON of edges by any program; see ``find``.

    Raises:
        WheeltapError: If it is no circuit, or one of another model or task.
    """
    (own,) = subjects_of(model)
    made = plan([own], task, audits=given(Path(circuit), own, task), seed=seed)
    with _place(store) as place:
        return run(made, [own], task, store=place, workers=workers)


@contextmanager
def _place(store: str | Path | None) -> Generator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "circuits.wheeltap" if store is None else Path(store)
