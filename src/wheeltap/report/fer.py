"""The page of a picture study: one net that draws a picture, nets trained to draw it too, and what tells them apart."""

from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from wheeltap.core.records import Estimate, ReportRecord
from wheeltap.report import explorer, figures, html, png, view, words
from wheeltap.report.explorer import DrawnNet

Unified = Literal["high", "low", ""]
Likeness = Literal["passes", "open", "alone", "apart", ""]

LIKENESS: dict[Likeness, str] = {
    "passes": "passes for unified",
    "open": "not told apart",
    "alone": "not tested",
    "apart": "told apart",
    "": "",
}
"""What is written beside control nets: by this number alone, they reach the net under study on the side of unified
nets; it could be one more of them; there is one net or no spread; neither."""


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One number that every net of a study has.

    Attributes:
        key: Its name in files.
        title: In plain words.
        unit: Of the number.
        code: Of the finding it belongs to.
        reads: A sentence: what it measures and where it misleads.
        unified: Which way a unified, factored net lies; empty where neither is known.
        tested: Whether the verdict rests on it; the others are shown beside it.
        ends: What the number cannot be below or above, so that intervals end there.
        worth: Smallest difference worth telling, in the unit; a share of the trained nets' mean where ``relative``.
        grain: Step in which it is counted; 0 where it is not a count.
    """

    key: str
    title: str
    unit: str
    code: str
    reads: str
    unified: Unified = ""
    tested: bool = False
    ends: tuple[float | None, float | None] = (0.0, None)
    worth: float = 0.0
    relative: bool = False
    grain: float = 0.0


class CohortRow(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of nets made alike.

    Attributes:
        cohort: What the nets are called.
        values: One per net.
        mean: Over nets, with its interval.
        next_net: Where one more such net would lie (95 %), where that is known.
        gap: The net under study minus these nets, with the test of "it is one of them".
        likeness: ``passes`` where these nets reach the net under study on the side of unified nets, so that whoever
            looked at this number alone would take them for unified; ``open`` where it could be one more of them;
            ``alone`` where one net or no spread allows no test; ``apart`` elsewhere; empty where a unified net has no
            side.
    """

    cohort: str
    values: tuple[float, ...]
    mean: Estimate
    next_net: tuple[float, float] | None
    gap: Estimate
    likeness: Likeness = ""


