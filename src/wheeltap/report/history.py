"""What shipping costs over the checkpoints of a training: reports by step, and when a scheme stops being safe."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wheeltap.core.errors import MissingFile, UsageError
from wheeltap.core.records import Finding
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Section, Table, Text
from wheeltap.plans.plan import MARGIN
from wheeltap.report import deployment, figures, words
from wheeltap.report.curves import MOST_LINES
from wheeltap.report.report import Report

if TYPE_CHECKING:
    import altair as alt


@dataclass(frozen=True)
class SchemeHistory:
    """One scheme, by its label, over the checkpoints: what was found at each step, in order."""

    label: str
    findings: Mapping[int, Finding]

    @property
    def safe(self) -> list[int]:
        """Steps at which it is safe."""
        return [step for step, finding in self.findings.items() if finding.status == "excluded"]

    @property
    def stops(self) -> int | None:
        """The first step at which it costs, behind the last one at which it is safe."""
        last = max(self.safe, default=-1)
        return next((step for step, one in self.findings.items() if step > last and one.status == "found"), None)

    @property
    def said(self) -> str:
        """From when on it is not safe, in words."""
        safe = self.safe
        if max(self.findings) in safe:
            return f"safe at {'every' if len(safe) == len(self.findings) else 'the last, not every'} checkpoint"
        before = f"safe up to step {safe[-1]:,}" if safe else "never shown to be safe"
        return before if self.stops is None else f"{before}, costs from step {self.stops:,}"


def read(folder: Path) -> dict[int, ReportRecord]:
    """The reports ``step-N.json`` of a folder, by step.

    Raises:
        MissingFile: If there are none.
        UsageError: If they are not of one architecture, on the same examples, with one margin.
        FileFormatError: If one cannot be read: see ``Report.read``.
    """
    named = ((re.fullmatch(r"step-(\d{1,15})\.json", path.name), path) for path in folder.glob("step-*.json"))
    steps = {int(one[1]): path for one, path in named if one}
    if not steps:
        do = f"Train with wt.callbacks, or: wheeltap audit hf:DIR --json {folder / 'step-1000.json'}"
        raise MissingFile("There is no history in this folder.", where=str(folder), expected="reports, step-N.json",
                          got="none", do=do)  # fmt: skip
    found = {step: Report.read(steps[step]).record for step in sorted(steps)}
    first = min(found)
    for step, what in ((step, what) for step, record in found.items() for what in _facts(record)):
        if (one := _facts(found[first])[what]) != (other := _facts(found[step])[what]):
            raise UsageError(
                f"These are not checkpoints of one training: {what} differ.", where=str(folder),
                expected=f"at step {step:,} as at step {first:,}: {one[0]}", got=other[0],
                do="Keep the reports of each training in a folder of its own.")  # fmt: skip
    return found


def _facts(record: ReportRecord) -> dict[str, tuple[Any, ...]]:
    """What the checkpoints of one training have in common, in words first."""
    task, one = record.task, record.subjects[0]
    return {
        "architectures": (f"{one.parameters:,} parameters in {len(one.layers)} layers", one.layers, one.weights),
        "examples": (f"{task.examples:,} ({task.digest[:8]}), {task.measure}", task.digest),
        "margins": (str(record.provenance.get("margin", MARGIN)),),
    }


def histories(reports: Mapping[int, ReportRecord]) -> list[SchemeHistory]:
    """Each scheme over the checkpoints, in the order of the reports."""
    found: dict[str, dict[int, Finding]] = {}
    for step, record in reports.items():
        for finding in record.findings:
            mine = finding.scheme and finding.subject == record.subjects[0].name
            if mine and record.instrument(finding.code).asks == "deployment":
                found.setdefault(finding.scheme, {})[step] = finding
    return [SchemeHistory(deployment.label(next(iter(each.values()))), each) for each in found.values()]


def section(several: Sequence[SchemeHistory], last: int) -> Section:
    """The answer, and a table with a row for each scheme and what it loses at the last step."""
    stopping = "; ".join(f"{one.label}: {one.said}" for one in several if one.stops is not None)
    ends = [one.findings[last].estimates[:1] if last in one.findings else () for one in several]
    rows = tuple((one.label, f"{len(one.safe)} of {len(one.findings)}", one.said, *(lost or ("no number",)))
                 for one, lost in zip(several, ends, strict=True))  # fmt: skip
    heads = ("shipped as", "safe at", "over the training", f"lost at step {last:,}")
    table = Table(heads=heads, rows=rows, most=len(rows), place="first")
    note = Text(text="Each verdict is of one checkpoint, with its own error: of many, some are false by chance.")
    says = f"{stopping}." if stopping else "No scheme is shown to cost after the last step at which it is safe."
    return Section(title="History", says=says, blocks=(table, note))


def chart(several: Sequence[SchemeHistory], unit: str) -> "alt.LayerChart":
    """Loss against the step, a line with intervals for each scheme (those that lose most); dashed where one stops."""
    import altair as alt

    rows: list[dict[str, Any]] = [
        {"scheme": words.plain(one.label), "step": step, "lost": lost.value, "low": lost.low, "high": lost.high,
         "margin": finding.margin, "stops": one.stops}
        for one in several for step, finding in one.findings.items() for lost in finding.estimates[:1]
        if None not in (lost.value, lost.low, lost.high)
    ]  # fmt: skip
    worst = {row["scheme"]: row["lost"] for row in sorted(rows, key=lambda row: row["lost"])}
    names = sorted(worst, key=worst.__getitem__, reverse=True)[:MOST_LINES]
    looks, legend = figures.styles(names), alt.Legend(title=None, orient="top", columns=2, labelLimit=400)
    colours, shapes = [looks[name].colour for name in names], [looks[name].shape for name in names]
    colour = alt.Color("scheme:N", scale=alt.Scale(domain=names, range=colours), legend=legend)
    shape = alt.Shape("scheme:N", scale=alt.Scale(domain=names, range=shapes))
    x = alt.X("step:Q", title="step", scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=5, format=",d", grid=False))
    y = alt.Y("lost:Q", title=f"lost ({words.plain(unit)})", axis=alt.Axis(tickCount=5))
    line: Any = alt.Chart(figures.data([row for row in rows if row["scheme"] in names])).encode(x=x, color=colour)
    layers = [
        line.mark_line(color=figures.MUTED, strokeDash=[4, 3]).encode(y="margin:Q", color=alt.value(figures.MUTED)),
        line.transform_filter("datum.step == datum.stops").mark_rule(strokeDash=[2, 3]),
        line.mark_rule(strokeWidth=1.2).encode(y="low:Q", y2="high:Q"),
        line.mark_line(strokeWidth=1.8).encode(y=y),
        line.mark_point(filled=True, size=45, opacity=1).encode(y=y, shape=shape),
    ]
    return figures.finish(layers, height=320, width=640)
