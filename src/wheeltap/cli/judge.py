"""``wheeltap judge``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wheeltap.cli.options import Telling

_TELLING = Telling()


def judge(
    store: Annotated[Path, Parameter(help="A .wheeltap file that an audit was run into.")],
    *,
    telling: Telling = _TELLING,
) -> int:
    """Judges what a store holds: no model is loaded, nothing is run.

    Examples:
      wheeltap judge smollm2.wheeltap
      wheeltap judge digits.wheeltap --json digits.json
    """
    from wheeltap.judging import judge as judged

    telling.prepare()
    return telling.tell(judged(store))
