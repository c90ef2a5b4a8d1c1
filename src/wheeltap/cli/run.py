"""``wheeltap run``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wheeltap.cli.options import AllowCode, Running
from wheeltap.cli.telling import Telling

_RUNNING, _TELLING = Running(), Telling()


def run(
    plan: Annotated[Path, Parameter(help="A file made by: wheeltap plan.")],
    *,
    allow_code: AllowCode = False,
    running: Running = _RUNNING,
    telling: Telling = _TELLING,
) -> int:
    """Runs a plan; what its store already holds is not run again.

    Try it:

      wheeltap run digits.plan.json
      wheeltap run ab.plan.json --workers 2 --out report/
    """
    from wheeltap.cli.running import run_plan

    return run_plan(plan, allow_code=allow_code, running=running, telling=telling)
