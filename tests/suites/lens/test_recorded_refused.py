"""Files of answers and votes that are damaged, unsafe, mixed or wrong: refused whole, with what is wrong and where."""

import importlib.util
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from logs import HEADER, archive, by_zstandard, choice, generated, in_frames, lines, loaded, sample

from wheeltap.core import bounded
from wheeltap.core.bounded import SETTINGS
from wheeltap.core.errors import DataError, FileFormatError, MissingFile, WheeltapError
from wheeltap.suites.lens.recorded import read

DEEP = "[" * 200_000 + "]" * 200_000
HALVES = {"id": 1, "probabilities": {"a": 0.5, "b": 0.5}}
NEUTRAL = {"id": 1, "q0_gold": ["neutral"]}
GROUPED = [{"id": "a", "correct": True, "group": "old"}, {"id": "b", "correct": True, "group": "new"}]
STATED = {"example_id": "1_c", "ambiguous_sentence_key": "premise", "disambiguation": "It rains.", "template_id": 0,
          "answer": True, "prediction": 1.0}  # fmt: skip
WENT_ON = {"id": 1, "options": {"y0": {"KL_div": 0.1}, "d": {"KL_div": 0.5}}, "num_conts": 9}
WITHIN = {"resps": [["x"]], "filtered_resps": ["x"], "metrics": ["pass@4"], "pass@4": 1.0}

Case = tuple[str, Any, type[WheeltapError], str, dict[str, str]]
"""Name of the file; its rows, document or text; the error, what it says, and its parts: ``got`` and ``expected`` whole,
``where`` by its end, ``in_got`` and ``do`` in part."""

OWN: list[Case] = [
    ("v.jsonl", [{"id": 0, "votes": {"yes": 2, "no": 1}}, {"id": 1, "votes": {"red": 2, "blue": 1}}], DataError,
     "different sets of labels", {"got": "no, yes; blue, red"}),
    ("m.jsonl", [{"id": 1, "correct": "maybe"}], FileFormatError, "line 1", {}),
    ("m.jsonl", [{"id": 1, "correct": 0.5}, {"id": 2, "correct": -1e308}], DataError, "score is too large",
     {"where": "line 2", "got": "-1e+308"}),
    ("m.jsonl", [{"id": 1, "system": "x" * 201, "correct": True}], DataError, "name of a system is too long",
     {"where": "line 1", "in_got": "201"}),
    ("m.jsonl", [{"id": 1, "correct": True, "prompt": [0] * (SETTINGS + 1)}], FileFormatError, "too many parts",
     {"where": "line 1"}),
    ("c.jsonl", [{"id": 0, "n": 4, "c": 4}, {"id": 1, "n": 4, "c": 5}], DataError, "cannot be counts",
     {"where": "line 2", "in_got": "1 (c 5, n 4)"}),
    ("m.jsonl", [{"id": 1, "correct": None}], DataError, "No answer is graded", {"got": "null in 1 line"}),
    ("m.jsonl", [{"id": 1, "correct": True}, {"id": 2, "answer": "4"}], FileFormatError, "line 2",
     {"in_got": "id, answer"}),
    *(("m.jsonl", [HALVES, {"id": 2, "probabilities": p}], DataError, "Probabilities", {"where": "line 2"})
      for p in ({"a": 0.5, "b": 0.4}, {"a": 1.5, "b": -0.5}, {"a": 0.5, "c": 0.5})),
    ("m.jsonl", [{**HALVES, "votes": {"a": 1, "c": 1}}], DataError, "not in the set", {"got": "c"}),
    ("m.jsonl", [{"id": 1, "sample": 3, "correct": True}] * 2, DataError, "twice", {"got": "1, as on line 1"}),
    *(("m.jsonl", [*GROUPED, {"correct": True, **wrong}], DataError, "group is not clear", {})
      for wrong in ({"id": "a", "group": "new"}, {"id": "c", "group": ""})),
    *(("m.jsonl", [{"id": at, "correct": float("nan") if at == place else 1.0} for at in range(3)], FileFormatError,
       f"line {place + 1}", {"do": "NaN"}) for place in (0, 1)),
    ("v.jsonl", [{"id": "a", "votes": {"x": 1, "y": 2}}, {"id": "b", "votes": {"x": 0, "y": 0}}], DataError,
     "Nobody voted", {"got": "0 votes on 1: b"}),
    ("v.jsonl", [{"id": "a", "votes": {"x": 1, "y": 2}}] * 2, DataError, "twice", {"where": "line 2"}),
    *(("v.jsonl", [{"id": "x", "raters": raters}], WheeltapError, "v.jsonl", {})
      for raters in ({"ann": {"x": 1}}, {"ann": 3.5}, {"ann": ["x", "y"]}, ["yes"])),
    ("x.jsonl", [{"id": 1, "q0_gold": "['neutral']"}], FileFormatError, "line 1", {}),
]  # fmt: skip

