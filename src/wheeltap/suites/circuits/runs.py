"""Circuits from a spec on: nets that are trained for them, and the circuit that a finished run judged, as a file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.base import Case, Unanswered, create
from wheeltap.audits.case import Arrays
from wheeltap.core.canon import Scalar
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.records import Trial
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.plans.artifacts import Artifacts
from wheeltap.plans.outcomes import Outcomes
from wheeltap.plans.plan import AuditSpec, Plan
from wheeltap.plans.store import Store
from wheeltap.recipes import base, once
from wheeltap.recipes.make import Watch, make
from wheeltap.sources import artifact
from wheeltap.sources.arrays import load_sequences
from wheeltap.sources.specs import load_model
from wheeltap.suites.circuits.audits.common import CircuitAudit
from wheeltap.suites.circuits.audits.read import CHANCE
from wheeltap.suites.circuits.edge_circuit import Circuit, Graph
from wheeltap.suites.circuits.engine.asking import pairs_of
from wheeltap.suites.circuits.engine.edge_asking import wired
from wheeltap.suites.circuits.engine.units import UnitNet
from wheeltap.suites.circuits.file import is_mib, read_mib, write_mib
from wheeltap.suites.circuits.origin import Origin
from wheeltap.suites.circuits.recipes.sparse import DENSE
from wheeltap.suites.circuits.recipes.sparsified import sparsified
from wheeltap.suites.circuits.unit_circuit import FORMAT, UnitCircuit, load, of_units, packed

LARGE: Final = 5_000_000
"""Weights from which on edges are searched by default: masks over units would take hours."""

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
        searches = {at: read for at, trial in enumerate(trials) if (read := _read(case, trial)) is not None}
    if not searches or audit.unable(next(iter(searches.values()))):
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
        return _of_edges(searches[at], kept, origin)
    net = UnitNet(subject.model, next(iter(pairs_of(task).batches())).clean)
    sites = of_units(kept, tuple((site.name, site.units) for site in net.sites))
    return UnitCircuit(format=FORMAT, sites=sites, **msgspec.structs.asdict(origin))


def _read(case: Case, trial: Trial) -> Arrays | None:
    try:
        return case.reading(trial)
    except Unanswered:
        return None


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


def _of_edges(search: Arrays, kept: NDArray[np.bool_], origin: Origin) -> Circuit:
    graph, every = Graph.of_numbers(search["decoder"]), np.ones(len(kept), bool)
    return Circuit(graph, search["score"].astype(np.float64), kept, graph.touched(kept), every, origin=origin)


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
    method = asked.get("method", "masks" if subject.record.parameters <= LARGE else "eap-ig")
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


def _graph(subject: Subject, task: BaseTask) -> Graph:
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
@dataclass(frozen=True, kw_only=True)
class Training:
    """What is trained.

    Attributes:
        share: Of each matrix, weights that are not 0.
        steps: Batches in all; as many as the recipe takes where ``None``.
        seed: Of weights and order.
    """

    share: float = 0.05
    steps: int | None = None
    seed: int = 0


@final
@dataclass(frozen=True)
class Trained:
    """What was trained.

    Attributes:
        nonzero: Weights of its matrices that are not 0.
        loss: Mean over next tokens of sequences held out, nats.
    """

    nonzero: int
    loss: float


def train(
    asked: Training, out: Path, *, model: str | None = None, data: Path | None = None, watch: Watch | None = None
) -> Trained:
    """Trains the small decoder of the recipe ``sparse``, or a decoder of the user's own; writes it to a file.

    States are kept in the user's cache: broken off, it is taken up again.

    Raises:
        UsageError: If a model is given without data, or data without a model.
        WheeltapError: If it cannot be trained.
    """
    shelf = once.place("circuits")
    if model is None and data is None:
        settings: dict[str, Scalar] = dict(DENSE) if asked.share == 1.0 else {"share": asked.share}
        spec = base.spec("sparse", settings | ({} if asked.steps is None else {"steps": asked.steps}), seed=asked.seed)
        made = make(base.Given(spec), base.recipe_of(spec), Artifacts(shelf) if shelf else None, watch=watch)
        artifact.save(made.done(f"recipe {spec.recipe}"), spec, out)
    elif model is None or data is None:
        raise UsageError(
            "A decoder of your own is trained on sequences of your own.", where="wheeltap circuits train",
            expected="--model module:callable and --data FILE.npz, or neither",
            got="--data alone" if model is None else "--model alone",
        )  # fmt: skip
    else:
        how: dict[str, Scalar] = {"share": asked.share, "embedding_share": asked.share**0.5}
        how |= {} if asked.steps is None else {"steps": asked.steps}
        made = sparsified(
            load_model(model).model, load_sequences(data), how, seed=asked.seed, folder=shelf, watch=watch
        )
        artifact.save_weights(made.done(f"{model}"), out)
    return Trained(int(made.report["nonzero"][0]), float(made.report["validation"][-1]))
