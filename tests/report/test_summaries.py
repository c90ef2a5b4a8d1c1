"""The report for other programs: Markdown for a pull request, JUnit XML, flat numbers."""

import math
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest
from defusedxml import ElementTree
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.report.report_cases import empty, hostile
from tests.report.report_pieces import estimate, finding
from tests.report.shipped_cases import ROWS, Row, pair, shipped, shipped_void, uncovered
from tests.report.study_cases import study_hostile
from wheeltap.audits.schemes import scheme
from wheeltap.core.report import ReportRecord
from wheeltap.report import Report, deployment, gate
from wheeltap.report.gate import FailOn
from wheeltap.report.junit import junit
from wheeltap.report.markdown import escaped, markdown
from wheeltap.report.origin import unfinished
from wheeltap.report.words import plain

LEVELS: tuple[FailOn, ...] = ("costs", "may-cost", "cannot-tell", "never")
EVIL = (
    "a | b", "`code`", "<img src=x>", "**bold**", "@someone", "#12", "https://evil.example", "[x](http://e.example)",
    "www.evil.example", "a\nb", "~~gone~~", "_low_", "&lt;", "\\|", "$x$", "![i](j)",
)  # fmt: skip


def renamed(record: ReportRecord, old: str, new: str) -> ReportRecord:
    """The record with another name for a model."""
    subjects = tuple(msgspec.structs.replace(s, name=new if s.name == old else s.name) for s in record.subjects)
    found = tuple(msgspec.structs.replace(f, subject=new if f.subject == old else f.subject) for f in record.findings)
    return msgspec.structs.replace(record, subjects=subjects, findings=found)


# ---- Markdown -------------------------------------------------------------------------------------------------