LOGS: list[Case] = [
    ("s.jsonl", [generated(0, ["4"], 1.0), generated(1, ["4"], 1.0), generated(0, ["5"], 0.0, name="other")], DataError,
     "Filters of a log", {"got": "2 under strict-match, 1 under other"}),
    *(("s.jsonl", [generated(0, ["4"], 1.0), generated(1, ["4"], 1.0, exact_match=grade)], FileFormatError, "line 2",
       {"got": str(grade)}) for grade in ("nan", None)),
    ("s.jsonl", [generated(0, ["4", "5"], 0.3)], FileFormatError, "line 1", {"got": "0.3"}),
    ("results.json", json.dumps({"results": {"x": {"acc": 0.5}}, "configs": {}, "versions": {}}, indent=1),
     FileFormatError, "no answers", {"do": "--log_samples"}),
    ("s.jsonl", [{"doc_id": 0, "resps": [["4"]], "filtered_resps": ["4"], "filter": "none", "bypass": None}],
     FileFormatError, "whether it is right", {}),
    ("s.jsonl", [{"doc_id": 0, "resps": [["4"]], "filtered_resps": ["4"], "filter": "none", "metrics": ['a"b'],
                  'a"b': 1.0}], FileFormatError, "name of a metric", {}),
    ("s.jsonl", [{"doc_id": at, "doc_hash": f"h{at}", **WITHIN} for at in range(3)], DataError,
     "pass@4 is not defined for so few answers", {"got": "1", "where": "line 1"}),
    ("x.eval", [sample(1, 1, "maybe")], DataError, "no number", {"got": "maybe"}),
    ("x.eval", [], FileFormatError, "holds no samples", {}),
    ("x.json", HEADER, FileFormatError, "holds no samples", {}),
    ("x.json", {**HEADER, "samples": [{"id": 1, "scores": {"match": 3}}]}, FileFormatError, "cannot be read", {}),
]  # fmt: skip

VOTES: list[Case] = [
    ("x.jsonl", [{"uid": "a", "label_counter": {"n": 60, "e": 40}}], FileFormatError, "no known format", {}),
    ("x.jsonl", [NEUTRAL, {"id": 2, "q0_gold": ["neutrall"]}], DataError, "not in the set",
     {"got": "neutrall", "where": "line 2"}),
    *(("x.csv", f"id,n,c_a,c_b\n1,1,1,0\n{body}", FileFormatError, "line 3", {"got": got}) for body, got in (
        ("7,4,2,1\n", "3 votes"), ("7,3,2\n", "3 columns"), ("7,3,x,1\n", "could not convert string to float: 'x'"),
    )),
    *(("x.csv", f"id,c_a,c_b,n\n1,2,1,3\n2,{row}\n", FileFormatError, "does not fit",
       {"where": "x.csv, line 3", "expected": "whole numbers of votes"})
      for row in ("1.5,1,3", "nan,1,3")),
    ("x.csv", "id,text\n1,hello\n", FileFormatError, "has no votes", {}),
    ("x.csv", "id,c_a,c_b\n1,2,1\n2,0,0\n", DataError, "x.csv", {}),
    ("x.csv", "id,a1,a2,c_0,c_1\nx,0,1,2,0\n", DataError, r"people \(a1, a2", {}),
    *(("x.jsonl", [STATED, {**STATED, **changed}], DataError, what, {"where": "line 2"}) for changed, what in (
        ({"template_id": 4}, "none of the four templates"), ({"template_id": 3}, "none of the four templates"),
        ({"example_id": 2, "prediction": 0.5}, "neither true nor false"), ({}, "is there twice"),
    )),
    ("x.jsonl", [WENT_ON] * 3, DataError, "more than twice", {}),
    ("x.jsonl", [{**WENT_ON, "options": {"y0": {"KL_div": 0.1}}}], FileFormatError, "does not fit", {}),
    ("x.jsonl", [WENT_ON, {**WENT_ON, "options": {"y0": {}, "d": {}}}], FileFormatError, "does not fit", {}),
    ("x.jsonl", [{**NEUTRAL, "labels": ["neutral"], "q1_gold": ["neutral"], "d1_gold": [True]}, {**NEUTRAL, "id": 2}],
     FileFormatError, "no votes on its rewrites", {}),
]  # fmt: skip

