"""``wheeltap show``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

if TYPE_CHECKING:
    from wheeltap.core.records import Finding
    from wheeltap.report.report import Report


def show(
    source: Annotated[Path, Parameter(help="A .wheeltap store, or a report.json.")],
    code: Annotated[str | None, Parameter(help="Show the findings with this code only, such as WT101.")] = None,
) -> int:
    """Prints a report, or the findings of one code in full.

    Try it:

      wheeltap show digits.wheeltap
      wheeltap show report.json WT101
    """
    report = read(source)
    if code is None:
        report.text()
        return 0
    _in_full(report[code.upper()])
    return 0


def _in_full(findings: "list[Finding]") -> None:
    from wheeltap.report.text import paragraph, terminal
    from wheeltap.report.words import interval

    console = terminal()
    for finding in findings:
        paragraph(console, f"{finding.code} {finding.subject}: {finding.status.replace('_', ' ')}")
        paragraph(console, finding.title, indent=2)
        paragraph(console, finding.because, indent=2)
        for e in finding.estimates:
            paragraph(console, f"{e.name}: {interval(e)} {e.unit} ({e.method}, n = {e.n:,})", indent=2)
        paragraph(console, f"trials: {len(finding.trials)}", indent=2)


def read(source: Path) -> "Report":
    """The report in a store or a JSON file, told apart by their first bytes."""
    from wheeltap.core.errors import MissingFile
    from wheeltap.report.report import Report

    if not source.is_file():
        raise MissingFile(
            "There is no store or report at this path.",
            where=str(source),
            expected="a .wheeltap file or a report.json",
            do="Run an audit first: wheeltap audit digits",
        )
    with source.open("rb") as file:
        is_store = file.read(6) == b"SQLite"
    return judged(source) if is_store else Report.read(source)


def judged(store: Path) -> "Report":
    """The report on what is in a store; of a run that is not over, it says so first."""
    from wheeltap.plans.store import Store
    from wheeltap.runs.stored import judge, plan_of

    with Store(store, readonly=True) as kept:
        plan = plan_of(kept)
    again = " ".join(("wheeltap", plan.command, *plan.sources, "...")) if plan.sources else ""
    return judge(store, again=again)