class _Page(HTMLParser):
    """Which elements Markdown made, and the text of each cell."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.cells: list[list[str]] = []
        self.text = ""
        self._cell = False
        self.feed(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        if tag == "tr":
            self.cells.append([])
        self._cell = self._cell or tag in ("td", "th")
        if tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self.cells[-1][-1] += data


PLAIN = {"p", "strong", "ul", "li", "table", "thead", "tbody", "tr", "th", "td"}


@pytest.mark.parametrize("make", [empty, hostile, pair, study_hostile])
def test_summaries_of_every_case(make: Callable[[], ReportRecord], tmp_path: Path) -> None:
    record, report = make(), Report(make())
    text = report.markdown()
    page = _Page(text)
    assert len(text.splitlines()) < 60 and set(page.tags) <= PLAIN
    widths = {len(cells) for cells in page.cells}
    assert len(widths) <= (2 if record.study is None else 3) and widths <= set(range(2, 9)), "cells as headings"
    if record.study is not None:
        assert all(finding.verdict in text for finding in record.findings)
    path = report.junit(tmp_path / "made" / "junit.xml")
    assert path.read_bytes() == junit(record, "costs")
    _parsed(path.read_bytes())
    numbers = report.scalars()
    assert all(type(value) is float and math.isfinite(value) for value in numbers.values())
    assert all(re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name) for name in numbers)
    assert numbers["passed"] == float(report.passed)
    assert "<script" not in text and b"<script" not in path.read_bytes()


def test_markdown_has_the_rows_of_the_deployment_table() -> None:
    record = shipped()
    page = _Page(Report(record).markdown())
    [table] = deployment.lines(record)
    assert page.cells[0] == list(table.headings)
    said = [f"{one.word} ({one.note})" if one.note else one.word for one in (line.verdict for line in table.lines)]
    assert page.cells[1:] == [[line.label, *line.cells, word] for line, word in zip(table.lines, said, strict=True)]
    assert record.headline in page.text


def test_no_name_becomes_markup_a_link_or_a_mention() -> None:
    plain = _Page(markdown(shipped()))
    for evil in EVIL:
        headline = evil.replace("\n", " ")  # each line of a headline is one of its own
        page = _Page(markdown(renamed(msgspec.structs.replace(shipped(), headline=headline), "net", evil)))
        assert page.tags == plain.tags, "no element more and none less"
        assert page.text.replace("\u200b", "").count(headline) == 2
        for act in (r"@\w", r"#\d", r"://", r"www\.\w"):
            assert not re.search(act, page.text)


@settings(max_examples=30)
@given(st.text(max_size=30))
@example("]: http://a.example")
@example("1. x")
def test_escaped_text_is_read_back_as_it_is(text: str) -> None:
    page = _Page(f"| a |\n| --- |\n| x{escaped(text)}x |\n")
    assert page.tags == Counter(table=1, thead=1, tbody=1, tr=2, th=1, td=1)
    shown = page.cells[1][0].replace("\u200b", "")
    assert shown.split() == f"x{plain(text)}x".split()


# ---- JUnit ----------------------------------------------------------------------------------------------------


def _parsed(data: bytes) -> tuple[dict[str, str], dict[tuple[str, str], str]]:
    """Attributes of the suite; from (class, name) to what a test gave."""
    suite = ElementTree.fromstring(data, forbid_dtd=True)
    assert suite.tag == "testsuite"
    tests: dict[tuple[str, str], str] = {}
    for test in suite:
        [child] = list(test)
        tests[test.attrib["classname"], test.attrib["name"]] = "" if child.tag == "system-out" else child.tag
    assert len(tests) == len(suite), "no two tests of one name"
    return dict(suite.attrib), tests


def test_junit_has_a_test_for_each_finding() -> None:
    suite, tests = _parsed(junit(shipped(), "costs"))
    assert tests == {
        ("net", "Benchmark score"): "",
        ("net", "8 bits, per channel"): "",
        ("net", "4 bits, NF4, groups of 64"): "",
        ("net", "4 bits, groups of 32"): "skipped",
        ("net", "4 bits, per channel"): "skipped",
        ("net", "3 bits, groups of 32"): "failure",
        ("net", scheme("prune-2:4").label): "failure",
        ("net", scheme("noise5").label): "skipped",
        ("net", scheme("flips1e-6-int8").label): "skipped",
        ("net", scheme("wanda50").label): "skipped",
        ("net", scheme("int4-g128-aware").label): "error",
        ("net", "Single-point fragility"): "",
    }
    counts = {"tests": "12", "failures": "2", "errors": "1", "skipped": "5"}
    assert suite == {"name": "wheeltap", **counts, "time": "88.200"}
    strict, tests = _parsed(junit(shipped(), "cannot-tell"))
    assert (strict["failures"], strict["skipped"]) == ("7", "0")
    mild, _ = _parsed(junit(shipped(), "never"))
    assert (mild["failures"], mild["errors"]) == ("0", "0")
    stated = {test.attrib["name"]: test[0] for test in ElementTree.fromstring(junit(shipped(), "costs"))}
    assert stated["3 bits, groups of 32"].attrib == {"message": "costs 0.209 [0.172, 0.246]", "type": "costs"}


def test_junit_has_a_test_of_the_run() -> None:
    _, void = _parsed(junit(shipped_void(), "never"))
    assert void["wheeltap", "the controls pass"] == "error"
    assert set(void.values()) <= {"error", "skipped"}
    _, cut = _parsed(junit(unfinished(shipped(), 2), "never"))
    assert cut["wheeltap", "the run is over"] == "error"
    alone = tuple(one for one in shipped().findings if one.status in ("measured", "not_applicable"))
    _, silent = _parsed(junit(msgspec.structs.replace(shipped(), findings=alone), "costs"))
    assert silent["wheeltap", "there is an answer"] == "error"
    _, bare = _parsed(junit(uncovered(), "costs"))
    assert Counter(bare.values()) == {"": 1, "error": 3}


@settings(max_examples=40)
@given(
    st.lists(st.sampled_from(ROWS), unique_by=lambda one: one.name),
    st.sampled_from(LEVELS),
    st.sampled_from(("sound", "void", "unfinished", "uncovered")),
)
def test_junit_is_red_where_the_gate_is(rows: list[Row], level: FailOn, kind: str) -> None:
    made = {"sound": shipped(tuple(rows)), "void": shipped_void(), "uncovered": uncovered()}
    record = made.get(kind) or unfinished(shipped(tuple(rows)), 1)
    suite, _ = _parsed(junit(record, level))
    assert bool(int(suite["failures"]) + int(suite["errors"])) is (gate.exit_code(record, level) != 0)


@settings(max_examples=30)
@given(st.text(max_size=20), st.text(st.characters(exclude_categories=()), max_size=20))
@example("\x00\ufffe\ud800", "]]><!--&'\"")
def test_junit_of_any_name_is_xml(name: str, why: str) -> None:
    failed = msgspec.structs.replace(finding("WT101", "found", name), title=why, because=why, verdict=why)
    record = msgspec.structs.replace(renamed(shipped(), "net", name), findings=(failed, failed, *shipped().findings))
    _parsed(junit(record, "costs"))


# ---- numbers --------------------------------------------------------------------------------------------------


def test_scalars_of_one_model() -> None:
    numbers = Report(shipped()).scalars()
    verdicts = {
        "int8": -1.0, "nf4": -1.0, "int4-g32": 0.0, "int4": 0.5, "int3-g32": 1.0, "prune-2-4": 1.0, "noise5": 0.0,
        "flips1e-6-int8": 0.0, "worst-weight": -1.0,
    }  # fmt: skip
    found = {name: value for name, value in numbers.items() if name.endswith("/verdict")}
    assert found == {f"net/{name}/verdict": value for name, value in verdicts.items()}
    int4 = {
        "lost": 0.0222, "lost_low": 0.008, "lost_high": 0.0364, "score": 0.9482, "changed": 0.033,
        "kept": 1 - 0.0222 / 0.8704, "verdict": 0.5,
    }  # fmt: skip
    found = {name: value for name, value in numbers.items() if name.startswith("net/int4/")}
    assert found == pytest.approx({f"net/int4/{name}": value for name, value in int4.items()})
    assert (numbers["net/score"], numbers["coverage"], numbers["passed"]) == (0.9704, 0.996, 0.0)


def test_scalars_of_what_concludes_nothing_are_left_out() -> None:
    assert Report(shipped_void()).scalars() == {"passed": 0.0, "coverage": 0.996}
    endless = finding("WT101", "measured", "net", estimate("half-dose", math.inf, 1.0))
    only = msgspec.structs.replace(shipped(), findings=(endless,))
    assert Report(only).scalars() == {"passed": 1.0, "coverage": 0.995}
    left = {"passed", "coverage", "moe/score", "moe/score_low", "moe/score_high"}
    assert set(Report(uncovered()).scalars()) == left
