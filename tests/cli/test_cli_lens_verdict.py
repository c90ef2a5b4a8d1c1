"""What ``wheeltap lens`` concludes: its exit code, its words, and nothing about networks."""

import json
from pathlib import Path

from wheeltap.cli import main


def log(path: Path, right: str, *, samples: int = 1) -> str:
    """Answers to each item, right where there is a 1."""
    rows = [
        {"id": f"item {at}", "sample": sample, "correct": one == "1"}
        for at, one in enumerate(right)
        for sample in range(samples)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_gate_fails_only_where_the_second_is_worse_or_nothing_is_known(tmp_path: Path) -> None:
    good, bad = log(tmp_path / "good.jsonl", "1" * 50), log(tmp_path / "bad.jsonl", "0" * 50)
    few = [log(tmp_path / f"{name}.jsonl", "10110") for name in ("a", "b")]
    one, two = log(tmp_path / "one.jsonl", "1" * 100), log(tmp_path / "two.jsonl", "1" * 94 + "0" * 6)
    three = log(tmp_path / "three.jsonl", "1" * 97 + "000")  # a difference too small after correction: it leans
    for files, level, code in (
        ((good, bad), "costs", 1), ((bad, good), "costs", 0), (few, "costs", 0), (few, "may-cost", 0),
        (few, "cannot-tell", 1), ((one, three, two), "costs", 0), ((one, three, two), "may-cost", 1),
        ((two, three, one), "costs", 0), ((two, three, one), "may-cost", 0),
    ):  # fmt: skip
        assert main(["lens", *files, "--quiet", "--fail-on", level]) == code, (files, level)