SHAPELESS: list[Case] = [
    *(("x.jsonl", text.encode("latin-1"), FileFormatError, "no known format", {})
      for text in ("hello\n", '[{"id": 1, "correct": true}]', "\xff\xfe", '{"a": 1}\n')),
    *((name, text.encode(), FileFormatError, "The file is empty", {"where": name})
      for name, text in (("x.jsonl", ""), ("x.csv", "\n\n"), ("x.eval", "\ufeff"))),
    ("x.jsonl", f'{{"id": 2, "correct": true, "more": {DEEP}}}\n', FileFormatError, "lists within lists", {}),
    ("x.jsonl", f'{{"id": 1, "correct": true}}\n{{"id": 2, "correct": true, "more": {DEEP}}}\n', FileFormatError,
     "lists within lists", {"where": "x.jsonl, line 2"}),
    ("x.json", f'{{\n"a": {DEEP}\n}}', FileFormatError, "lists within lists", {}),
]  # fmt: skip


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    for name, content, kind, what, parts in (*OWN, *LOGS, *VOTES, *SHAPELESS):
        with pytest.raises(kind, match=what) as caught:
            loaded(tmp_path / name, content)
        error, shown = caught.value, f"{name}, {what}: {caught.value}"
        assert str(tmp_path / name) in (error.where or ""), shown
        for part in parts.keys() & {"got", "expected"}:
            assert getattr(error, part) == parts[part], shown
        assert (error.where or "").endswith(parts.get("where", "")), shown
        assert parts.get("in_got", "") in (error.got or "") and parts.get("do", "") in (error.do or ""), shown


# ---- archives ------------------------------------------------------------------------------------------------------


def added(path: Path, data: str | bytes, *names: str) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for name in names:
            file.writestr(name, data)


def understated(path: Path) -> None:
    """A member is larger than the list of contents says."""
    with zipfile.ZipFile(path) as file:
        size = file.getinfo("samples/1_epoch_1.json").file_size.to_bytes(4, "little")
    data = bytearray(path.read_bytes())
    at = data.index(size, data.index(b"PK\x01\x02"))
    data[at : at + 4] = (100).to_bytes(4, "little")
    path.write_bytes(data)


def zstandard(path: Path) -> None:
    """The first member says that it is packed by Zstandard, and is not."""
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02") + 10
    data[at : at + 2] = (93).to_bytes(2, "little")
    path.write_bytes(data)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF
    path.write_bytes(data)


def another(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("hello.txt", "hello")


HAS_ZSTANDARD = importlib.util.find_spec("zstandard") is not None
OUTSIDE = ("samples/../../x.json", "/etc/x", "C:\\x.json")
MEMBERS = [f"samples/{at + 9}_epoch_1.json" for at in range(bounded.LEAST // bounded.MEMBER + 1)]
Damage = Callable[[Path], Any]

DAMAGED: list[tuple[Damage, str, str]] = [
    *((lambda path, name=name: added(path, "{}", name), "leads out of it", repr(name)) for name in OUTSIDE),
    (lambda path: added(path, b" " * (bounded.MEMBER + 1), MEMBERS[0]), "inflates beyond a bound", ""),
    # None of these members is too large by itself.
    (lambda path: added(path, b" " * bounded.MEMBER, *MEMBERS), "inflates beyond a bound", ""),
    (understated, "log cannot be read", ""),
    *((lambda path, keep=keep: path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)]),
       "log cannot be read", "") for keep in (0.5, 0.98)),
    (flipped, "log cannot be read", ""),
    (another, "no log of inspect", "hello.txt"),
    (zstandard, "log cannot be read" if HAS_ZSTANDARD
     else "(?s)packed by Zstandard.*pip install zstandard.*inspect log convert FILE --to json", ""),
    (lambda path: added(path, f'{{"id": 2, "more": {DEEP}}}', MEMBERS[0]),
     f"(?s)cannot be read.*{MEMBERS[0]}", ""),
]  # fmt: skip


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    for damage, what, got in DAMAGED:
        path = archive(tmp_path / "x.eval", [sample(at + 1, 1, "C", input="x" * 10_000) for at in range(3)])
        damage(path)
        with pytest.raises(FileFormatError, match=what) as caught:
            read(path)
        assert got in (caught.value.got or ""), (what, got)


