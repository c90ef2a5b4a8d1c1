"""Circuits from Python, ``wt.circuits``: found, checked and trained as ``wheeltap circuits`` does on the command line.

For example: ``task = wt.circuits.task("pairs.jsonl")``, ``found = wt.circuits.find(net, task, target=0.2)``,
``found.report.html("report.html")``, ``found.save("circuit.json")``, ``wt.circuits.check(net, task, "circuit.json")``.
"""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

from wheeltap.core.canon import Scalar
from wheeltap.core.choices import ChoiceTask, Tokenizer
from wheeltap.core.task import BaseTask
from wheeltap.report.report import Report
from wheeltap.runs.given import Model, subjects_of
from wheeltap.runs.loop import run
from wheeltap.runs.planning import plan
from wheeltap.sources.base import ExampleReader
from wheeltap.suites.circuits import runs
from wheeltap.suites.circuits import sources as source
from wheeltap.suites.circuits.circuit import Circuit, UnitCircuit


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
        return "" if self.circuit is None else runs.undecided(self.circuit)

    def save(self, path: str | Path) -> Path:
        """Writes the circuit to a file, one of edges as MIB's JSON.

        Raises:
            ValueError: If there is none.
        """
        if self.circuit is None:
            raise ValueError("the model cannot do the task: there is no circuit")
        runs.save(self.circuit, Path(path))
        return Path(path)


def find(
    model: Model,
    task: BaseTask,
    *,
    store: str | Path | None = None,
    seed: int = 0,
    workers: int = 1,
    **settings: Scalar,
) -> CircuitSearchResult:
    """Searches for a small circuit that does a task, and judges it.

    Args:
        model: A decoder, in eval mode; it comes back bit-identical.
        task: Of pairs.
        store: File that keeps every outcome; the same call resumes. In a temporary file if not given.
        seed: Root of every draw.
        workers: Processes; 1 runs in this one.
        settings: ``method``, ``target`` (nats), ``pairs``, ``penalties``, ``steps``, ``ablation``, and all others of
            ``audits.common.CircuitAuditSettings``.

    Raises:
        WheeltapError: If the model's units (edges) are not known, or the task has no pairs.
    """
    (own,) = subjects_of(model)
    made = plan([own], task, audits=runs.wanted(settings, own), seed=seed)
    with _place(store) as place:
        report = run(made, [own], task, store=place, workers=workers)
        return CircuitSearchResult(report, runs.found(made, own, task, place))


def check(
    model: Model, task: BaseTask, circuit: str | Path, *, store: str | Path | None = None, seed: int = 0,
    workers: int = 1,
) -> Report:  # fmt: skip
    """Judges the circuit in a file: of ``find``, or MIB's JSON of edges by any program; see ``find``.

    Raises:
        WheeltapError: If it is no circuit, or one of another model or task.
    """
    (own,) = subjects_of(model)
    made = plan([own], task, audits=runs.given(Path(circuit), own, task), seed=seed)
    with _place(store) as place:
        return run(made, [own], task, store=place, workers=workers)


@contextmanager
def _place(store: str | Path | None) -> Generator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "circuits.wheeltap" if store is None else Path(store)
