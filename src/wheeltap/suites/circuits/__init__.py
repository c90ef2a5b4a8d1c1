"""Circuits: which units or edges of a decoder do a task, and is that account of it true? ``wt.circuits``.

    task = wt.circuits.task("pairs.jsonl")
    found = wt.circuits.find(net, task, target=0.2)
    found.save("circuit.json")
    wt.circuits.check(net, task, "circuit.json")

In reading order: ``runs`` (find, check, train), ``pairs`` (prompts that differ in one point) and ``sources`` (where
they come from), ``circuit`` (what a circuit is, in a file), ``specs``, ``engine`` and ``readings`` (ablating, scoring),
``recipes`` and ``nets`` (searching, and sparse decoders), ``audits`` (WT301 to WT304, and what is shown),
``stats``, ``studies``, ``cli``.
"""

from typing import TYPE_CHECKING

from wheeltap.core.lazy import lazy

if TYPE_CHECKING:
    from wheeltap.suites.circuits.runs import CircuitSearchResult, SparseNet, check, find, task, train

__all__ = ["CircuitSearchResult", "SparseNet", "check", "find", "task", "train"]

__getattr__ = lazy(
    __name__,
    {
        "CircuitSearchResult": "runs",
        "check": "runs", "find": "runs", "task": "runs", "SparseNet": "runs", "train": "runs",
    },
)  # fmt: skip
