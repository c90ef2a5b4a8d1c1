"""Reports of audits without the control copies, which cost more than the audits, and what is looked up in them."""

import io

import msgspec
from rich.console import Console

import wheeltap as wt
from wheeltap.core.records import Control, Estimate, Finding
from wheeltap.core.report import ReportRecord
from wheeltap.core.task import BaseTask
from wheeltap.plans.plan import Plan
from wheeltap.report.report import Report

COPIES = {"twin": None, "planted": None, "stronger": (), "graded": ()}
"""Control copies of a plan, and what stands for none of them."""


def without_copies(plan: Plan, *keep: str) -> Plan:
    """The plan with no control copies but those named."""
    return msgspec.structs.replace(plan, **{name: none for name, none in COPIES.items() if name not in keep})


def run(
    subjects: wt.Subject | list[wt.Subject], task: BaseTask, *audits: str | wt.AuditSpec, keep: tuple[str, ...] = (),
    **how: object,
) -> Report:  # fmt: skip
    """The report of these audits, with no control copies but those to ``keep``; ``how`` is what a plan takes."""
    plan = wt.plan(subjects, task, audits=audits, **how)
    return wt.run(without_copies(plan, *keep), subjects, task)


def finding(report: Report | ReportRecord, code: str, subject: str) -> Finding:
    [found] = [one for one in report.findings if (one.code, one.subject) == (code, subject)]
    return found


def control(report: Report | ReportRecord, name: str) -> Control:
    [found] = [one for one in report.controls if one.name == name]
    return found


def estimate(found: Finding, name: str) -> Estimate:
    [one] = [one for one in found.estimates if one.name == name]
    return one


def number(found: Finding, name: str) -> float:
    value = estimate(found, name).value
    assert value is not None
    return value


def screen(report: Report, *, full: bool = False) -> list[str]:
    """The lines of a terminal of 100 columns."""
    buffer = io.StringIO()
    report.print(Console(file=buffer, width=100, color_system=None), full=full)
    return buffer.getvalue().splitlines()
