"""A scorer of inspect that writes our own rows beside its log. Needs inspect-ai."""

import importlib
from pathlib import Path
from typing import Any

import msgspec

from wheeltap.core.errors import UsageError
from wheeltap.sources.hf import library
from wheeltap.suites.lens.recorded.inspect_logs import graded_as, number_of


def inspect_scorer(path: str | Path) -> Any:
    """A scorer that adds a row to a file for each sample, with what the first scorer gave; it gives nothing itself.

        Task(dataset=dataset, scorer=[match(), wt.lens.inspect_scorer("base.jsonl")])

    Args:
        path: JSON lines for ``wheeltap lens`` and ``wheeltap compare``, in the end: ``id``, ``system`` (the model),
            ``sample`` (the epoch), ``correct``, ``answer``, ``prompt``, and ``group`` where the sample's metadata have
            one.

    Raises:
        MissingExtra: If inspect-ai is not installed.
        UsageError: If the file is there: rows of two runs would be taken for one.
    """
    library("inspect_ai", needed_for="wt.lens.inspect_scorer", extra="inspect")
    file = Path(path)
    if file.exists():
        raise UsageError(
            "The file of rows is there already, and was left as it is.", where=str(file),
            expected="no file at this path", got="a file", do="Give each run a file of its own.",
        )  # fmt: skip

    async def score(state: Any, _target: Any) -> None:
        scores: dict[str, Any] = state.scores or {}  # inspect puts in what earlier scorers gave
        first: Any = next(iter(scores.values()), None)
        where = f"sample {state.sample_id}, epoch {state.epoch}"
        row: dict[str, Any] = {
            "id": str(state.sample_id), "system": str(state.model), "sample": state.epoch,
            "correct": None if first is None else number_of(graded_as(first.value), where=where),
            "answer": None if first is None else first.answer, "prompt": state.input_text,
        }  # fmt: skip
        row |= {"group": str(state.metadata["group"])} if "group" in state.metadata else {}
        with file.open("ab") as rows:
            rows.write(msgspec.json.encode(row) + b"\n")

    made: Any = importlib.import_module("inspect_ai.scorer").scorer(metrics=[], name="wheeltap_rows")
    return made(lambda: score)()
