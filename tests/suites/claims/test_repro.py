"""A derived number against its rows: stale ones are refuted with the row; manifests of pinned files."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from wheeltap.core.errors import FileFormatError, MissingFile
from wheeltap.suites.claims.ledger import Derivation, read
from wheeltap.suites.claims.repro import ManifestCheck, checked, derived

CLAIM = """
id = "mine"
statement = "The tuned model leads."
verdict = {{ word = "durable", date = 2026-11-01, because = "As its table says." }}
[[retests]]
name = "table"
question = "Does the table say what the rows give?"
[retests.derived]
rows = "rows.jsonl"
column = "right"
number = "{number}"
{more}
"""


def _rows(folder: Path) -> None:
    """Base right in 5 of 9, tuned in 8 of 11."""
    rows = [{"model": "base", "right": at < 5} for at in range(9)] + [
        {"model": "tuned", "right": at < 8} for at in range(11)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))


def test_a_stale_number_of_a_table_is_refuted_with_its_row(tmp_path: Path) -> None:
    _rows(tmp_path)
    (tmp_path / "results.csv").write_text("model,score,n\nbase,0.556,9\ntuned,0.700,11\n")
    more = 'by = "model"\nfield = "score"'
    (tmp_path / "mine.toml").write_text(CLAIM.format(number="results.csv", more=more))
    [claim] = read(tmp_path / "mine.toml").claims
    asked = claim.retests[0].derived
    assert asked is not None
    found = derived(asked, tmp_path)
    assert found.verdict == "refutes"
    assert (
        "row tuned of results.csv says 0.700" in found.because and "11 rows of rows.jsonl is 0.727273" in found.because
    )
    assert "base" not in found.because
    (tmp_path / "results.csv").write_text("model,score,n\nbase,0.556,9\ntuned,0.727,11\n")
    assert derived(asked, tmp_path).verdict == "supports"


@pytest.mark.parametrize(
    ("stored", "given", "verdict"),
    [
        ('{"a": {"score": 0.65}}', {"number": "r.json#/a/score"}, "supports"),
        ('{"a": {"score": 0.66}}', {"number": "r.json#/a/score"}, "refutes"),
        ('{"a": [1, 65.0]}', {"number": "r.json#/a/1", "scale": 100.0}, "supports"),
        ('{"a": [1, 65.4]}', {"number": "r.json#/a/1", "scale": 100.0}, "refutes"),  # .1 is written, .4 is off
        ('{"a": 65.4}', {"number": "r.json#/a", "scale": 100.0, "tolerance": 0.5}, "supports"),
        ('{"a": 0.70}', {"number": "r.json#/a", "where": {"model": "tuned"}}, "refutes"),  # two digits are written
        ('{"a": 0.7}', {"number": "r.json#/a", "where": {"model": "tuned"}}, "supports"),
        ('{"a": 13}', {"number": "r.json#/a", "statistic": "sum"}, "supports"),
        ('{"a": 20}', {"number": "r.json#/a", "statistic": "count"}, "supports"),
        ('{"a": 19}', {"number": "r.json#/a", "statistic": "count"}, "refutes"),
        ('{"a/b": {"~": 0.65}}', {"number": "r.json#/a~1b/~0", "statistic": "share"}, "supports"),
        ('{"base": 0.56, "tuned": 0.73}', {"number": "r.json", "by": "model"}, "supports"),
        ('{"base": 0.56, "tuned": 0.73, "third": 0.9}', {"number": "r.json", "by": "model"}, "refutes"),  # no rows
        ('{"base": 0.56}', {"number": "r.json", "by": "model"}, "refutes"),  # a row is missing
        ('[{"model": "base", "s": 0.56}, {"model": "tuned", "s": 0.73}]',
         {"number": "r.json", "by": "model", "field": "s"}, "supports"),
        ('{"a": 1}', {"number": "r.json#/a", "where": {"model": "none"}}, "undecided"),
        ('{"a": 13}', {"number": "r.json#/a", "where": {"right": True}, "statistic": "count"}, "supports"),
        ('{"a": 1}', {"number": "r.json#/a", "column": "model"}, "undecided"),  # no number
        ('{"a": 0.65}', {"number": "r.json#/a", "sha256": "0" * 64}, "undecided"),
    ],
)  # fmt: skip
def test_what_is_written_is_held_against_what_rows_give(
    tmp_path: Path, stored: str, given: dict[str, Any], verdict: str
) -> None:
    _rows(tmp_path)
    (tmp_path / "r.json").write_text(stored)
    asked: Any = {"rows": "rows.jsonl", "column": "right", **given}
    found = derived(Derivation(**asked), tmp_path)
    assert found.verdict == verdict, found.because


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"rows.csv": "right\n1\n", "r.json": '{"a": "many"}'}, "no number"),
        ({"rows.csv": "right\n1\n", "r.json": '{"b": 1}'}, "Nothing stands"),
        ({"rows.csv": "right\n1\n", "r.json": "[" * 100_000}, "lists within lists"),
        ({"rows.csv": "right\n\xff\n", "r.json": '{"a": 1}'}, "UTF-8"),
        ({"rows.csv": 'right\n"1\n', "r.json": '{"a": 1}'}, "UTF-8"),
        ({"rows.csv": "right,right\n1,0\n", "r.json": '{"a": 0}'}, "two columns of one name"),
        ({"rows.csv": "right\n1\n", "r.json": '{"a": 1e999999}'}, "no number"),
        ({"rows.csv": "right\n1\n"}, "no table at this path"),
        ({"rows.csv": "model,wrong\na,1\n", "r.json": '{"a": 0}'}, "model, wrong"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_are_refused(tmp_path: Path, files: dict[str, str], said: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    for statistic in ("mean", "count"):
        asked = Derivation(rows="rows.csv", column="right", number="r.json#/a", statistic=statistic)
        with pytest.raises((FileFormatError, MissingFile), match=said):
            derived(asked, tmp_path)


@pytest.mark.parametrize("outside", ["../rows.csv", "/etc/hostname", "link.csv", "a\0b"])
def test_files_elsewhere_are_refused(tmp_path: Path, outside: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for place in (tmp_path, folder):
        (place / "rows.csv").write_text("right\n1\n")
        (place / "r.json").write_text('{"a": 1}')
    (folder / "link.csv").symlink_to(tmp_path / "rows.csv")
    for rows, number in ((outside, "r.json#/a"), ("rows.csv", f"{outside}#/a")):
        with pytest.raises(FileFormatError, match="not in the folder"):
            derived(Derivation(rows=rows, column="right", number=number), folder)
    (folder / "repro.yaml").write_text(json.dumps({"artifacts": [{"id": "a", "path": outside}]}))
    with pytest.raises(FileFormatError, match="not in the folder"):
        checked(folder / "repro.yaml")


def test_a_pointer_into_a_list_is_a_place_in_it(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("right\nTRUE\n")
    (tmp_path / "r.json").write_text('{"a": [0, 1]}')
    assert derived(Derivation(rows="rows.csv", column="right", number="r.json#/a/1"), tmp_path).verdict == "supports"
    for place in ("2", "²", "-1", "b"):
        with pytest.raises(FileFormatError, match="Nothing stands"):
            derived(Derivation(rows="rows.csv", column="right", number=f"r.json#/a/{place}"), tmp_path)


def test_two_rows_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("model,right\na,1\n")
    (tmp_path / "t.csv").write_text("model,right\na,1\na,0\n")
    with pytest.raises(FileFormatError, match="same name"):
        derived(Derivation(rows="rows.csv", column="right", number="t.csv", by="model", field="right"), tmp_path)


MANIFEST = """
artifacts:
  - id: rows
    path: rows.jsonl
    digest: {algorithm: sha256, value: "%s"}
  - id: results
    path: results.json
  - id: table
    path: table.csv
