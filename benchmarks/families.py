"""``python -m benchmarks.families``: what holds of each family of the zoo, by the bars that the project sets itself."""

import argparse
import contextlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import msgspec
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from scipy import stats
from torch import nn

from benchmarks import families_page
from benchmarks.families_recoded import recoded
from tests.nets import zoo
from wheeltap.cli.doctor import answer, show
from wheeltap.core.subject import Subject
from wheeltap.plans.plan import AuditSpec, Effort
from wheeltap.plans.store import Store
from wheeltap.report.report import Report
from wheeltap.runs import loop, planning
from wheeltap.runs.checkup import checkup
from wheeltap.testing.planted import PlantedCase

EFFORT = Effort(draws=8, control_draws=8, block_draws=0)
"""Few draws: where a control has no power it must be skipped, not fail."""

_RUNGS = {"rungs": [-2, 0, 2], "block_map": False}
NOISE = (
    AuditSpec(name="score"),
    AuditSpec(name="relative-noise", settings=_RUNGS),
    AuditSpec(name="function-noise", settings=_RUNGS),
)
CONTROLLED = (*NOISE, AuditSpec(name="redundancy"))
EQUIVALENT = 0.02
"""Largest difference of curve area that does not matter."""

PAGE = Path(__file__).parents[1] / "docs" / "gauges.md"

Row = dict[str, Any]


def _cases(names: Iterable[str]) -> Iterator[tuple[str, torch.dtype]]:
    for name in names:
        yield name, torch.float32
        if name in zoo.HALF:
            yield name, torch.bfloat16


def _one_thread(part: Callable[..., list[Row]], *arguments: Any) -> list[Row]:
    with zoo.quiet():
        torch.set_num_threads(1)
        return part(*arguments)


def coverage(names: tuple[str, ...], seeds: int) -> list[Row]:
    """What share of the weights any disturbance touches, and what none does."""
    rows: list[Row] = []
    for name, dtype in _cases(names):
        record = zoo.made(name, dtype=dtype).subject.record
        left = ", ".join(f"{one.name} ({one.size})" for one in record.untouched[:3])
        rows.append({
            "net": record.name, "weights": record.parameters, "covered": record.covered / record.parameters,
            "left alone": left,
        })  # fmt: skip
    return rows


