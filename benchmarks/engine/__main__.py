"""``python -m benchmarks.engine``: measures what disturbed evaluations cost, in clean forwards on the same batch."""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.engine import ours, rivals, timing
from benchmarks.engine.timing import Row


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine", description=__doc__)
    parser.add_argument("--json", type=Path, help="file for [{name, ratio, ...}]")
    parser.add_argument("--repeats", type=int, default=5, help="of each measurement [5]")
    parser.add_argument("--device", default="cpu", help="where the nets are: cpu, cuda [cpu]")
    parser.add_argument("--only", default="", help="parts, with commas between them (ours and rivals')")
    return parser.parse_args()


def main() -> None:
    """Prints the table as it grows, and writes the file."""
    given = _arguments()
    torch.set_num_threads(1)
    timing.DEVICE = torch.device(given.device)
    only = {part for part in given.only.split(",") if part}
    found: list[Row] = []
    card = f" and {torch.cuda.get_device_name()}" if timing.DEVICE.type == "cuda" else ""
    unit = "seconds by the clock" if card else "CPU seconds"
    print(f"torch {torch.__version__}, one thread{card}; x = {unit} of one clean forward on the same batch\n")
    print("| name | x | of repeats | bar | path | distribution | what |\n|---|---|---|---|---|---|---|")
    for row in _all(given.repeats, only):
        found.append(row)
        print(_line(row), flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in found if row.ratio is not None], indent=1) + "\n")
    missed = [row.name for row in found if row.ratio is not None and row.bar is not None and row.ratio > row.bar]
    print(f"\nOver the bar: {', '.join(missed) or 'none'}")


def _all(repeats: int, only: set[str]) -> Iterator[Row]:
    yield from ours.rows(repeats, only)
    yield from rivals.rows(repeats, only)


def _line(row: Row) -> str:
    if row.ratio is None or row.low is None or row.high is None:
        return f"| {row.name} | not run | | | {row.path} | {row.distribution} | {row.what}: {row.note} |"
    bar = "" if row.bar is None else f"{row.bar:g}" + ("" if row.ratio <= row.bar else " **missed**")
    span = f"{row.low:.3g} to {row.high:.3g} ({row.repeats})"
    note = f"; {row.note}" if row.note else ""
    return f"| {row.name} | {row.ratio:.3g} | {span} | {bar} | {row.path} | {row.distribution} | {row.what}{note} |"


if __name__ == "__main__":
    main()
