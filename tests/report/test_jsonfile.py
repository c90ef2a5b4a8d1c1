"""The report as a file: valid, deterministic, read back as it was, and refused where it is wrong."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jsonschema
import msgspec
import pytest

from tests.report.page_cases import sections
from tests.report.report_cases import demo, empty, estimate, finding, gaps, shipped, shipped_void
from tests.report.study_cases import study, study_hostile
from wheeltap.core import section
from wheeltap.core.errors import DataError, FileError, FileFormatError, MissingFile
from wheeltap.core.records import FindingStatus, Role
from wheeltap.core.report import SCHEMA, ReportRecord
from wheeltap.core.section import Block
from wheeltap.core.study import CohortRole, Direction, Statistic
from wheeltap.report import Report, files, jsonfile


@pytest.mark.parametrize("make", [gaps, shipped_void, sections, study_hostile])
def test_is_valid_and_comes_back_the_same(make: Callable[[], ReportRecord], tmp_path: Path) -> None:
    record = make()
    path = Report(record).json(tmp_path / "report.json")
    jsonschema.Draft202012Validator(jsonfile.schema()).validate(json.loads(path.read_bytes()))
    assert jsonfile.validate(path.read_bytes()) == record
    assert path.read_bytes() == jsonfile.to_json(make())


def test_the_schema_describes_every_field_of_the_records_in_their_words() -> None:
    schema = jsonfile.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    properties, defs = schema["properties"], schema["$defs"]
    written, held = json.loads(jsonfile.to_json(demo())), json.loads(jsonfile.to_json(study()))["study"]
    assert set(written) == set(properties)
    assert set(schema["required"]) < set(properties) and len(schema["required"]) == 8
    assert set(written["subjects"][0]["untouched"][0]) == set(
        defs["subject"]["properties"]["untouched"]["items"]["properties"]
    )
    [power] = [one["power"] for one in json.loads(jsonfile.to_json(shipped()))["findings"] if one["scheme"] == "int4"]
    metrics = held["rows"][0]
    kinds = {
        "subject": written["subjects"][0], "finding": written["findings"][0], "control": written["controls"][0],
        "curve": written["curves"][0], "blockmap": written["blocks"][0], "task": written["task"],
        "cost": written["cost"], "estimate": written["findings"][0]["estimates"][0], "power": power,
        "instrument": written["instruments"][0], "study": held, "cohort": held["cohorts"][0], "rule": held["rules"][0],
        "member": held["members"][0], "metricrow": metrics, "metric": metrics["metric"],
        "cohortrow": metrics["cohorts"][0],
    }  # fmt: skip
    for kind in get_args(Block):
        kinds[kind.__name__.lower()] = [*kind.__struct_fields__, "type"]
    for kind in (section.Section, section.Axis, section.Series, section.Node, section.Link, section.View):
        kinds[kind.__name__.lower()] = kind.__struct_fields__
    kinds["picture"] = section.Picture.__struct_fields__
    for name, fields in kinds.items():
        assert set(fields) == set(defs[name]["properties"]), name
    assert properties["schema"]["const"] == SCHEMA and schema["$id"].endswith(SCHEMA.rpartition("/")[2])
    words = {
        ("finding", "status"): FindingStatus, ("cohort", "role"): CohortRole, ("rule", "statistic"): Statistic,
        ("rule", "direction"): Direction,
    }  # fmt: skip
    for (name, key), literal in words.items():
        assert tuple(defs[name]["properties"][key]["enum"]) == get_args(literal)
    assert tuple(defs["role"]["enum"]) == get_args(Role)
    assert {one.status for one in shipped().findings} == set(get_args(FindingStatus)) - {"skipped", "void"}


def test_the_schema_refuses_what_is_wrong() -> None:
    validator = jsonschema.Draft202012Validator(jsonfile.schema())
    changes: list[Callable[[dict[str, Any]], object]] = [
        lambda raw: raw["findings"][1].update(status="not_found"),
        lambda raw: raw["findings"][1].update(coverage=1.2),
        lambda raw: raw["findings"][1].update(power={"found": 0.9}),
        lambda raw: raw["findings"][1]["power"].update(found=1.5),
        lambda raw: raw["subjects"][0].update(role="copy"),
        lambda raw: raw["subjects"][0]["untouched"][0].pop("size"),
    ]
    for change in changes:
        raw = json.loads(jsonfile.to_json(shipped()))
        validator.validate(raw)
        change(raw)
        assert not validator.is_valid(raw)


def test_reads_a_file_with_only_the_required_keys() -> None:
    raw = json.loads(jsonfile.to_json(empty()))
    small = {key: raw[key] for key in jsonfile.schema()["required"]}
    small["task"] = {key: raw["task"][key] for key in ("name", "digest", "examples", "measure")}
    small["later"] = "a key that a later version may add"
    assert jsonfile.validate(json.dumps(small).encode()).headline == ""


def test_a_number_that_is_not_finite_is_refused_by_name() -> None:
    for bad in (math.nan, math.inf):
        wrong = finding("WT001", "found", "a", estimate("x", bad, None))
        with pytest.raises(DataError, match=r"findings\[0\]\.estimates\[0\]\.value"):
            jsonfile.to_json(msgspec.structs.replace(empty(), findings=(wrong,)))


def _change(change: Callable[[dict[str, Any]], object], make: Callable[[], ReportRecord] = demo) -> bytes:
    raw = json.loads(jsonfile.to_json(make()))
    change(raw)
    return json.dumps(raw).encode()


def _block(field: str, change: Callable[[Any], Any]) -> bytes:
    """A file of sections with one field of its blocks changed."""

    def changed(raw: dict[str, Any]) -> None:
        for block in raw["sections"][0]["blocks"]:
            if field in block:
                block[field] = change(block[field])

    return _change(changed, sections)


WRONG: list[bytes] = [
    b"", b"{", b"\xff\xfe", b'{"schema": NaN}', b"[" * 100_000, b"[1]", b"{}", b'{"schema": "wheeltap.report/2"}',
    b'{"schema": "wheeltap.report/3"}',
    _change(lambda raw: raw["findings"][0].pop("code")),
    _change(lambda raw: raw["task"].update(examples="many")),
    _change(lambda raw: raw["curves"][1]["doses"].pop()),
    _change(lambda raw: raw["blocks"][2]["drops"].pop()),
    _change(lambda raw: raw["study"]["rows"][1]["cohorts"][1]["values"].pop(), study),
    _block("links", lambda links: [{**links[0], "target": 99}]),
    _block("views", lambda views: views[:-1]),
    _block("series", lambda series: [{**series[0], "y": [0.1]}]),
    # Of an earlier version, whose parts were no sections.
    _change(lambda raw: raw.update(circuits=[{"subject": "net"}])),
    _change(lambda raw: raw["study"].update(strips=[], drawn=[{"name": "face"}]), study),
]  # fmt: skip


def test_a_wrong_file_is_refused_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    for data in WRONG:
        path.write_bytes(data)
        with pytest.raises(FileFormatError) as caught:
            Report.read(path)
        assert str(path) in str(caught.value), data[:100]
    assert jsonfile.validate(_change(lambda raw: raw.update(lens=None, circuits=[]))) == demo()


def test_a_file_that_is_missing_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFile):
        Report.read(tmp_path / "none.json")
    with pytest.raises(MissingFile):
        Report.read(tmp_path)
    with (tmp_path / "big").open("wb") as file:
        file.truncate(2**28 + 1)  # of no bytes on disk
    with pytest.raises(FileFormatError):
        Report.read(tmp_path / "big")


def test_writing_is_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "report.json"
    Report(demo()).json(target)
    Report(empty()).json(target)
    assert jsonfile.validate(target.read_bytes()) == empty()
    assert os.listdir(tmp_path) == ["report.json"]
    (tmp_path / "folder").mkdir()
    with pytest.raises(FileError):
        Report(empty()).json(tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == ["folder", "report.json"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_said() -> None:
    with pytest.raises(FileError, match="/dev/full"):
        files.write("/dev/full", b"x")