def _audited(case: PlantedCase, seed: int) -> tuple[Report, dict[str, int]]:
    """A report, and how many trials failed and diverged."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.wheeltap"
        plan = planning.plan(case.subject, case.task, audits=CONTROLLED, effort=EFFORT, seed=seed)
        report = loop.run(plan, case.subject, case.task, store=path)
        with Store(path, readonly=True) as store:
            return report, store.count()


def controls(names: tuple[str, ...], seeds: int) -> list[Row]:
    """Which twin and planted controls ran, what failed, and whether a sound run was void; several seeds of training."""
    rows: list[Row] = []
    for name, dtype in _cases(names):
        for seed in range(seeds):
            began = time.perf_counter()
            case = zoo.made(name, seed=seed, dtype=dtype)
            report, count = _audited(case, seed)
            told = {one.name: one.status for one in report.controls if one.kind in ("null", "planted")}
            because = next((one.because for one in report.controls if one.status == "failed"), "")
            rows.append({
                "net": case.subject.name, "seed": seed, "twin": _ran(report, "null"), "planted": _ran(report, "planted"),
                "void": report.void, "failed trials": count.get("failed", 0),
                "errors": sum(one.status == "error" for one in report.findings), "controls": told, "because": because,
                "seconds": time.perf_counter() - began,
            })  # fmt: skip
            _say(rows[-1])
    return rows


def _ran(report: Report, kind: str) -> str:
    """The statuses of the controls of one kind, counted."""
    found = [one.status for one in report.controls if one.kind == kind]
    return ", ".join(f"{found.count(status)} {status}" for status in ("passed", "failed", "skipped") if status in found)


def _say(row: Row) -> None:
    print({key: value for key, value in row.items() if key not in ("controls",)}, flush=True)


def recoding(names: tuple[str, ...], seeds: int) -> list[Row]:
    """Comparisons with copies that were re-coded by hand: false alarms, and how far function noise is apart."""
    rows: list[Row] = []
    for name in names:
        rows += [compared(name, seed) for seed in range(seeds)]
        _say(rows[-1])
    return rows


def compared(name: str, seed: int) -> Row:
    """One such comparison, of one of three trained nets."""
    case = zoo.made(name, seed=seed % 3)
    pair = [case.subject, Subject(recoded(name, case.subject.model, seed=seed), name="re-coded")]
    plan = planning.plan(pair, case.task, audits=NOISE, effort=EFFORT, seed=seed)
    plan = msgspec.structs.replace(plan, twin=None, planted=None, stronger=(), graded=())
    found = {one.code: one for one in loop.run(plan, pair, case.task).findings if " vs " in one.subject}
    row: Row = {"net": name, "seed": seed}
    for code in ("WT101", "WT102"):
        row[code], row[f"{code} gap"] = found[code].status, found[code].estimates[0].value
    return row


def restored(names: tuple[str, ...], seeds: int) -> list[Row]:
    """Whether the model is the same bits after an audit, a check, and an exception in one of its own hooks."""
    rows: list[Row] = []
    for name in names:
        case = zoo.made(name)
        model = case.subject.model
        planning.plan(case.subject, case.task, audits=("score",))  # some models rewrite themselves in their first pass
        row: Row = {"net": case.subject.name}
        for what, run in (
            ("audits", lambda case=case: _everything(case)),
            ("doctor", lambda case=case: checkup(case.subject, case.task)),
            ("exception", lambda case=case: _broken(case)),
        ):
            before = _state(model)
            run()
            row[what] = "same" if _state(model) == before else "CHANGED"
        rows.append(row)
        _say(row)
    return rows


def _everything(case: PlantedCase) -> None:
    """Audits of every kind: noise and its controls, single weights, schemes, readings of units and of all weights."""
    several = (
        *CONTROLLED,
        AuditSpec(name="entanglement"),
        AuditSpec(name="deployment"),
        AuditSpec(name="single-point"),
    )
    few = Effort(draws=2, control_draws=2, block_draws=1)
    plan = planning.plan(case.subject, case.task, audits=several, effort=few)
    loop.run(msgspec.structs.replace(plan, graded=()), case.subject, case.task)


def _state(model: nn.Module) -> tuple[Any, ...]:
    """Weights and buffers by their bits, modes, flags, and how many hooks there are."""
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()]
    modes = [module.training for module in model.modules()]
    flags = [parameter.requires_grad for parameter in model.parameters()]
    bits = {
        path: value.detach().clone().contiguous().view(torch.uint8).numpy().tobytes() for path, value in _tensors(model)
    }
    return bits, modes, flags, hooks


def _tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from ((path, value.reshape(-1)) for path, value in model.named_parameters(remove_duplicate=False))
    yield from ((path, value.reshape(-1)) for path, value in model.named_buffers(remove_duplicate=False))


class _Tripped(Exception):
    """What a model's own hook raises."""


