"""``wheeltap compare``."""

from typing import Annotated

from cyclopts import Parameter

from wheeltap.cli.options import Measuring, Running, Telling

_MEASURING, _RUNNING, _TELLING = Measuring(), Running(), Telling()


def compare(
    a: Annotated[str, Parameter(help="The reference: digits, smollm2, hf:FOLDER, gguf:FILE or module:callable.")],
    b: Annotated[str, Parameter(help="The other model.")],
    *,
    measuring: Measuring = _MEASURING,
    running: Running = _RUNNING,
    telling: Telling = _TELLING,
) -> int:
    """Compares two models on the same examples and the same draws: do the scores differ, do the insides?

    Examples:
      wheeltap compare hf:checkpoints/a hf:checkpoints/b --out report/
      wheeltap compare digits my_nets:candidate --audits score,relative-noise,quantization
    """
    from wheeltap.cli.running import plan_and_run

    return plan_and_run((a, b), measuring, running=running, telling=telling)
