"""The report as one self-contained page: no font, no address to fetch; one drawing serves both themes."""

from typing import TYPE_CHECKING, Any

from wheeltap.core.report import ReportRecord
from wheeltap.report import cohorts, deployment, drawn, figures, page_top, sections, view, words
from wheeltap.report.drawn import CHART_COLOURS, markup
from wheeltap.report.origin import origin

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["CHART_COLOURS", "DARK", "environment", "fragment", "markup", "page"]

# Dark counterparts of figures.SERIES, in its order: each reads at 4.5 to 1 or better on the dark page.
DARK = ("#7fb0ff", "#ffa25c", "#74cf98", "#d79be8", "#5fd0de", "#ff8e9c", "#d9c54a", "#b7b7c9")


def page(record: ReportRecord) -> str:
    """The whole page.

    Args:
        record: The report.

    Returns:
        A complete HTML document.
    """
    parts = {**_frame(record), **sections.page(record.sections)}
    if record.study is not None:
        parts |= cohorts.context(record, record.study)
        return environment().get_template("study.html.j2").render(parts)
    return environment().get_template("report.html.j2").render({**parts, **_top(record), **_detail(record)})


def fragment(record: ReportRecord) -> str:
    """Headline, deployment table and notes, for a notebook; every verdict where no deployment was asked about.

    Args:
        record: The report.

    Returns:
        An HTML fragment.
    """
    first = _top(record) if record.study is None else cohorts.top(record, record.study)
    return environment().get_template("summary.html.j2").render({**_frame(record), **first})


def environment() -> "Environment":
    """The templates of this package; what is put into them is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("wheeltap.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["hold"] = words.hold
    return environment


def _shown(value: object) -> object:
    """What is put into a page: text (but no markup of ours) without control characters."""
    return words.plain(value, lines=True) if type(value) is str else value


def _frame(record: ReportRecord) -> dict[str, Any]:
    """What every page has."""
    return {
        "record": record,
        "recorded": view.is_recorded(record),
        "words": words,
        "palette": list(zip(figures.SERIES, DARK, strict=True)),
        "chart_colours": CHART_COLOURS,
        "command": words.plain(record.command),
        "said": page_top.said(record),
        "examples": view.examples(record),
        "controls_line": deployment.controls_line(record),
        "failed": [control.name for control in view.controls(record) if control.status == "failed"],
        "controls": view.controls(record),
        "cost": view.cost_line(record),
        "origin": origin(record),
        "groups": [(group, page_top.verdicts(group)) for group in view.groups(record)],
        "subjects": [(words.plain(s.name), f"{s.parameters:,}", words.plain(s.fingerprint)) for s in record.subjects],
        "provenance": [(words.plain(key), words.scalar(value)) for key, value in sorted(record.provenance.items())],
    }


def _top(record: ReportRecord) -> dict[str, Any]:
    """What the first screen of a report on models shows."""
    return {
        "heads": deployment.heads(record),
        "shipped": page_top.tables(record),
        "notes": deployment.notes(record, read_on=""),
        "verdicts": view.score_table(record),
        "parts": view.parts(view.score_table(record)),
    }


def _detail(record: ReportRecord) -> dict[str, Any]:
    """What stands below it."""
    return {
        "picture": page_top.picture(record),
        "explanation": view.explanation(record),
        "forests": drawn.forests(record),
        "legend": drawn.legend(record),
        "curves": drawn.dosed(record),
        "survival": drawn.matched(record),
        "maps": drawn.maps(record),
        "instruments": [(view.name_of(record, code), _reads(record, code)) for code in view.codes(record)],
    }


def _reads(record: ReportRecord, code: str) -> str:
    """What an audit does; of the score, in words that hold for answers that were recorded."""
    if view.is_recorded(record) and view.is_score(record, code):
        return words.LENS_SCORE
    return words.plain(record.instrument(code).reads)
