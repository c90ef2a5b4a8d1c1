"""``python -m benchmarks.relearning``: measures ten nets, in each of which something else was forgotten; prints tables.

``digits``: each net forgot another digit; three step sizes and three ways of unlearning. ``rules``: transformers that
forgot one of three rules of reading; 4 and 32 shots.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks.nets.unlearned import RULES, Strength, Unlearning, unlearned_digits, unlearned_rules
from wheeltap import api
from wheeltap.core.records import Estimate
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.plans.plan import AuditSpec
from wheeltap.runs import loop
from wheeltap.stats.effect import score_interval

Numbers = dict[str, Any]

RATES = (3e-4, 1e-3, 3e-3)
UNLEARNINGS: dict[str, dict[str, Any]] = {
    "as shipped": {},
    "without repair": {"repair": 0},
    "harsher": {"rate": 1e-3, "weight": 1.0, "repair": 300},
}
SHOTS = (4, 32)
PAIR, NULL, LAST = "unlearned vs retrained", "retrained vs never", "gap after 16 steps"


def _run(subjects: list[Subject], task: BaseTask, store: Path, *, seed: int, **settings: Any) -> Numbers:
    """Status and estimates of every finding, by subject or pair."""
    spec = AuditSpec(name="relearning", settings=settings)
    plan = api.plan(subjects, task, audits=["score", spec], seed=seed)
    plan = msgspec.structs.replace(plan, twin=None, planted=None, graded=())
    report = loop.run(plan, subjects, task, store=store)
    return {
        finding.subject: {"status": finding.status, **{e.name: [e.value, e.low, e.high] for e in finding.estimates}}
        for finding in report["WT107"]
    }


def _digits(seed: int, store: Path) -> Numbers:
    """One net, with another digit forgotten than the others."""
    group = (9 - seed) % 10
    found: Numbers = {"group": group, "strength": {}, "runs": {}}
    for label, how in UNLEARNINGS.items():
        case = unlearned_digits(group, seed=seed, how=Unlearning(seed=seed, **how))
        found["strength"][label] = _strength(case.strength)
        nets = [case.unlearned, case.retrained]
        found["runs"][label] = _run(nets, case.task, store, seed=seed, group=group)
    case = unlearned_digits(group, seed=seed, how=Unlearning(seed=seed))
    for rate in RATES:
        nets = [case.unlearned, case.retrained, case.never]
        found["runs"][f"step size {rate:g}"] = _run(nets, case.task, store, seed=seed, group=group, lr=rate)
    null = [case.retrained, case.never]
    found["null"] = _run(null, case.task, store, seed=seed, group=group)
    return found


def _rules(seed: int, store: Path) -> Numbers:
    """One transformer, with one of three rules forgotten."""
    group = seed % len(RULES)
    case = unlearned_rules(group, seed=seed)
    few: Numbers = {"group": group, "steps": [4, 16], "benign_steps": [16]}
    found: Numbers = {"group": group, "strength": {"as shipped": _strength(case.strength)}, "runs": {}}
    for shots in SHOTS:
        nets = [case.unlearned, case.retrained, case.never]
        found["runs"][f"{shots} shots"] = _run(nets, case.task, store, seed=seed, shots=shots, **few)
    null = [case.retrained, case.never]
    found["null"] = _run(null, case.task, store, seed=seed, shots=SHOTS[-1], **few)
    return found


def _strength(strength: Strength) -> Numbers:
    return {name: getattr(strength, name) for name in strength.__dataclass_fields__}


TASKS: dict[str, tuple[Callable[[int, Path], Numbers], str]] = {
    "digits": (_digits, "as shipped"),
    "rules": (_rules, "32 shots"),
}
"""What is measured, and which of its runs the table of single nets shows."""


def _row(label: str, values: list[float]) -> str:
    """Mean over nets with Student's interval, and the range."""
    mean: Estimate = score_interval(np.array(values), bounded=False, unit="share")
    return f"| {label} | {mean} | {min(values):.3f} to {max(values):.3f} |"


def tables(known: list[Numbers], shown: str) -> str:
    """Each net, then means over nets."""
    lines = [
        "| forgotten | distance | retained / retrained | gap after 16 steps | gap, best noise | gap, 4 bits | status |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for net in known:
        how, pair = net["strength"]["as shipped"], net["runs"][shown][PAIR]
        spans = [_span(pair[name]) for name in (LAST, "gap under noise, best of 40", "gap at 4 bits")]
        kept = f"{how['retained']:.3f} / {how['expected']:.3f}"
        lines.append(f"| {net['group']} | {how['distance']:.3f} | {kept} | {' | '.join(spans)} | {pair['status']} |")
    lines += ["", f"| mean over {len(known)} nets | with 95 % interval | range |", "|---|---|---|"]
    for name in (name for name in known[0]["runs"][shown][PAIR] if name.startswith("gap")):
        lines.append(_row(f"{shown}: {name}", [net["runs"][shown][PAIR][name][0] for net in known]))
    for label in known[0]["strength"]:
        made = [net["strength"][label] for net in known]
        lines.append(_row(f"{label}: distance", [m["distance"] for m in made]))
        lines.append(_row(f"{label}: retained less retrained", [m["retained"] - m["expected"] for m in made]))
    for label in known[0]["runs"]:
        runs = [net["runs"][label] for net in known]
        lines.append(_row(f"{label}: {LAST}", [run[PAIR][LAST][0] for run in runs if LAST in run[PAIR]]))
        lines.append(f"| {label}: {PAIR} found | {_count(runs, PAIR)} | |")
        for name in ("unlearned", "retrained", "never"):
            saved = [run[name]["savings"][0] for run in runs if "savings" in run.get(name, {})]
            lines += [_row(f"{label}: savings of {name}", saved)] if len(saved) > 1 else []
    null = [net["null"] for net in known]
    lines.append(_row(f"{NULL}: {LAST}", [run[NULL][LAST][0] for run in null]))
    lines.append(f"| {NULL} found | {_count(null, NULL)} | |")
    return "\n".join(lines) + "\n"


def _count(runs: list[Numbers], pair: str) -> str:
    return f"{sum(run[pair]['status'] == 'found' for run in runs)} of {len(runs)}"


def _span(value: list[float]) -> str:
    return f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"


def main() -> None:
    """Measures net by net; what is in the file already is not measured again."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relearning", description=__doc__)
    parser.add_argument("--task", choices=list(TASKS), default="digits")
    parser.add_argument("--nets", type=int, default=10)
    parser.add_argument("--json", type=Path, help="file for every net's numbers; those in it are not measured again")
    given = parser.parse_args()
    measure, shown = TASKS[given.task]
    out: Path | None = given.json
    torch.set_num_threads(1)
    known: list[Numbers] = json.loads(out.read_text()) if out and out.is_file() else []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(len(known), given.nets):
            began = time.perf_counter()
            known.append(measure(seed, Path(folder) / f"{seed}.wheeltap"))
            if out:
                out.write_text(json.dumps(known, indent=1) + "\n")
            print(f"net {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    print(tables(known, shown))


if __name__ == "__main__":
    main()
