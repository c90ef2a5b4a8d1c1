"""``python -m benchmarks.properties STORE ...``: writes the tables of docs/properties.md from stores of the study.

A store is what ``wheeltap study properties --size full --on digits --store digits.wheeltap`` leaves. What is said of its
examples is written between two marks of the page; no number there is put in by hand.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import wheeltap as wt
from wheeltap.core.report import ReportRecord
from wheeltap.core.section import Table

PAGE: Final = Path(__file__).parent.parent / "docs" / "properties.md"
END: Final = "<!-- end -->"

_SHORT: Final = {"found": "found", "excluded": "excluded", "maybe": "undecided, leaning to it"}


def _of(record: ReportRecord) -> Iterator[str]:
    study = record.study
    assert study is not None
    seeds = len(study.cohorts[0].members)
    yield f"### {record.task.name}"
    yield (
        f"{study.about} {len(study.cohorts)} kinds of nets, {seeds} seeds each, measured on {record.task.examples} "
        "examples."
    )
    yield record.headline
    for block in (block for section in record.sections for block in section.blocks):
        if isinstance(block, Table):
            yield f"{block.title}:"
            yield _table(block.heads, [tuple(map(str, row)) for row in block.rows])
    yield "Rules, one correction over all of them:"
    yield _table(("rule", "effect", "margin", "verdict", "detectable"), list(_rules(record)))
    yield from study.notes


def _rules(record: ReportRecord) -> Iterator[tuple[str, ...]]:
    for one in record.findings:
        least = "" if one.smallest_detectable is None else f"{one.smallest_detectable:.3f}"
        verdict = _SHORT.get(one.verdict or one.status, "undecided")
        yield one.title, str(one.estimates[0]) if one.estimates else "", f"{one.margin or 0.0:.3f}", verdict, least


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Puts it into the page."""
    for store in map(Path, sys.argv[1:]):
        record = wt.judge(store).record
        before, start, rest = PAGE.read_text().partition(f"<!-- {record.task.name} -->\n")
        found = "\n\n".join(_of(record))
        PAGE.write_text(f"{before}{start}\n{found}\n\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
