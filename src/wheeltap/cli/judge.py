"""``wheeltap judge``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wheeltap.cli.show import PlanNumber
from wheeltap.cli.telling import Telling

_TELLING = Telling()


def judge(
    store: Annotated[Path, Parameter(help="A .wheeltap file that an audit was run into.")],
    *,
    plan: PlanNumber = None,
    trust: Annotated[
        bool,
        Parameter(
            negative="",
            help="Sign with your own key what others wrote into it: from now on it counts as if you had measured it.",
        ),
    ] = False,
    telling: Telling = _TELLING,
) -> int:
    """Judges what a store holds: no model is loaded, nothing is run.

    What is not signed with your key (of another machine, or by someone who could write the file) is not read.
    Where trials are still missing it says how many and exits with 2: what is there is no result yet.

    Try it:

      wheeltap judge smollm2.wheeltap
      wheeltap judge digits.wheeltap --json digits.json
    """
    from wheeltap.runs.stored import judge as judged

    telling.prepare()
    return telling.tell(judged(store, plan=plan, trust=trust))