class MetricRow(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of every net.

    Attributes:
        own: Of the net under study; its interval is over what was sampled within that net.
    """

    metric: Metric
    own: Estimate
    cohorts: tuple[CohortRow, ...]


class NetPicture(msgspec.Struct, frozen=True, kw_only=True):
    """What one net draws.

    Attributes:
        picture: A PNG file.
        maps: A PNG file of what every hidden unit gives, a row for each layer; empty where not shown.
        error: Mean squared error against the picture under study; 0 for the net that draws it.
        psnr: The same in decibels; ``None`` where the error is 0.
        status: Of its training.
    """

    name: str
    cohort: str
    picture: bytes
    maps: bytes = b""
    error: float = 0.0
    psnr: float | None = None
    status: str = "done"


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """One weight moved in steps.

    Attributes:
        net: Whose weight.
        weight: Its published id, its place, its name where it has one.
        steps: Added to the weight, one for each picture in ``strip``.
        strip: A PNG file: the pictures side by side.
        effect: Root mean square of the change at the last step, in colour from 0 to 1.
        symmetry: Symmetric share of the change there; ``None`` where the picture has no symmetry.
    """

    net: str
    weight: str
    steps: tuple[float, ...]
    strip: bytes
    effect: float
    symmetry: float | None = None


class FerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A whole picture study: the report that every verb gives, and what is drawn beside it.

    Attributes:
        report: Findings, controls, cost, provenance.
        about: What the picture is.
        rows: Every metric.
        fooled: What each control does to the metrics, in words.
        answers: Questions the study was made for, with their answers.
        caveats: What the numbers cannot say.
    """

    report: ReportRecord
    about: str
    nets: tuple[NetPicture, ...]
    rows: tuple[MetricRow, ...]
    sweeps: tuple[Sweep, ...]
    drawn: tuple[DrawnNet, ...]
    fooled: tuple[str, ...]
    answers: tuple[tuple[str, str], ...]
    caveats: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Chart:
    """One metric drawn: a row for each kind of net, a dot for each net."""

    metric: Metric
    svg: Any
    alt: str
    word: str
    tone: str


def page(record: FerRecord) -> str:
    """The study as one self-contained page.

    Args:
        record: The study.

    Returns:
        A complete HTML document.
    """
    report = record.report
    context = {
        "record": record,
        "report": report,
        "words": words,
        "png": png,
        "palette": list(zip(figures.SERIES, html.DARK, strict=True)),
        "chart_colours": html.CHART_COLOURS,
        "headlines": view.headlines(report),
        "charts": [_chart(record, row) for row in record.rows],
        "cohorts": cohorts(record),
        "likeness": LIKENESS,
        "explorer": explorer.embed(record.drawn, webassembly=True),
        "script_hash": explorer.script_hash(),
        "findings": view.groups(report),
        "controls": view.controls(report),
        "provenance": [(words.plain(k), words.scalar(v)) for k, v in sorted(report.provenance.items())],
    }
    return html.environment().get_template("fer.html.j2").render(context)


def numbers(record: FerRecord) -> bytes:
    """Every number of the page as JSON: what the report has no room for.

    Each metric with the value of every net, means, ranges for one more net, gaps and likeness; the distance of every
    picture; how to read them together. What nets draw, and their weights, are not in it.
    """
    nets = [
        {"name": net.name, "cohort": net.cohort, "error": net.error, "psnr": net.psnr, "status": net.status}
        for net in record.nets
    ]
    sweeps = [
        {"net": s.net, "weight": s.weight, "steps": s.steps, "effect": s.effect, "symmetry": s.symmetry}
        for s in record.sweeps
    ]
    told = {
        "schema": "wheeltap.fer/1",
        "command": record.report.command,
        "void": record.report.void,
        "about": record.about,
        "metrics": record.rows,
        "nets": nets,
        "sweeps": sweeps,
        "fooled": record.fooled,
        "answers": [{"question": question, "answer": answer} for question, answer in record.answers],
        "caveats": record.caveats,
        "provenance": record.report.provenance,
    }
    return msgspec.json.format(msgspec.json.encode(told), indent=1)


def explorer_page(record: FerRecord) -> str:
    """The sweep explorer alone, as a page of its own."""
    return explorer.page(record.drawn, title=record.about, note=record.report.headline)


def cohorts(record: FerRecord) -> list[str]:
    """Names of the kinds of nets, the net under study first."""
    return list(dict.fromkeys(net.cohort for net in record.nets))


def status_of(record: FerRecord, row: MetricRow) -> tuple[str, str]:
    """Word and tone of the verdict on a metric; both empty where it is not tested."""
    if not row.metric.tested:
        return "", ""
    found = [f for f in record.report.findings if f.code == row.metric.code and f.title == row.metric.title]
    if not found:
        return "", ""
    return words.status(found[0].status, pair=True), "alarm" if found[0].status == "found" else "quiet"


def _chart(record: FerRecord, row: MetricRow) -> _Chart:
    names = cohorts(record)
    dots = [{"row": 0, "value": row.own.value, "low": row.own.low, "high": row.own.high}]
    nets: list[dict[str, Any]] = []
    for at, cohort in enumerate(row.cohorts, start=1):
        dots.append({"row": at, "value": cohort.mean.value, "low": cohort.mean.low, "high": cohort.mean.high})
        nets += [{"row": at, "value": value} for value in cohort.values]
    svg = figures.svg(figures.net_chart([names[0], *(c.cohort for c in row.cohorts)], dots, nets, unit=row.metric.unit))
    spoken = [
        f"{names[0]}: {words.interval(row.own)}.",
        *(f"{c.cohort}: {words.interval(c.mean)}." for c in row.cohorts),
    ]
    word, tone = status_of(record, row)
    alt = f"{row.metric.title}. {' '.join(spoken)}"
    return _Chart(metric=row.metric, svg=html.markup(svg), alt=alt, word=word, tone=tone)
