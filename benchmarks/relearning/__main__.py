"""``python -m benchmarks.relearning``: measures on ten nets, each with another digit forgotten, and prints tables."""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from wheeltap import api
from wheeltap.plans import AuditSpec
from wheeltap.probe import BaseProbe
from wheeltap.records import Estimate, Finding
from wheeltap.report.report import Report
from wheeltap.stats.effect import score_interval
from wheeltap.subject import Subject
from wheeltap.testing.unlearned import Unlearned, Unlearning, unlearned_digits

RATES = (3e-4, 1e-3, 3e-3)
UNLEARNINGS = {
    "as shipped": {},
    "without repair": {"repair": 0},
    "harsher": {"rate": 1e-3, "weight": 1.0, "repair": 300},
}
TESTED = 1e-3


def _run(subjects: list[Subject], probe: BaseProbe, store: Path, *, seed: int, **settings: Any) -> Report:
    spec = AuditSpec(name="relearning", settings=settings)
    plan = api.plan(subjects, probe, audits=["score", spec], seed=seed)
    plan = msgspec.structs.replace(plan, twin=None, planted=None, graded=())
    return api.run(plan, subjects, probe, store=store)


def _told(finding: Finding) -> dict[str, Any]:
    return {"status": finding.status, **{e.name: [e.value, e.low, e.high] for e in finding.estimates}}


def _of(report: Report) -> dict[str, Any]:
    return {finding.subject: _told(finding) for finding in report["WT107"]}


def _named(subject: Subject, name: str) -> Subject:
    return Subject(subject.model, name=name)


def one(seed: int, folder: Path) -> dict[str, Any]:
    """Everything about one net."""
    group = (9 - seed) % 10
    store = folder / f"{seed}.wheeltap"
    found: dict[str, Any] = {"group": group, "strength": {}, "rates": {}, "unlearnings": {}}
    for label, how in UNLEARNINGS.items():
        case = unlearned_digits(group, seed=seed, how=Unlearning(seed=seed, **how))
        found["strength"][label] = {name: getattr(case.strength, name) for name in case.strength.__dataclass_fields__}
        nets = [case.unlearned, case.retrained]
        found["unlearnings"][label] = _of(_run(nets, case.probe, store, seed=seed, group=group))
    case: Unlearned = unlearned_digits(group, seed=seed, how=Unlearning(seed=seed))
    for rate in RATES:
        nets = [case.unlearned, case.retrained, case.never]
        found["rates"][str(rate)] = _of(_run(nets, case.probe, store, seed=seed, group=group, lr=rate))
    null = [case.retrained, case.never]
    found["null"] = _of(_run(null, case.probe, store, seed=seed, group=group))
    return found


def _mean(rows: list[float]) -> Estimate:
    """Over nets, with Student's interval."""
    return score_interval(np.array(rows), bounded=False, unit="share")


def _row(label: str, values: list[list[float]]) -> str:
    middle = [value[0] for value in values]
    return f"| {label} | {_mean(middle)} | {min(middle):.3f} to {max(middle):.3f} |"


def tables(known: list[dict[str, Any]]) -> str:
    """The page: each net, then means over nets."""
    pair, tested = "unlearned vs retrained", str(TESTED)
    lines = [
        "| digit | distance | retained / retrained | gap after 16 steps | gap, best noise | gap, 4 bits | status |"
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for net in known:
        how, gap = net["strength"]["as shipped"], net["rates"][tested][pair]
        shown = [_span(gap[name]) for name in ("gap after 16 steps", "gap under noise, best of 40", "gap at 4 bits")]
        lines.append(
            f"| {net['group']} | {how['distance']:.3f} | {how['retained']:.3f} / {how['expected']:.3f} | "
            f"{' | '.join(shown)} | {gap['status']} |"
        )
    lines += ["", f"| mean over {len(known)} nets | with 95 % interval | range |", "|---|---|---|"]
    names = [name for name in known[0]["rates"][tested][pair] if name.startswith("gap")]
    lines += [_row(f"unlearned - retrained, {name}", [n["rates"][tested][pair][name] for n in known]) for name in names]
    lines += [
        _row(
            f"step size {rate:g}, gap after 16 steps",
            [n["rates"][str(rate)][pair]["gap after 16 steps"] for n in known],
        )
        for rate in RATES
    ]
    for label in UNLEARNINGS:
        made = [n["strength"][label] for n in known]
        lines.append(_row(f"{label}: distance", [[m["distance"]] for m in made]))
        lines.append(_row(f"{label}: retained less retrained's", [[m["retained"] - m["expected"]] for m in made]))
        rows = [n["unlearnings"][label] for n in known]
        lines.append(
            _row(
                f"{label}: gap after 16 steps",
                [r[pair]["gap after 16 steps"] for r in rows if "gap after 16 steps" in r[pair]],
            )
        )
        lines.append(
            _row(
                f"{label}: savings of unlearned",
                [r["unlearned"]["savings"] for r in rows if "savings" in r["unlearned"]],
            )
        )
        lines.append(
            f"| {label}: unlearned found alone | {sum(r['unlearned']['status'] == 'found' for r in rows)} of {len(rows)} | |"
        )
    for name in ("retrained", "never"):
        rows = [n["rates"][tested][name] for n in known]
        lines.append(_row(f"savings of {name}", [row["savings"] for row in rows]))
        lines.append(f"| {name} found alone | {sum(row['status'] == 'found' for row in rows)} of {len(rows)} | |")
    null = [n["null"]["retrained vs never"] for n in known]
    lines.append(_row("retrained - never, gap after 16 steps", [row["gap after 16 steps"] for row in null]))
    lines.append(f"| retrained vs never found | {sum(row['status'] == 'found' for row in null)} of {len(null)} | |")
    return "\n".join(lines) + "\n"


def _span(value: list[float]) -> str:
    return f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"


def main() -> None:
    """Measures net by net; what is in the file already is not measured again."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relearning", description=__doc__)
    parser.add_argument("--nets", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("relearning.json"), help="file of numbers [relearning.json]")
    given = parser.parse_args()
    torch.set_num_threads(1)
    known: list[dict[str, Any]] = json.loads(given.out.read_text()) if given.out.is_file() else []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(len(known), given.nets):
            began = time.perf_counter()
            known.append(one(seed, Path(folder)))
            given.out.write_text(json.dumps(known, indent=1) + "\n")
            print(f"net {seed}: {time.perf_counter() - began:.0f} s", flush=True)
    print(tables(known))


if __name__ == "__main__":
    main()