def looking_far_back(data: bytes) -> bytes:
    """A frame that asks for a window of 2^28 bytes, with one block as it is."""
    return b"\x28\xb5\x2f\xfd\x00" + bytes([(28 - 10) << 3]) + (len(data) << 3 | 1).to_bytes(3, "little") + data


@pytest.mark.parametrize(
    ("size", "how", "what"),
    [
        (10_000, {"size": 50}, "51 bytes of 50"),  # a bomb: more than the list of contents says
        (10_000, {"pack": looking_far_back}, "memory"),
        (10_000, {"pack": lambda data: in_frames(data[::-1])}, "other bytes than were written"),
    ],
)
def test_an_archive_packed_by_zstandard_is_never_more_than_it_says(
    tmp_path: Path, size: int, how: dict[str, Any], what: str
) -> None:
    pytest.importorskip("zstandard", reason="needs the package zstandard")
    path = by_zstandard(archive(tmp_path / "x.eval", [sample(1, 1, "C", input="x" * size)]), **how)
    assert path.stat().st_size < 30_000
    tracemalloc.start()
    with pytest.raises(FileFormatError) as caught:
        read(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert what in (caught.value.got or "") and most < 2**21


# ---- lines ---------------------------------------------------------------------------------------------------------

FILES: dict[str, list[dict[str, Any]]] = {
    "own": [{"id": str(at), "correct": True, "answer": "é" * 9} for at in range(6)],
    "counts": [{"id": str(at), "n": 8, "c": 4} for at in range(6)],
    "lm_eval": [choice(at, [-1.0, -2.0], 0) for at in range(6)],
    "generated": [generated(at, ["4"], 1.0) for at in range(6)],
    "votes": [{"id": str(at), "q0_gold": ["neutral"]} for at in range(6)],
}


def test_a_log_that_is_cut_or_has_lines_of_two_shapes_is_refused_with_the_line(tmp_path: Path) -> None:
    for name, rows in FILES.items():
        whole = lines(tmp_path / "x.jsonl", rows).read_bytes()
        (tmp_path / "x.jsonl").write_bytes(b"\xef\xbb\xbf" + whole)  # the mark of UTF-8 is passed over
        assert read(tmp_path / "x.jsonl").items == loaded(tmp_path / "y.jsonl", rows).items
        last = len(whole.rstrip().rpartition(b"\n")[2])
        for cut in (2, 12, 30):
            (tmp_path / "x.jsonl").write_bytes(whole[: -min(cut, last)])
            with pytest.raises(FileFormatError, match="line 6") as error:
                read(tmp_path / "x.jsonl")
            assert "cut short" in (error.value.do or "")
        for other in FILES.keys() - {name}:
            with pytest.raises(FileFormatError, match="line 4"):
                loaded(tmp_path / "x.jsonl", [*rows[:3], {**FILES[other][3], "id": "other"}])
    document = "\ufeff" + json.dumps({**HEADER, "samples": [sample(1, 1, "C")]}, indent=1)
    assert loaded(tmp_path / "x.json", document).items == ("1",)


def test_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(MissingFile, match="got: a folder"):
        read(tmp_path)


@pytest.mark.parametrize("number", [10**21, 2**31])
def test_numbers_that_are_too_large_are_refused_with_the_line(tmp_path: Path, number: int) -> None:
    for row in ({"n": number, "c": 1}, {"n": 8, "c": number}, {"votes": {"a": number}},
                {"sample": number, "correct": True}):  # fmt: skip
        rows = [{"id": "a", **{name: {"a": 1} if name == "votes" else 1 for name in row}}, {"id": "b", **row}]
        if "sample" in row and number < 2**62:
            assert len(loaded(tmp_path / "x.jsonl", rows).items) == 2
            continue
        with pytest.raises(DataError, match="line 2"):
            loaded(tmp_path / "x.jsonl", rows)
