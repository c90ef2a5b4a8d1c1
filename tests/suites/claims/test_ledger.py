"""Files of claims: what is read, and what is refused."""

from pathlib import Path

import pytest

from wheeltap.cli.options import settings_in
from wheeltap.core.errors import DataError, FileFormatError, MissingFile, UnknownName
from wheeltap.plans.plan import ALPHA
from wheeltap.studies import declared
from wheeltap.suites.claims.ledger import KINDS, LARGEST, read

CLAIM = """
id = "mine"
statement = "Nets of mine are safe."
[verdict]
word = "durable"
date = 2026-11-01
because = "They were so far."
"""


def test_ours_are_nine_in_order_each_with_what_it_rests_on() -> None:
    ledger = read()
    assert [claim.id for claim in ledger.claims] == [f"C{number}" for number in range(1, 10)]
    for claim in ledger.claims:
        assert {row.kind for row in claim.scopes if row.shown} and {row.kind for row in claim.scopes} == set(KINDS)
        assert [row.ran for row in claim.scopes if row.ran], claim.id
        assert claim.scope and claim.change and claim.sources


def test_a_file_holds_one_claim_or_several_and_a_folder_all_but_its_studies(tmp_path: Path) -> None:
    (tmp_path / "A²x.toml").write_text(CLAIM.replace("mine", "square", 1))
    (tmp_path / "C10.toml").write_text(CLAIM.replace("mine", "ten", 1))
    (tmp_path / "C2.toml").write_text(
        '[[claims]]\nid="a"\nstatement="A."\nverdict={word="relaxed",because=""}\n'
        '[[claims]]\nid="b"\nstatement="B."\nverdict={word="durable",because=""}\n'
        'retests=[{name="one",question="?",study="rlvr"},{name="two",question="?",study="pictures"}]\n'
    )
    (tmp_path / "study.toml").write_text('question="?"\nrules=[]\n[cohorts.a]\n[metrics.b]\n')
    ledger = read(tmp_path)
    assert [claim.id for claim in ledger.claims] == ["square", "a", "b", "ten"]  # C2 before C10
    assert [claim.id for claim in ledger.chosen(["ten", "a"])] == ["a", "ten"]
    assert len(ledger.claims[1].scopes) == len(KINDS) and ledger.claims[1].scopes[0].open == "all of it"
    assert ledger.alpha == ALPHA / 2  # of two studies, whichever of them are run
    with pytest.raises(UnknownName):
        ledger.chosen(["c"])


@pytest.mark.parametrize(
    ("written", "said"),
    [
        (CLAIM.replace("statement", "statment"), "mine"),
        (CLAIM + "colour = 1\n", "colour"),
        (CLAIM + '[[retests]]\nname="../up"\nquestion=""\n', "name"),
        (CLAIM.replace("2026-11-01", '"soon"'), "verdict.date"),
        ("x = " + "[" * 50_000, "mine.toml"),
    ],
)  # fmt: skip
def test_what_is_no_claim_is_refused_with_its_file(tmp_path: Path, written: str, said: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(written)
    with pytest.raises((FileFormatError, UnknownName), match=said) as refused:
        read(file)
    assert str(file) in str(refused.value)


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("a." * 100_000 + "b = 1")  # the parser would need 40 GB
    for reader in (read, settings_in, declared.read):
        with pytest.raises(FileFormatError):
            reader(file)
    for written in (b"id = '\xff\xfe'", b"#" * (LARGEST + 1)):
        file.write_bytes(written)
        with pytest.raises(FileFormatError):
            read(file)


def test_no_file_and_a_folder_without_claims_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        read(tmp_path / "none.toml")
    with pytest.raises(DataError):
        read(tmp_path)
