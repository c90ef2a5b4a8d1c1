"""``wheeltap claims``: exit codes, files, and the fields of a ledger that each verb prints."""

import re
from pathlib import Path

import msgspec
import pytest

from wheeltap.cli import main
from wheeltap.suites.claims import record
from wheeltap.suites.claims.ledger import read

MINE = """
id = "table"
statement = "The tuned model leads."
scope = "Our two models."
change = "Other rows."
verdict = { word = "durable", date = 2026-11-01, because = "As its table shows." }
sources = [
  { title = "our table", grade = "ungrounded", side = "for", says = "70 against 56." },
  { grade = "absence", side = "against", says = "None is known." },
]
[[retests]]
name = "people"
question = "Does noise add to outputs?"
study = "votes"
data = { file = "votes.jsonl", get = "from their authors" }
rules = [{ title = "Relative noise adds to outputs, above 0.1" }]
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A ledger of one claim, whose only retest lacks its file: a run of it trains no model."""
    (tmp_path / "mine.toml").write_text(MINE)
    return tmp_path / "mine.toml"


def printed(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_list_show_and_why_print_verdict_sources_and_what_would_change_it(capsys: pytest.CaptureFixture[str]) -> None:
    ledger = read()
    assert main(["claims", "list"]) == 0
    overview = printed(capsys)
    for claim in ledger.claims:
        assert f"{claim.id}: {claim.statement}" in overview
        assert f"{claim.verdict.word}, {claim.verdict.date}" in overview
        for verb in ("show", "why"):
            assert main(["claims", verb, claim.id]) == 0
            card = printed(capsys)
            assert claim.verdict.because in card and claim.change in card, (verb, claim.id)
            sources = claim.sources if verb == "show" else [one for one in claim.sources if one.side != "context"]
            assert all(source.name in card for source in sources if source.arxiv), (verb, claim.id)
    assert main(["claims", "show", "C10"]) == 2 and "'C1'" in capsys.readouterr().err


def test_retest_writes_the_verdicts_as_json_where_it_is_told_to(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, file = tmp_path / "out", tmp_path / "new" / "verdicts.json"
    command = ["claims", "retest", "--ledger", str(mine), "--out", str(out)]
    assert main([*command, "--json", str(file)]) == 0
    assert str(file) in capsys.readouterr().out.replace("\n", "")
    found = record.read(file)
    assert found == record.read(out / "claims.json") and (out / "claims.html").exists()
    assert [(claim.id, claim.answer) for claim in found.claims] == [("table", "not run")]
    assert main([*command, "--json", "-"]) == 0
    assert msgspec.json.decode(capsys.readouterr().out, type=record.ClaimsRecord) == found
    assert main([*command[:-1], str(tmp_path / "never"), "--json", str(tmp_path)]) == 2  # a folder
    assert not (tmp_path / "never").exists()
    capsys.readouterr()
    assert main(["claims", "why", "table", "--ledger", str(mine), "--run", str(file)]) == 0
    card = printed(capsys)
    assert "not run" in card and "our table [ungrounded]" in card


def test_check_exits_with_1_where_there_is_a_fault(mine: Path) -> None:
    assert main(["claims", "check", str(mine)]) == 0
    mine.write_text(MINE.replace("date = 2026-11-01, ", ""))
    assert main(["claims", "check", str(mine)]) == 1


def test_the_documentation_names_the_studies_and_its_example_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[3] / "docs" / "claims.md").read_text()
    for claim in read().claims:
        [row] = [line for line in page.splitlines() if line.startswith(f"| {claim.id} |")]
        assert claim.verdict.word in row
        assert {f"`{retest.study}`" for retest in claim.retests} == set(re.findall("`[a-z-]+`", row)), claim.id
    example = page.split("```toml\n")[1].partition("```")[0]
    (tmp_path / "ours.toml").write_text(example)
    assert main(["claims", "show", "ours", "--ledger", str(tmp_path / "ours.toml")]) == 0
    assert "40% less lost at 4 bits." in printed(capsys)
