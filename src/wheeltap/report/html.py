"""The report as one self-contained page: no font, no address to fetch; one drawing serves both themes."""

import html
import re
from typing import TYPE_CHECKING, Any, Final

from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Table, Text
from wheeltap.report import cohorts, deployment, figures, sections, shown, view, words
from wheeltap.report.blocks import CHART_COLOURS, markup
from wheeltap.report.origin import origin

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["CHART_COLOURS", "DARK", "environment", "fragment", "markup", "notebook", "page"]

_MOST_SAID, _SHORT = 3, 60
"""Lines of the headline that are not folded away, after the first; letters below which its first sentence is shown with
the next one."""

_MOST_IN_CELL: Final = 2 * 10**6
"""Letters of a page in a cell: a notebook holds each of its outputs for good."""

# A frame that is blocked, or comes without scripts, stays away, and the fragment is seen: one of the two always is.
_FRAME: Final = (
    '<iframe title="wheeltap report" style="width: 100%; height: 0; border: 0; resize: vertical;" onload="const page = '
    "this.contentDocument; this.style.height = (page ? Math.min(page.documentElement.scrollHeight, 900) : 700) + 'px'; "
    'this.previousElementSibling.hidden = true;" srcdoc="{}"></iframe>'
)

# Dark counterparts of figures.SERIES, in its order: each reads at 4.5 to 1 or better on the dark page.
DARK = ("#7fb0ff", "#ffa25c", "#74cf98", "#d79be8", "#5fd0de", "#ff8e9c", "#d9c54a", "#b7b7c9")


def page(record: ReportRecord) -> str:
    """The whole page: a complete HTML document."""
    study = record.study
    first = sections.page(parts := shown.first(record, page=True))
    rest = [*shown.detail(record), *shown.ending(record)]
    both = {**sections.page([*parts, *rest]), "count": len(first["sections"])}
    failed = [words.plain(control.name) for control in record.controls if control.status == "failed"]
    subjects = [(words.plain(s.name), f"{s.parameters:,}", words.plain(s.fingerprint)) for s in record.subjects]
    provenance = [(words.plain(key), words.plain(str(value))) for key, value in sorted(record.provenance.items())]
    frame = {
        **_top(record), **both, "palette": list(zip(figures.SERIES, DARK, strict=True)), "failed": failed,
        "chart_colours": CHART_COLOURS, "command": words.plain(record.command), "origin": origin(record),
        "subjects": subjects, "provenance": provenance, "recorded": view.is_recorded(record),
        "unproven": () if study is not None else [sections.page([shown.unproven(record)])["sections"][0]],
        "title": words.plain(record.task.name if study is None else study.name),
    }  # fmt: skip
    if study is not None:
        terms = [(words.plain(row.metric.title), cohorts.reads(row)) for row in cohorts.rows(study)]
        reading = {"explanation": words.STUDY_EXPLANATION, "terms": [*terms, *words.STUDY_READING.items()]}
    else:
        own = words.LENS_READING if view.is_recorded(record) else words.READING
        instruments = [(view.name_of(record, code), _reads(record, code)) for code in view.codes(record)]
        reading = {"explanation": view.explanation(record), "terms": [*instruments, *own.items()]}
    return environment().get_template("page.html.j2").render({**frame, **reading})


def fragment(record: ReportRecord) -> str:
    """Headline, tables and notes, for a notebook: an HTML fragment."""
    blocks = [block for part in shown.first(record, page=True) for block in part.blocks]
    first = [block for block in blocks if block.place == "first"]
    shown_tables = [sections.table_view(block) for block in first if isinstance(block, Table)]
    said = [text for block in first if isinstance(block, Text) for text in words.paragraphs(block.text)]
    return environment().get_template("summary.html.j2").render({**_top(record), "tables": shown_tables, "texts": said})


def notebook(record: ReportRecord) -> str:
    """The page in a frame of its own, for a cell: no style of the page meets one of the notebook.

    The fragment stands before it, for where frames are left out; of a page of over 2 MB, it is all there is.
    """
    # Without the base, links within the page would lead to the notebook.
    whole = html.escape(page(record).replace("<head>", '<head>\n<base href="about:srcdoc">', 1))
    rest = _FRAME.format(whole)
    if len(whole) > _MOST_IN_CELL:
        rest = f"<p>The page has {len(whole) / 1e6:.1f} MB, too much for a cell. To a file: report.html(PATH).</p>"
    return f"<div>{fragment(record)}</div>{rest}"


def environment(package: str = "wheeltap.report") -> "Environment":
    """The templates of a package; what is put into them is escaped, and has no control characters."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package),
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


def _top(record: ReportRecord) -> dict[str, Any]:
    """What stands above the first table and below it: the answer, models, examples and controls, notes."""
    study, (line, *others) = record.study, view.headlines(record)
    sentences, count = re.split(r"(?<=[.!?]) (?=[A-Z])", line), 1
    while count < len(sentences) and len(" ".join(sentences[:count])) < _SHORT:
        count += 1
    small = [*filter(None, [" ".join(sentences[count:])]), *others]
    if study is None:
        facts = f"{view.examples(record)}; {deployment.controls_line(record)}"
        notes, heads = deployment.notes(record, read_on=""), sections.table_view(deployment.heads(record))["parts"]
    else:
        facts, notes, heads = cohorts.facts(record, study), (), []
    return {
        "record": record, "words": words, "large": " ".join(sentences[:count]), "small": small[:_MOST_SAID],
        "folded": small[_MOST_SAID:], "heads": heads, "facts": facts, "notes": notes,
    }  # fmt: skip


def _reads(record: ReportRecord, code: str) -> str:
    """What an audit does; of the score, in words that hold for answers that were recorded."""
    if view.is_recorded(record) and view.is_score(record, code):
        return words.LENS_SCORE
    return words.plain(record.instrument(code).reads)
