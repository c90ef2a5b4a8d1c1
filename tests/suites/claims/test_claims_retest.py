"""Retests from end to end: the same seed gives the same record, also of an interrupted run; other rules are refused."""

import re
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wheeltap.core.errors import StoreError, UnknownName, UsageError
from wheeltap.runs.pace import Progress, Watch
from wheeltap.runs.request import StudyRequest
from wheeltap.suites.claims.ledger import Ledger, NeededFile, Retest, read
from wheeltap.suites.claims.record import ClaimsRecord, as_json
from wheeltap.suites.claims.record import read as read_record
from wheeltap.suites.claims.retest import RetestRun, claim_result, retested

STUDY = """
question = "Do wide nets score more?"
examples = "digits"
[cohorts.wide]
recipe = "digits"
settings = {epochs = 2, hidden = "32"}
seeds = 12
[cohorts.narrow]
recipe = "digits"
settings = {epochs = 2, hidden = "4"}
seeds = 12
role = "compared"
[metrics.score]
audit = "score"
unit = "share of right answers"
least = 0
most = 1
[[rules]]
title = "Wide nets score more"
metric = "score"
cohorts = ["wide", "narrow"]
statistic = "difference"
direction = "more"
margin = 0.05
supports = "Wide nets score more."
refutes = "Wide nets do not score more."
[[rules]]
title = "Wide nets score far more"
metric = "score"
cohorts = ["wide", "narrow"]
statistic = "difference"
direction = "more"
margin = 0.9
"""

CLAIMS = """
[[claims]]
id = "W1"
statement = "Wide nets score more."
verdict = {word = "durable", date = 2026-11-26, because = "One paper."}
[[claims.scopes]]
kind = "dense"
shown = "1B"
ran = "digits"
[[claims.retests]]
name = "more"
question = "Do they score more?"
study = "wide.toml"
expected = {value = 0.2, low = 0.1, high = 0.3}
rules = [{title = "Wide nets score more"}]
[[claims]]
id = "W2"
statement = "Nets of both widths score alike, within 90 points."
verdict = {word = "contested", date = 2026-11-26, because = "Two papers."}
[[claims.retests]]
name = "alike"
question = "Do they score alike?"
study = "wide.toml"
rules = [
  {title = "Wide nets score more", supports = "excluded"}, {title = "Wide nets score far more", supports = "excluded"},
]
"""


def ledger(folder: Path, *, study: str = STUDY, claims: str = CLAIMS) -> Ledger:
    (folder / "wide.toml").write_text(study)
    (folder / "claims.toml").write_text(claims)
    return read(folder / "claims.toml")


def timeless(record: ClaimsRecord) -> bytes:
    """The record as JSON, without the seconds that it took."""
    return re.sub(rb'"seconds": [\d.]+', b"", as_json(record))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ClaimsRecord]:
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, retested(ledger(folder), run=RetestRun(folder=folder / "out"))


def test_verdicts_follow_the_rules(whole: tuple[Path, ClaimsRecord]) -> None:
    first, second = whole[1].claims
    assert (first.answer, second.answer) == ("supports", "refutes")
    [retest] = second.retests
    assert [rule.answer for rule in retest.rules] == ["refutes", "supports"]
    assert retest.nets == 24 and retest.seconds > 0.0
    assert whole[1].alpha == pytest.approx(0.05 / 2)  # over the ledger, not over what was run


def test_both_claims_share_one_store_and_the_page_holds_them(whole: tuple[Path, ClaimsRecord]) -> None:
    out = whole[0] / "out"
    assert [path.name for path in out.glob("*.wheeltap")] == ["wide.toml-small.wheeltap"]
    assert read_record(out / "claims.json") == whole[1]
    page = (out / "claims.html").read_text()
    assert "W1: Wide nets score more." in page and "<svg" in page and "<script" not in page


def test_an_interrupted_run_resumes_to_the_same_record(whole: tuple[Path, ClaimsRecord], tmp_path: Path) -> None:
    seen = 0

    @contextmanager
    def stopping(label: str) -> Generator[Watch]:
        def watch(state: Progress) -> None:
            nonlocal seen
            seen += 1
            if state.total and not state.making and state.done >= 0.5 * state.total and seen > 3:
                raise KeyboardInterrupt

        yield watch

    with pytest.raises(KeyboardInterrupt):
        retested(ledger(tmp_path), run=RetestRun(folder=tmp_path / "out", watch=stopping))
    assert not (tmp_path / "out" / "claims.json").exists()
    again = retested(ledger(tmp_path), run=RetestRun(folder=tmp_path / "out"))
    assert timeless(again) == timeless(whole[1])


