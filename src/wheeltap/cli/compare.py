"""``wheeltap compare``."""

from typing import Annotated

from cyclopts import Parameter

from wheeltap.cli.options import Measuring, Running, Telling

_MEASURING, _RUNNING, _TELLING = Measuring(), Running(), Telling()


def compare(
    a: Annotated[str, Parameter(help="The reference: digits, smollm2, hf:FOLDER, gguf:FILE or module:callable.")],
    b: Annotated[str, Parameter(help="The other model.")],
    *more: Annotated[str, Parameter(help="Further models, each compared with the first.")],
    measuring: Measuring = _MEASURING,
    running: Running = _RUNNING,
    telling: Telling = _TELLING,
) -> int:
    """Compares models on the same examples and the same draws: do the scores differ, do the insides?

    Try it:

      wheeltap compare hf:checkpoints/a hf:checkpoints/b --out report/
      wheeltap compare digits my_nets:candidate --audits score,relative-race
      wheeltap compare hf:a hf:b hf:c --audits survival
    """
    from wheeltap.cli.running import plan_and_run

    return plan_and_run((a, b, *more), measuring, running=running, telling=telling)