def _broken(case: PlantedCase) -> None:
    """An audit in the midst of which a hook of the model raises."""
    calls = 0

    def trip(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 40:
            raise _Tripped

    last = [module for module in case.subject.model.modules() if isinstance(module, nn.Linear)][-1]
    handle = last.register_forward_hook(trip)
    try:
        with contextlib.suppress(_Tripped):
            loop.run(planning.plan(case.subject, case.task, audits=NOISE, effort=EFFORT), case.subject, case.task)
    finally:
        handle.remove()
    assert calls > 40, "the hook was not reached"


def doctor(names: tuple[str, ...], seeds: int) -> list[Row]:
    """What ``wheeltap doctor`` says of each, how long it takes, and how many lines of 80 columns it prints."""
    rows: list[Row] = []
    for name, dtype in _cases(names):
        case = zoo.made(name, dtype=dtype)
        began = time.perf_counter()
        found = checkup(case.subject, case.task)
        seconds = time.perf_counter() - began
        text = io.StringIO()
        show(found, Console(file=text, width=80))
        rows.append({
            "net": case.subject.name, "title": zoo.MEMBERS[name].title, "half": dtype is torch.bfloat16,
            "weights": found.subject.parameters, "reach": {reach.audit: reach.share for reach in found.reaches}, "seconds": seconds, "lines": len(text.getvalue().splitlines()),
            "family": found.family, "hidden": found.hidden, "gauges": ", ".join(p.gauge for p in found.proofs if p.holds),
            "not exact": ", ".join(p.gauge for p in found.proofs if not p.holds), "twin": ", ".join(found.gauges) if found.twin else "",
            "planted": bool(found.planted), "covered": found.covered, "answer": answer(found),
            "largest difference": max((p.difference or 0.0 for p in (*found.proofs, *found.controls)), default=0.0),
        })  # fmt: skip
        _say(rows[-1])
    return rows


PARTS: dict[str, Callable[[tuple[str, ...], int], list[Row]]] = {
    "coverage": coverage, "controls": controls, "recoding": recoding, "restored": restored, "doctor": doctor,
}  # fmt: skip


def summed(part: str, rows: list[Row]) -> list[str]:
    """A part's bars, in words."""
    if part == "controls":
        void = sum(row["void"] for row in rows)
        nets = {row["net"] for row in rows}
        ran = [
            net for net in nets if all(_has(row, "twin") and _has(row, "planted") for row in rows if row["net"] == net)
        ]
        return [
            f"void {_rate(void, len(rows))}; twin and planted controls run on {len(ran)} of {len(nets)}; failed trials "
            f"{sum(row['failed trials'] for row in rows)}, findings with an error {sum(row['errors'] for row in rows)}",
            f"not on: {', '.join(sorted(nets - set(ran))) or 'none'}",
        ]
    if part == "recoding":
        told = [
            f"{code}: false alarms {_rate(sum(r[code] == 'found' for r in rows), len(rows))}"
            for code in ("WT101", "WT102")
        ]
        return [*told, _equivalence(rows)]
    if part == "coverage":
        return [f"least: {min(row['covered'] for row in rows):.1%}"]
    if part == "doctor":
        return [f"longest: {max(r['seconds'] for r in rows):.1f} s, {max(r['lines'] for r in rows)} lines"]
    changed = sum("CHANGED" in row.values() for row in rows)
    return [f"models that audits, doctor or an exception in one of their hooks left changed: {changed} of {len(rows)}"]


def _has(row: Row, kind: str) -> bool:
    return "passed" in row[kind] or "failed" in row[kind]


def _rate(count: int, total: int) -> str:
    low, high = stats.binomtest(count, total).proportion_ci()
    return f"{count} of {total} [{low:.1%}, {high:.1%}]"


def _equivalence(rows: list[Row]) -> str:
    """Mean difference of the curve areas under function noise, with its interval: over all, and family by family."""
    low, high = _interval([row["WT102 gap"] for row in rows])
    nets = {row["net"]: [one["WT102 gap"] for one in rows if one["net"] == row["net"]] for row in rows}
    within = [net for net, gaps in nets.items() if _within(gaps)]
    beyond = ", ".join(f"{net} {fmean(gaps):.3f}" for net, gaps in nets.items() if net not in within)
    return (
        f"WT102: mean gap of areas [{low:.4f}, {high:.4f}]; within {EQUIVALENT} with 95% confidence in {len(within)} of "
        f"{len(nets)} families (not in: {beyond or 'none'})"
    )


def _within(gaps: list[float]) -> bool:
    return len(gaps) > 1 and max(map(abs, _interval(gaps))) <= EQUIVALENT


def _interval(gaps: list[float]) -> tuple[float, float]:
    half = stats.t.ppf(0.95, len(gaps) - 1) * stdev(gaps) / len(gaps) ** 0.5  # two one-sided tests at .05
    return fmean(gaps) - half, fmean(gaps) + half


def _table(part: str, rows: list[Row]) -> Table:
    table = Table(title=part, title_justify="left", box=None, pad_edge=False)
    keys = [key for key in rows[0] if key not in ("controls", "answer", "reach", "title")]
    for key in keys:
        table.add_column(key)
    for row in rows:
        table.add_row(*(Text(f"{row[key]:.3g}" if isinstance(row[key], float) else str(row[key])) for key in keys))
    return table


def main() -> None:
    """Measures the parts asked for and prints a table of each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.families", description=__doc__)
    parser.add_argument("--only", default="", help="members of the zoo, with commas between [all]")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each family [1]")
    parser.add_argument("--part", default=",".join(PARTS), help=f"of: {', '.join(PARTS)} [all]")
    parser.add_argument("--json", type=Path, help="file of rows: what is measured replaces what is in it")
    parser.add_argument(
        "--docs", action="store_true", help="write the tables of docs/gauges.md from that file, or measure for it"
    )
    given = parser.parse_args()
    names = tuple(given.only.split(",")) if given.only else zoo.names()
    known = given.json is not None and given.json.is_file()
    found: dict[str, list[Row]] = json.loads(given.json.read_text()) if known else {}
    for part in () if given.docs and known else ("doctor",) if given.docs else given.part.split(","):
        found[part] = _one_thread(PARTS[part], names, given.seeds)
        Console(width=200).print(_table(part, found[part]))
        print("\n".join(summed(part, found[part])), flush=True)
        if given.json is not None:
            given.json.write_text(json.dumps(found, indent=1) + "\n")
    if given.docs:
        told = {part: summed(part, rows) for part, rows in found.items()}
        rows = found["doctor"], told
        PAGE.write_text(families_page.written(PAGE.read_text(), *rows, controls=found.get("controls", [])))
        print(f"Written: {PAGE}")


if __name__ == "__main__":
    main()
