"""A whole report as data: what every renderer reads."""

from typing import Literal

import msgspec

from wheeltap.core.records import (
    BlockMap,
    Control,
    Cost,
    Curve,
    Finding,
    Instrument,
    Scalar,
    SubjectRecord,
    TaskRecord,
)
from wheeltap.core.section import Section
from wheeltap.core.study import StudyRecord

SCHEMA = "wheeltap.report/3"

FailOn = Literal["costs", "may-cost", "undecided", "cannot-tell", "never"]
"""The mildest verdict that fails: a loss shown to exceed its margin (or an error); any loss that was shown; any test
that could not tell; none."""


class ReportRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The whole report, schema ``wheeltap.report/3``: what every renderer reads and nothing else."""

    schema: str = SCHEMA
    command: str
    headline: str
    subjects: tuple[SubjectRecord, ...]
    task: TaskRecord
    findings: tuple[Finding, ...]
    controls: tuple[Control, ...]
    cost: Cost
    provenance: dict[str, Scalar]
    curves: tuple[Curve, ...] = ()
    blocks: tuple[BlockMap, ...] = ()
    instruments: tuple[Instrument, ...] = ()
    void: bool = False
    study: StudyRecord | None = None
    sections: tuple[Section, ...] = ()

    def instrument(self, code: str) -> Instrument:
        """The words of the audit with this code."""
        title = next((finding.title for finding in self.findings if finding.code == code), code)
        return next((one for one in self.instruments if one.code == code), Instrument(code=code, name=title))
