"""``wheeltap report``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wheeltap.cli.show import PlanNumber


def report(
    source: Annotated[Path, Parameter(help="A .wheeltap store, or a report.json.")],
    *,
    plan: PlanNumber = None,
    html: Annotated[Path | None, Parameter(help="The page to write. [default: report.html]")] = None,
    json: Annotated[Path | None, Parameter(help="Also write the report as JSON to this file.")] = None,
) -> int:
    """Makes the page of a finished run.

    Try it:

      wheeltap report digits.wheeltap --html digits.html
      wheeltap report report.json
    """
    from wheeltap.cli.show import read
    from wheeltap.cli.telling import Telling
    from wheeltap.report.unfinished import missing_trials

    telling = Telling(html=html or Path("report.html"), json=json)
    telling.prepare()
    telling.require_apart(source)
    made = read(source, plan=plan)
    missing = missing_trials(made.record)
    print(telling.write(made) + (f"\nUnfinished: at least {missing:,} trials have not run." if missing else ""))
    return 0
