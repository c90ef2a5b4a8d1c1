"""Groups in files of examples: fields that are ids, and columns named on the command line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wheeltap.cli import main
from wheeltap.core.errors import DataError, FileFormatError, UsageError
from wheeltap.core.task import BaseTask
from wheeltap.sources import load_task


def lines_of(path: Path, **fields: Sequence[object]) -> Path:
    """120 prompts with token ids that share nothing, and these fields."""
    tokens = np.random.default_rng(0).integers(10_000, size=(120, 12)).tolist()
    rows = [
        {"prompt": row, "answer": [at % 7], **{name: values[at] for name, values in fields.items()}}
        for at, row in enumerate(tokens)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def of_size(size: int) -> list[int]:
    return [at // size for at in range(120)]


def clusters_of(task: BaseTask) -> int | None:
    return None if task.clusters is None else len(np.unique(task.clusters.numpy()))


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"patient": [f"p{at}" for at in of_size(5)]}, 24),
        ({"doc_id": of_size(4), "id": of_size(1)}, 30),
        ({"age": of_size(4)}, None),
        ({"id": of_size(1)}, None),
        ({"case": [at % 4 for at in range(120)]}, None),
        ({"patient": [None, *of_size(5)[1:]]}, None),
    ],
)
def test_a_field_that_is_an_id_and_repeats_gives_the_groups(
    fields: dict[str, Sequence[object]], count: int | None, tmp_path: Path
) -> None:
    task = load_task(f"generate:{lines_of(tmp_path / 'data.jsonl', **fields)}")
    assert clusters_of(task) == count and (task.record.found is None) == (count is None)


def test_groups_of_lines_win_over_ids(tmp_path: Path) -> None:
    path = lines_of(tmp_path / "data.jsonl", group=of_size(2), patient=of_size(5))
    task = load_task(f"generate:{path}")
    assert clusters_of(task) == 60 and task.record.found is None


def test_a_column_is_named_as_groups(tmp_path: Path) -> None:
    path = lines_of(tmp_path / "data.jsonl", ward=[f"w{at}" for at in of_size(12)], patient=of_size(5))
    task = load_task(f"generate:{path},groups=ward")
    assert clusters_of(task) == 10 and task.record.found is None
    with pytest.raises(DataError, match="have a bed and some have none"):
        load_task(f"generate:{path},groups=bed")
    arrays: dict[str, Any] = {"inputs": np.random.default_rng(1).normal(size=(60, 4)), "targets": np.arange(60) % 3}
    np.savez(tmp_path / "data.npz", **arrays, ward=[f"w{at // 6}" for at in range(60)], groups=np.arange(60))
    assert clusters_of(load_task(f"{tmp_path / 'data.npz'},groups=ward")) == 10
    with pytest.raises(FileFormatError, match="no array 'bed'"):
        load_task(f"{tmp_path / 'data.npz'},groups=bed")
    with pytest.raises(UsageError, match="no columns"):
        load_task("digits,groups=ward")


def test_the_flag_declares_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(2)
    arrays: dict[str, Any] = {"inputs": rng.uniform(size=(200, 64)).astype(np.float32), "targets": np.arange(200) % 10}
    np.savez(tmp_path / "data.npz", **arrays, ward=np.arange(200) // 8)
    asked = ["audit", "digits", "--data", str(tmp_path / "data.npz"), "--for", "int8"]
    main(asked)
    assert "declare others: --groups COLUMN" in " ".join(capsys.readouterr().out.split())
    main([*asked, "--groups", "ward"])
    text = " ".join(capsys.readouterr().out.split())
    assert "in 25 groups" in text and "Assumes independent" not in text
    assert main(["audit", "digits", "--groups", "ward"]) == 2