def test_a_store_of_other_rules_is_refused(whole: tuple[Path, ClaimsRecord], tmp_path: Path) -> None:
    out, fewer = whole[0] / "out", f"[[claims]]{CLAIMS.split('[[claims]]')[1]}"
    changed = {
        "rules and settings": ({"study": STUDY.replace("margin = 0.05", "margin = 0.06")}, 0),
        "level": ({"claims": fewer}, 0),
        "another seed": (dict[str, str](), 1),
    }
    for named, (given, seed) in changed.items():
        with pytest.raises(StoreError) as error:
            retested(ledger(tmp_path, **given), run=RetestRun(request=StudyRequest(seed=seed), folder=out))
        assert named in error.value.got


def test_a_longer_ledger_has_a_stricter_level_and_measures_nothing_again(
    whole: tuple[Path, ClaimsRecord], tmp_path: Path
) -> None:
    shutil.copytree(whole[0] / "out", tmp_path / "out")
    longer = ledger(tmp_path, claims=f"{CLAIMS}{CLAIMS.replace('W1', 'V1').replace('W2', 'V2')}")
    record = retested(longer, run=RetestRun(folder=tmp_path / "out"))
    assert record.alpha == pytest.approx(whole[1].alpha / 2) and len(record.claims) == 4
    seconds = [one.retests[0].seconds for one in (record.claims[0], whole[1].claims[0])]
    assert seconds[0] == seconds[1]


def test_studies_of_one_name_and_files_of_one_study_have_stores_of_their_own() -> None:
    """In one store the second would get what the first was found to say."""
    files = [NeededFile(file=name, get="") for name in ("a.jsonl", "b.jsonl")]
    several = [
        *(Retest(name="r", question="", study=study) for study in ("sam", "sam.toml", "a/sam.toml", "b/sam.toml")),
        *(Retest(name="r", question="", study="votes", data=one) for one in files),
    ]
    assert len({RetestRun().store(one) for one in several}) == len(several)
    assert {RetestRun().store(one).parent for one in several} == {RetestRun().folder}


def test_what_cannot_be_asked_is_refused_before_anything_runs(tmp_path: Path) -> None:
    no_rule = CLAIMS.replace('title = "Wide nets score far more"', 'title = "Wide nets win"')
    with pytest.raises(UnknownName, match="Wide nets score far more"):
        retested(ledger(tmp_path, claims=no_rule), run=RetestRun(folder=tmp_path / "out"))
    dead = STUDY.replace("margin = 0.9", "margin = 1.1")
    with pytest.raises(UsageError):
        retested(ledger(tmp_path, study=dead), run=RetestRun(folder=tmp_path / "out"))
    with pytest.raises(UnknownName, match="W9"):
        retested(ledger(tmp_path), ["W9"], run=RetestRun(folder=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_retest_whose_file_is_not_given_is_not_run_and_decides_nothing(
    whole: tuple[Path, ClaimsRecord], tmp_path: Path
) -> None:
    """The verdict is that of the other retests, and says which one is missing; a claim without others is not run."""
    shutil.copytree(whole[0] / "out", tmp_path / "out")
    needing = """
[[retests]]
name = "people"
question = "Q?"
study = "votes"
data = { file = "votes.jsonl", get = "from their authors" }
rules = [{ title = "Relative noise adds to outputs, above 0.1" }]
"""
    alone = """
[[claims]]
id = "W3"
statement = "S."
verdict = { word = "contested", date = 2026-11-26, because = "B." }
""" + needing.replace("[[retests]]", "[[claims.retests]]")
    claims = CLAIMS.replace("[[claims]]", alone + "\n[[claims]]", 1)
    record = retested(ledger(tmp_path, claims=claims), ["W3"], RetestRun(folder=tmp_path / "out", data=tmp_path))
    [claim] = record.claims
    assert claim.answer == "not run" and "from their authors" in claim.because
    [one], two = whole[1].claims[0].retests, claim.retests[0]
    both = claim_result(read(tmp_path / "claims.toml").chosen(["W1"])[0], [one, two])
    assert both.answer == one.answer != "not run"
