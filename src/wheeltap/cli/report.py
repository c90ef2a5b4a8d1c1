"""``wheeltap report``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wheeltap.cli.options import STDOUT, Output, Whole
from wheeltap.core.errors import UsageError

if TYPE_CHECKING:
    from wheeltap.core.records import Finding

_OUTPUT = Output()


def report(
    file: Annotated[Path, Parameter(help="A .wheeltap store, or a report.json.")],
    code: Annotated[
        str | None, Parameter(help="Codes or audits, comma-separated: print their findings in full, such as WT101.")
    ] = None,
    *,
    plan: Annotated[
        Whole | None,
        Parameter(help="Which plan of a store, as this verb lists them. [default: the one that was run last]"),
    ] = None,
    trust: Annotated[
        bool,
        Parameter(
            negative="",
            help="Sign with your own key what others wrote into a store: from now on it counts as if you had measured "
            "it.",
        ),
    ] = False,
    output: Output = _OUTPUT,
) -> int:
    """Prints or draws what a store or a report holds: no model is loaded, nothing is run.

    A store may hold the plans of several runs: it lists them first, and reports on the last one. What is not signed
    with your key (of another machine, or by someone who could write the file) is not read. Where trials are still
    missing it says how many and exits with 2: what is there is no result yet.

    A report.json is shown and decides nothing: the exit code is 0, or 2 if it cannot be read.

    Try it:

      wheeltap report digits.wheeltap
      wheeltap report digits.wheeltap --html digits.html
      wheeltap report report.json WT101
    """
    from wheeltap.core.bounded import opened
    from wheeltap.report.report import Report
    from wheeltap.runs.stored import judge

    with opened(file, "store or report", do="Run an audit first: wheeltap audit digits") as head:
        stored = head.read(6) == b"SQLite"
    if not stored:
        _require_shown_alone(file, output, plan=plan, trust=trust)
    if code is not None and output != Output(quiet=output.quiet):
        raise UsageError(
            "With a code, the report is neither written nor judged.", where=f"report {file} {code}",
            expected="no flag of files or of the gate", got="one that is ignored", do="Omit the code, or the flags.",
        )  # fmt: skip
    output.prepare(file)
    made = judge(file, plan=plan, trust=trust) if stored else Report.read(file)
    if code is not None:
        _in_full([finding for part in _codes_of(code) for finding in made[part]])
        return 0
    if stored and plan is None and not output.quiet and output.json != STDOUT:
        _list_plans(file)
    if not stored:
        output.show(made)
        return 0
    return output.give(made)


def _require_shown_alone(file: Path, output: Output, *, plan: int | None, trust: bool) -> None:
    """Raises ``UsageError`` if a report.json is given flags of stores."""
    of_stores = {
        "--plan": plan is not None, "--trust": trust, "--fail-on": output.fail_on is not None,
        "--junit": output.junit is not None,
    }  # fmt: skip
    refused = [flag for flag, is_given in of_stores.items() if is_given]
    if refused:
        raise UsageError(
            "A report.json decides nothing: it is shown as it is.", where=str(file),
            expected="a .wheeltap store", got=f"a report.json with {', '.join(refused)}",
            do=f"Omit {refused[0]}, or give the store.",
        )  # fmt: skip


def _list_plans(store: Path) -> None:
    """The plans of a store, where there are several."""
    from wheeltap.cli.run import title
    from wheeltap.core.plain import terminal
    from wheeltap.plans.store import Store
    from wheeltap.report.words import wrapped
    from wheeltap.runs.stored import plans_of

    with Store(store, readonly=True) as kept:
        plans = plans_of(kept)
    if len(plans) < 2:
        return
    console = terminal()
    for each in plans:
        wrapped(console, title(each, of=len(plans)))
    wrapped(console, f"Plan {len(plans)} was run last. Another one: wheeltap report {store} --plan 1")
    console.print()


def _codes_of(text: str) -> list[str]:
    """Return the codes of codes and audits with commas between."""
    from wheeltap.audits.base import audits, expanded

    names = expanded(name.strip() for name in text.split(","))
    return list(dict.fromkeys(audits.get(name).code if name in audits else name.upper() for name in names))


def _in_full(findings: "list[Finding]") -> None:
    from wheeltap.core.plain import terminal
    from wheeltap.report import view
    from wheeltap.report.words import interval, wrapped

    console = terminal()
    for finding in findings:
        wrapped(console, f"{finding.code} {finding.subject}: {view.verdict(finding)}")
        wrapped(console, finding.title, indent=2)
        wrapped(console, finding.because, indent=2)
        for e in finding.estimates:
            wrapped(console, f"{e.name}: {interval(e)} {e.unit} ({e.method}, n = {e.n:,})", indent=2)
        if finding.trials:  # of a rule over nets, they are those of every net
            wrapped(console, f"trials: {len(finding.trials)}", indent=2)
