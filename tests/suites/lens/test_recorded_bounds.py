"""Files that are damaged, unsafe or mixed: refused with a message, whole, before anything is kept."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from logs import HEADER, archive, choice, generated, lines, sample

from wheeltap.core import bounded
from wheeltap.core.errors import DataError, FileFormatError, MissingFile
from wheeltap.suites.lens.recorded import read


@pytest.mark.parametrize("name", ["../x.json", "samples/../../x.json", "/etc/x", "C:\\x.json", "a\\..\\..\\x", "C:x"])
def test_a_name_that_leads_out_of_an_archive_is_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "x.eval", [sample(1, 1, "C")])
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(zipfile.ZipInfo(name), "{}")
    with pytest.raises(FileFormatError, match="leads out of it") as error:
        read(path)
    assert error.value.got == repr(name)


def test_an_archive_that_inflates_beyond_a_bound_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.eval", [sample(1, 1, "C")])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("samples/2_epoch_1.json", b" " * (bounded.MEMBER + 1))
    with pytest.raises(FileFormatError, match="inflates beyond a bound"):
        read(path)


def test_many_members_together_are_bounded_too(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.eval", [sample(1, 1, "C")])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for at in range(bounded.LEAST // bounded.MEMBER + 1):  # none of them is too large by itself
            file.writestr(f"samples/{at + 2}_epoch_1.json", b" " * bounded.MEMBER)
    with pytest.raises(FileFormatError, match="inflates beyond a bound"):
        read(path)


def test_a_member_that_is_larger_than_it_says_is_not_read_on(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.eval", [sample(1, 1, "C", input="x" * 10_000)])
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        info = file.getinfo("samples/1_epoch_1.json")
    at = data.index((info.file_size).to_bytes(4, "little"), data.index(b"PK\x01\x02"))
    data[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(FileFormatError):
        read(path)


@pytest.mark.parametrize("keep", [0.5, 0.98])
def test_an_archive_that_was_cut_short_is_refused(tmp_path: Path, keep: float) -> None:
    path = archive(tmp_path / "x.eval", [sample(at, 1, "C") for at in range(20)])
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data))])
    with pytest.raises(FileFormatError, match="log cannot be read"):
        read(path)


def test_flipped_bits_in_an_archive_are_noticed(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.eval", [sample(at, 1, "C") for at in range(3)])
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(FileFormatError):
        read(path)


def test_another_archive_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("hello.txt", "hello")
    with pytest.raises(FileFormatError, match="no log of inspect") as error:
        read(path)
    assert error.value.got == "hello.txt"


_FILES: dict[str, list[dict[str, Any]]] = {
    "own": [{"id": str(at), "correct": True, "answer": "é" * 9} for at in range(6)],
    "counts": [{"id": str(at), "n": 8, "c": 4} for at in range(6)],
    "lm_eval": [choice(at, [-1.0, -2.0], 0) for at in range(6)],
    "generated": [generated(at, ["4"], 1.0) for at in range(6)],
    "solutions": [{"question": str(at), "m": {"is_correct": True, "solution": ""}} for at in range(6)],
    "votes": [{"id": str(at), "q0_gold": ["neutral"]} for at in range(6)],
}


@pytest.mark.parametrize("name", _FILES)
@pytest.mark.parametrize("cut", [2, 12, 30])
def test_a_log_that_is_cut_within_a_line_is_refused_with_that_line(tmp_path: Path, name: str, cut: int) -> None:
    path = lines(tmp_path / "x.jsonl", _FILES[name])
    whole = path.read_bytes()
    last = len(whole.rstrip().rpartition(b"\n")[2])
    path.write_bytes(whole[: -min(cut, last)])
    with pytest.raises(FileFormatError, match="line 6") as error:
        read(path)
    assert "cut short" in (error.value.do or "")


@pytest.mark.parametrize("one", _FILES)
@pytest.mark.parametrize("two", _FILES)
def test_lines_of_two_shapes_in_one_file_are_refused_with_the_line(tmp_path: Path, one: str, two: str) -> None:
    if one == two:
        return
    path = lines(tmp_path / "x.jsonl", [*_FILES[one][:3], {**_FILES[two][3], "id": "other"}])
    with pytest.raises(FileFormatError, match="line 4"):
        read(path)


def test_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="got: a folder"):
        read(tmp_path)


@pytest.mark.parametrize("name", _FILES)
def test_the_mark_of_utf8_before_a_file_is_passed_over(tmp_path: Path, name: str) -> None:
    path = lines(tmp_path / "x.jsonl", _FILES[name])
    without = read(path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read(path).items == without.items


def test_the_mark_of_utf8_before_a_document_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text("\ufeff" + json.dumps({**HEADER, "samples": [sample(1, 1, "C")]}, indent=1))
    assert read(path).items == ("1",)


DEEP = "[" * 200_000 + "]" * 200_000


def test_a_member_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "x.eval", [sample(1, 1, "C")])
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("samples/2_epoch_1.json", f'{{"id": 2, "more": {DEEP}}}')
    with pytest.raises(FileFormatError, match="cannot be read") as error:
        read(path)
    assert (error.value.where or "").endswith("samples/2_epoch_1.json")


@pytest.mark.parametrize("number", [10**21, 2**31, 2**63])
@pytest.mark.parametrize(
    "row", [{"n": 0, "c": 1}, {"n": 8, "c": 0}, {"votes": {"a": 0}}, {"sample": 0, "correct": True}]
)
def test_numbers_that_are_too_large_are_refused_with_the_line(tmp_path: Path, row: dict[str, Any], number: int) -> None:
    def with_number(value: Any) -> Any:
        """The same with the number in the place of each 0."""
        if isinstance(value, dict):
            return {name: with_number(one) for name, one in value.items()}
        return number if value == 0 and value is not False else value

    first = {"id": "a", **{name: {"a": 1} if name == "votes" else 1 for name in row}}
    rows = [first, {"id": "b", **with_number(row)}]
    if "sample" in row and number < 2**62:
        assert len(read(lines(tmp_path / "x.jsonl", rows)).items) == 2
        return
    with pytest.raises(DataError, match="line 2"):
        read(lines(tmp_path / "x.jsonl", rows))
