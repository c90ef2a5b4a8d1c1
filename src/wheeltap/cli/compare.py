"""``wheeltap compare``."""

from typing import Annotated

from cyclopts import Parameter

from wheeltap.cli.options import Measuring, Running
from wheeltap.cli.telling import Telling

_MEASURING, _RUNNING, _TELLING = Measuring(), Running(), Telling()


def compare(
    a: Annotated[str, Parameter(help="The reference: digits, smollm2, hf:FOLDER, gguf:FILE or module:callable.")],
    b: Annotated[str, Parameter(help="The other model.")],
    *more: Annotated[str, Parameter(help="Further models, each compared with the first.")],
    measuring: Measuring = _MEASURING,
    running: Running = _RUNNING,
    telling: Telling = _TELLING,
) -> int:
    """Compares models on the same examples and draws: which of them loses more when it is shipped?

    Try it:

      wheeltap compare hf:checkpoints/a hf:checkpoints/b --for nf4,int4-g32
      wheeltap compare digits my_nets:candidate --audits structure
      wheeltap compare hf:a hf:b hf:c --audits survival --full
    """
    from wheeltap.cli.running import plan_and_run

    return plan_and_run((a, b, *more), measuring, running=running, telling=telling)
