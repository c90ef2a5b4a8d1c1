"""``wheeltap audit``."""

from typing import Annotated

from cyclopts import Parameter

from wheeltap.cli.options import Measuring, Running, Telling

_MEASURING, _RUNNING, _TELLING = Measuring(), Running(), Telling()


def audit(
    model: Annotated[str, Parameter(help="digits, smollm2, hf:FOLDER, gguf:FILE or module:callable.")],
    *,
    measuring: Measuring = _MEASURING,
    running: Running = _RUNNING,
    telling: Telling = _TELLING,
) -> int:
    """Audits one model: its score, what noise, rounding and pruning do to it, and which blocks carry the loss.

    Try it:

      wheeltap audit digits
      wheeltap audit smollm2 --store smollm2.wheeltap --out report/
      wheeltap audit my_nets:resnet --data test.npz --audits relative-noise,quantization
    """
    from wheeltap.cli.running import plan_and_run

    return plan_and_run((model,), measuring, running=running, telling=telling)
