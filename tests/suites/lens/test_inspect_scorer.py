"""The scorer of inspect: its rows say what the log of the same run says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import wheeltap as wt
from wheeltap.core.errors import UsageError
from wheeltap.suites.lens.recorded import inspect_logs, own

RUN = """
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput
from inspect_ai.scorer import includes, match
from inspect_ai.solver import solver
import wheeltap as wt

samples = [Sample(input=f"Is {n} even?", target="yes" if n % 2 == 0 else "no", id=n, metadata={"group": n // 2})
           for n in range(4)]


@solver
def says():
    async def solve(state, generate):
        said = "yes" if (state.sample_id + state.epoch) % 3 else "no"
        state.output = ModelOutput.from_content("mockllm/model", said)
        return state

    return solve


scorers = [match(), includes(), wt.lens.inspect_scorer("rows.jsonl")]
task = Task(dataset=samples, solver=says(), scorer=scorers, epochs=2)
(log,) = eval(task, model="mockllm/model", log_dir=".", log_format="json", display="none")
assert log.status == "success", log.error.message
"""


def test_rows_are_those_of_the_log(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai", reason="needs inspect-ai")
    done = subprocess.run([sys.executable, "-c", RUN], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 8 and {row["group"] for row in rows} == {"0", "1"}
    assert {row["correct"] for row in rows} == {0.0, 1.0} and rows[0]["prompt"].startswith("Is ")
    (log,) = tmp_path.glob("*.json")
    ours, theirs = own.read(tmp_path / "rows.jsonl"), inspect_logs.read(log)
    ((mine,), (logged,)) = ours.systems, theirs.systems
    assert mine.name == logged.name == "mockllm/model"
    assert mine.right is not None and logged.right is not None
    held = [dict(zip(one.items, zip(said.right, said.samples, strict=True), strict=True))
            for one, said in ((ours, mine), (theirs, logged))]  # fmt: skip
    assert held[0] == held[1] and {count for _, count in held[0].values()} == {2}
    assert {right for right, _ in held[0].values()} > {1} and set(ours.groups) == set(theirs.groups) == {"0", "1"}
    with pytest.raises(UsageError, match="left as it is"):
        wt.lens.inspect_scorer(tmp_path / "rows.jsonl")