claims:
  - id: primary
    text: The tuned model leads.
    evidence:
      - {kind: metric, artifact: results, name: printed, pointer: /tuned, reported: 0.70}
      - {kind: metric, artifact: table, name: cell, pointer: /tuned/score, reported: "0.73"}
      - {kind: metric, artifact: table, name: wrong, pointer: /tuned/score, reported: "0.74"}
      - {kind: metric, artifact: table, name: lost, pointer: /turned/score, reported: "0.74"}
      - {kind: derived, artifact: results, name: odd, pointer: /tuned, rows: rows, column: right, scale: [1]}
      - {kind: derived, artifact: results, name: again, pointer: /tuned, rows: rows, column: right,
         where: {model: tuned}}
      - {kind: quote, artifact: results, name: words, text: leads}
      - {kind: metric, artifact: none, name: nowhere, pointer: /tuned, reported: 1}
other: {program: 1}
"""


def test_a_manifest_is_checked_file_by_file_and_number_by_number(tmp_path: Path) -> None:
    _rows(tmp_path)
    (tmp_path / "results.json").write_text('{"tuned": 0.70}')
    (tmp_path / "table.csv").write_text("model,score\nbase,0.56\ntuned,0.727\n")
    digest = hashlib.sha256((tmp_path / "rows.jsonl").read_bytes()).hexdigest()
    (tmp_path / "repro.yaml").write_text(MANIFEST % digest)
    found = {one.name: one for one in checked(tmp_path / "repro.yaml")}
    assert {name: one.status for name, one in found.items()} == {
        "file rows": "ok", "file results": "unchecked", "file table": "unchecked",
        "primary: printed": "ok", "primary: cell": "ok", "primary: wrong": "stale",
        "primary: again": "stale", "primary: words": "unchecked",
        "primary: nowhere": "unchecked", "primary: lost": "gone", "primary: odd": "gone",
    }  # fmt: skip
    assert "0.70" in found["primary: again"].because and "0.727273" in found["primary: again"].because
    (tmp_path / "rows.jsonl").write_text("{}")
    by_name: dict[str, ManifestCheck] = {one.name: one for one in checked(tmp_path / "repro.yaml")}
    assert by_name["file rows"].status == "changed"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &a [1]\nb: *a\n", "alias"),
        ("[" * 100_000, "."),
        ("artifacts: 1", "array"),
        ("artifacts:\n  - !!python/object/apply:os.system [ls]\n", "object"),
        ("# " + "x" * 2**18, "large"),
        ("a: \xff", "."),
        ("artifacts: " + "1:" * 60_000 + "1", "array"),  # minutes, were it read as a number
    ],
)  # fmt: skip
def test_hostile_manifests_are_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "repro.yaml").write_bytes(text.encode("latin-1"))
    with pytest.raises(FileFormatError, match=said):
        checked(tmp_path / "repro.yaml")
