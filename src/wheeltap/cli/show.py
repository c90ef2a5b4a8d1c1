"""``wheeltap show``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wheeltap.cli.whole import Whole

if TYPE_CHECKING:
    from wheeltap.core.records import Finding
    from wheeltap.report.report import Report

PlanNumber = Annotated[
    Whole | None,
    Parameter(name="--plan", help="Which plan of a store, as show lists them. [default: the one that was run last]"),
]


def show(
    source: Annotated[Path, Parameter(help="A .wheeltap store, or a report.json.")],
    code: Annotated[str | None, Parameter(help="Show the findings with this code only, such as WT101.")] = None,
    *,
    plan: PlanNumber = None,
    full: Annotated[bool, Parameter(negative="", help="Print everything: findings, controls, cost.")] = False,
) -> int:
    """Prints a report, or the findings of one code in full.

    A store may hold the plans of several runs: it lists them first, and prints the report on the last one.

    Try it:

      wheeltap show digits.wheeltap
      wheeltap show digits.wheeltap --plan 1
      wheeltap show report.json WT101
    """
    report = read(source, plan=plan)
    if code is not None:
        _in_full(report[code.upper()])
        return 0
    if plan is None and _is_store(source):
        _list_plans(source)
    report.text(full=full)
    return 0


def _list_plans(store: Path) -> None:
    """The plans of a store, where there are several."""
    from wheeltap.cli.status import title
    from wheeltap.plans.store import Store
    from wheeltap.report.lines import terminal, wrapped
    from wheeltap.runs.stored import plans_of

    with Store(store, readonly=True) as kept:
        plans = plans_of(kept)
    if len(plans) < 2:
        return
    console = terminal()
    for each in plans:
        wrapped(console, title(each, of=len(plans)))
    wrapped(console, f"Plan {len(plans)} was run last. Another one: wheeltap show {store} --plan 1")
    console.print()


def _in_full(findings: "list[Finding]") -> None:
    from wheeltap.report.lines import terminal, wrapped
    from wheeltap.report.words import interval

    console = terminal()
    for finding in findings:
        wrapped(console, f"{finding.code} {finding.subject}: {finding.status.replace('_', ' ')}")
        wrapped(console, finding.title, indent=2)
        wrapped(console, finding.because, indent=2)
        for e in finding.estimates:
            wrapped(console, f"{e.name}: {interval(e)} {e.unit} ({e.method}, n = {e.n:,})", indent=2)
        if finding.trials:  # of a rule over nets, they are those of every net
            wrapped(console, f"trials: {len(finding.trials)}", indent=2)


def _is_store(source: Path) -> bool:
    from wheeltap.core.bounded import opened

    with opened(source, "store or report", do="Run an audit first: wheeltap audit digits") as file:
        return file.read(6) == b"SQLite"


def read(source: Path, *, plan: int | None = None) -> "Report":
    """The report in a store or a JSON file, told apart by their first bytes."""
    from wheeltap.core.errors import UsageError
    from wheeltap.report.report import Report

    if _is_store(source):
        from wheeltap.runs.stored import judge

        return judge(source, plan=plan)
    if plan is not None:
        raise UsageError(
            "A report in a file is that of one plan.",
            where=f"{source}: --plan",
            expected="a .wheeltap store",
            got="a report.json",
            do="Leave --plan out, or give the store.",
        )
    return Report.read(source)
