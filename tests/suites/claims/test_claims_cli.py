"""``wheeltap claims``: what each verb prints, writes and ends with."""

import json
import re
from pathlib import Path

import pytest

from wheeltap.cli import main
from wheeltap.suites.claims.ledger import read

STALE = """
id = "table"
statement = "The tuned model leads."
scope = "Our two models."
change = "Other rows."
verdict = { word = "durable", date = 2026-11-01, because = "As its table says." }
sources = [
  { title = "our table", grade = "ungrounded", side = "for", says = "70 against 56." },
  { grade = "absence", side = "against", says = "None is known." },
]
[[retests]]
name = "score"
question = "Does the table say what the rows give?"
derived = { rows = "rows.csv", column = "right", number = "results.csv", by = "model", field = "score" }
"""


def _mine(folder: Path, *, score: str) -> Path:
    rows = ["base,0", "base,1", *["tuned,1"] * 8, *["tuned,0"] * 3]
    (folder / "rows.csv").write_text("model,right\n" + "\n".join(rows))
    (folder / "results.csv").write_text(f"model,score\nbase,0.5\ntuned,{score}\n")
    (folder / "mine.toml").write_text(STALE)
    return folder / "mine.toml"


def test_list_show_and_why_say_verdict_grades_and_what_would_change_it(capsys: pytest.CaptureFixture[str]) -> None:
    ledger = read()
    assert main(["claims", "list"]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert listed.startswith("9 claims; by the literature: ")
    for claim in ledger.claims:
        assert f"{claim.id}: {claim.statement}" in listed and f"{claim.verdict.word}, {claim.verdict.date}" in listed
        for verb in ("show", "why"):
            assert main(["claims", verb, claim.id]) == 0
            said = " ".join(capsys.readouterr().out.split())
            assert claim.verdict.because in said and claim.change in said, (verb, claim.id)
            sources = claim.sources if verb == "show" else [one for one in claim.sources if one.side != "context"]
            assert all(one.name in said for one in sources if one.arxiv), (verb, claim.id)
    assert main(["claims", "show", "C2"]) == 0
    assert "2209.04836 [ungrounded]" in capsys.readouterr().out
    assert main(["claims", "show", "C10"]) == 2 and "Did you mean 'C1'" in capsys.readouterr().err


def test_a_users_claims_are_checked_and_a_stale_number_is_refuted_with_its_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = _mine(tmp_path, score="0.70")
    assert main(["claims", "check", str(mine)]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("1 fault in 1 of 1 claim. table, retest score: Stale: row tuned of results.csv says 0.70; ")
    out = tmp_path / "out"
    assert main(["claims", "retest", "--ledger", str(mine), "--out", str(out), "--quiet"]) == 0
    assert "refutes" in capsys.readouterr().out
    assert main(["claims", "why", "table", "--ledger", str(mine), "--run", str(out / "claims.json")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Our run: refutes." in said and "row tuned of results.csv says 0.70" in said
    assert "our table [ungrounded] (ungrounded): 70 against 56." in said
    assert main(["claims", "check", str(_mine(tmp_path, score="0.73"))]) == 0
    assert main(["claims", "retest", "table", "--ledger", str(mine), "--out", str(tmp_path / "new"), "--quiet"]) == 0
    capsys.readouterr()
    runs = [str(folder / "claims.json") for folder in (out, tmp_path / "new")]
    assert main(["claims", "diff", *runs]) == 1
    said = capsys.readouterr().out
    assert "refutes" in said and "supports" in said
    assert main(["claims", "diff", runs[0], runs[0]]) == 0


def test_what_cannot_be_read_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = _mine(tmp_path, score="0.70")
    mine.write_text(STALE.replace("statement", "sentence"))
    for verb in (["check", str(mine)], ["list", "--ledger", str(mine)], ["retest", "--ledger", str(mine)]):
        assert main(["claims", *verb]) == 2
        said = capsys.readouterr().err
        assert "sentence" in said and "mine.toml" in said and "claim table" in said
    (tmp_path / "repro.yaml").write_text("artifacts:\n  - {id: rows, path: rows.csv, digest: {value: '0'}}\n")
    assert main(["claims", "check", str(tmp_path / "repro.yaml")]) == 1
    assert "changed: file rows." in capsys.readouterr().out


def test_export_as_json_has_every_field(tmp_path: Path) -> None:
    assert main(["claims", "export", "-o", str(tmp_path / "all.json")]) == 0
    held = json.loads((tmp_path / "all.json").read_text())
    assert [one["id"] for one in held["claims"]] == [claim.id for claim in read().claims]
    first = read().claims[0]
    assert held["claims"][0]["sources"][0]["arxiv"] == first.sources[0].arxiv
    assert held["claims"][0]["verdict"]["date"] == str(first.verdict.date)
    assert held["claims"][0]["file"] == "C1.toml"


def test_export_as_ro_crate_is_read_by_rocrate(tmp_path: Path) -> None:
    rocrate = pytest.importorskip("rocrate.rocrate", reason="needs wheeltap[claims]")
    mine = _mine(tmp_path, score="0.70")
    crate = tmp_path / "crate"
    assert main(["claims", "export", "--format", "ro-crate", "-o", str(crate), "--ledger", str(mine)]) == 0
    held = rocrate.ROCrate(str(crate))
    claim = held.dereference("#table")
    assert (
        claim.type == "Claim" and claim["text"] == "The tuned model leads." and claim["creativeWorkStatus"] == "durable"
    )
    review = held.dereference("#table-source-1")
    assert review["name"] == "our table [ungrounded]" and review["additionalType"]["name"] == "ungrounded"
    assert (crate / "ledger" / "mine.toml").read_text() == STALE
    assert main(["claims", "export", "--format", "ro-crate", "-o", str(tmp_path / "c.zip")]) == 0
    assert len(rocrate.ROCrate(str(tmp_path / "c.zip")).root_dataset["mentions"]) == 9


def test_the_examples_of_the_documentation_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[3] / "docs" / "claims.md").read_text()
    for claim in read().claims:
        [row] = [line for line in page.splitlines() if line.startswith(f"| {claim.id} |")]
        assert claim.verdict.word in row
        assert {f"`{retest.study}`" for retest in claim.retests} == set(re.findall("`[a-z-]+`", row)), claim.id
    ours, table = (block.partition("```")[0] for block in page.split("```toml\n")[1:])
    said = page.split("```text\n")[1].partition("```")[0].splitlines()
    (tmp_path / "ours.toml").write_text(ours)
    assert main(["claims", "show", "ours", "--ledger", str(tmp_path / "ours.toml")]) == 0
    assert "40% less lost at 4 bits." in " ".join(capsys.readouterr().out.split())
    head = STALE.partition("[[retests]]")[0]
    (tmp_path / "table.toml").write_text(head + table)
    rows = [{"model": "tuned", "split": "test", "correct": at < 175} for at in range(240)]
    rows += [{"model": "tuned", "split": "train", "correct": True}]
    (tmp_path / "rollouts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "results.csv").write_text("model,score\ntuned,70.0\n")
    assert main(["claims", "check", str(tmp_path / "table.toml")]) == 1
    assert capsys.readouterr().out.split() == " ".join(said[1:]).split()
    yaml = page.split("```yaml\n")[1].partition("```")[0]
    (tmp_path / "repro.yaml").write_text(yaml)
    (tmp_path / "summary.json").write_text('{"tuned": 73.0}')
    assert main(["claims", "check", str(tmp_path / "repro.yaml")]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "stale: gain: evidence 1." in printed and "changed: file rollouts." in printed, printed
