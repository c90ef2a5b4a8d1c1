"""Circuits found, checked and trained, ``wt.circuits``, as ``wheeltap circuits`` does on the command line.

For example: ``task = wt.circuits.task("pairs.jsonl")``, ``found = wt.circuits.find(net, task, target=0.2)``,
``found.report.html("report.html")``, ``found.save("circuit.json")``, ``wt.circuits.check(net, task, "circuit.json")``.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, final

import msgspec
import numpy as np

from wheeltap.audits.base import Case, create
from wheeltap.audits.case import Arrays
from wheeltap.core.canon import Scalar
from wheeltap.core.choices import ChoiceTask, Tokenizer
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.settings import require
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
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
from wheeltap.sources.base import ExampleReader
from wheeltap.suites.circuits import sources as source
from wheeltap.suites.circuits.audits.common import CircuitAudit, unable
from wheeltap.suites.circuits.audits.view import answer
from wheeltap.suites.circuits.circuit import (
    FORMAT,
    Circuit,
    EdgeGraph,
    KeptUnits,
    Origin,
    UnitCircuit,
    packed,
    read,
    write_mib,
)
from wheeltap.suites.circuits.engine.ablation import pairs_of, wired
from wheeltap.suites.circuits.engine.units import UnitNet
from wheeltap.suites.circuits.specs import CHANCE, DENSE_TRAINING

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
        return Circuit(graph, kept, scores, origin)
    net = UnitNet(subject.model, next(pairs_of(task).batches()).clean)
    sites = tuple(
        KeptUnits(site=site.name, units=site.units, kept=tuple(np.flatnonzero(kept[net.slices[site.name]]).tolist()))
        for site in net.sites
    )
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
        noun = "units"
    else:
        write_mib(circuit, path)
        noun = "edges, in the JSON of MIB"
    return f"{circuit.size:,} {noun}. {undecided(circuit)}".strip()


def selection_note(path: Path) -> str:
    """Says that a circuit's file is undecided, where it is."""
    why = undecided(read(path))
    return f"{path}: {why}" if why else ""


def undecided(circuit: UnitCircuit | Circuit) -> str:
    """Why a circuit is only the best of what was tried, in capitals first; empty where a search reached its target."""
    origin = circuit.origin
    return f"UNDECIDED: {origin.undecided}" if origin is not None and origin.undecided else ""


def search_audits(asked: Mapping[str, Scalar], subject: Subject) -> tuple[AuditSpec, ...]:
    """The audits that search for a circuit as asked; what is not said, as fits the size of the model."""
    method = asked.get("method", "masks" if subject.record.parameters <= MASKED else "eap-ig")
    return _specs({"method": method, **({} if method == "masks" else EDGES), **asked})


def _specs(settings: dict[str, Scalar]) -> tuple[AuditSpec, ...]:
    cheap = {} if settings.get("method", "masks") == "masks" else CHEAP
    return tuple(AuditSpec(name, {**cheap, **settings}) for name in AUDITS)


def file_audits(path: Path, subject: Subject, task: BaseTask) -> tuple[AuditSpec, ...]:
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
    circuit = read(path)
    if isinstance(circuit, Circuit):
        circuit.require_of(subject.record.fingerprint, _graph(subject, task), name=subject.name)
    else:
        circuit.require_model(subject.record.fingerprint, name=subject.name)
    if not circuit.size:
        raise UsageError("The circuit is empty.", where=str(path), expected="one unit or edge that is kept", got="none",
                         do="Mark the edges of it (in_graph), or find one: wheeltap circuits find.")  # fmt: skip
    origin, flags = circuit.origin, {"circuit": packed(circuit.kept)}
    if origin is None:  # how it was searched for is not known
        return _specs({"method": "eap-ig", **EDGES, **flags})
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


@final
class SparseNet(NamedTuple):
    """What was trained.

    Attributes:
        nonzero: Weights of its matrices that are not 0.
        loss: Mean over next tokens of sequences held out, nats.
    """

    nonzero: int
    loss: float


def train(
    path: str | Path, *, share: float = 0.05, dense: bool = False, steps: int | None = None, seed: int = 0,
    watch: Watch | None = None,
) -> SparseNet:  # fmt: skip
    """Train the small decoder of the recipe ``sparse`` and write it to a file.

    States are kept in the user's cache, so an interrupted call is resumed by the same call.

    Args:
        path: Of the file, ``.safetensors``.
        share: Of each matrix, weights that are not 0.
        dense: Whether its twin of equal loss is trained, with all weights.
        steps: Batches in all; by default what the two nets need.
        seed: Of weights and order.
        watch: Called with the steps taken and the steps in all.

    Raises:
        WheeltapError: If it cannot be trained or written.
    """
    require(dense, bool, of="dense")
    settings: dict[str, Scalar] = {**DENSE_TRAINING} if dense or share == 1.0 else {"share": share}
    if steps is not None:
        settings["steps"] = steps
    spec, cache = base.spec("sparse", settings, seed=seed), place("circuits")
    made = make(base.Given(spec), base.recipe_of(spec), Artifacts(cache) if cache else None, watch=watch)
    artifact.save(made.done(f"recipe {spec.recipe}"), spec, Path(path))
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
    made = plan([own], task, audits=search_audits(settings, own), seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        outcomes = Path(folder) / "circuits.wheeltap" if store is None else Path(store)
        report = run(made, [own], task, store=outcomes, workers=workers)
        return CircuitSearchResult(report, found(made, own, task, outcomes))


def check(
    model: Model, task: BaseTask, circuit: str | Path, *, store: str | Path | None = None, seed: int = 0,
    workers: int | RayCluster = 1,
) -> Report:  # fmt: skip
    """Judges the circuit in a file: of ``find``, or MIB's JSON of edges by any program; see ``find``.

    Raises:
        WheeltapError: If it is no circuit, or one of another model or task.
    """
    (own,) = subjects_of(model)
    made = plan([own], task, audits=file_audits(Path(circuit), own, task), seed=seed)
    return run(made, [own], task, store=store, workers=workers)
