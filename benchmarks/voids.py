"""How often a sound run is void, by family of the zoo: every control that failed is named.

``python -m benchmarks.voids --families gemma2,qwen2 --draws 4,8 --seeds 10``
"""

import argparse
from collections import Counter
from collections.abc import Iterator

import msgspec
import torch
from scipy import stats

import wheeltap as wt
from benchmarks.nets import zoo
from wheeltap.core.report import ReportRecord

AUDITS = ("score", "deployment", "relative-noise", "function-noise", "redundancy", "entanglement")
"""All that have a control that may fail and that fit every family."""


def runs(family: str, *, draws: int, seeds: int, dtype: torch.dtype) -> Iterator[ReportRecord]:
    """Sound audits of one member, each with a seed and control copies of its own; without graded copies."""
    case = zoo.made(family, dtype=dtype)
    effort = wt.Effort(draws=draws, control_draws=draws, block_draws=0)
    for seed in range(seeds):
        plan = wt.plan(case.subject, case.task, audits=AUDITS, effort=effort, seed=seed)
        yield wt.run(msgspec.structs.replace(plan, graded=()), case.subject, case.task).record


def row(family: str, *, draws: int, seeds: int, dtype: torch.dtype) -> tuple[int, int]:
    """Prints one line, and one for each control that failed; void runs and runs."""
    tally, failed, void = Counter[tuple[str, str]](), list[str](), 0
    for seed, record in enumerate(runs(family, draws=draws, seeds=seeds, dtype=dtype)):
        void += record.void
        for control in record.controls:
            tally[control.name, control.status] += 1
            if control.status == "failed":
                failed.append(f"    seed {seed}, {control.name}: {control.because}")
    shown = ("WT101 planted cancelling units", "WT101 reparametrized copy", "WT102 reparametrized copy")
    passed = ", ".join(f"{name[:13]} {tally[name, 'passed']}" for name in shown)
    print(f"{family:12} {draws:3} draws: void {void} of {seeds}; passed: {passed}", *failed, sep="\n", flush=True)
    return void, seeds


def main() -> None:
    """Runs the families asked for, and sums up."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.voids", description=__doc__)
    parser.add_argument("--families", default=",".join(zoo.names()), help="with commas between [all]")
    parser.add_argument("--draws", default="4,8", help="draws a dose, of subjects and controls [4,8]")
    parser.add_argument("--seeds", type=int, default=5, help="runs of each [5]")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    given = parser.parse_args()
    torch.set_num_threads(1)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[given.dtype]
    counts = [
        row(family, draws=int(draws), seeds=given.seeds, dtype=dtype)
        for family in given.families.split(",")
        for draws in given.draws.split(",")
    ]
    void, count = (sum(some) for some in zip(*counts, strict=True))
    ends = stats.binomtest(void, count).proportion_ci()
    print(f"void {void} of {count}: {void / count:.2%} [{ends.low:.2%}, {ends.high:.2%}]")


if __name__ == "__main__":
    main()
