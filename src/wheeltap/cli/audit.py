"""``wheeltap audit``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wheeltap.cli.options import Measuring, Running
from wheeltap.cli.telling import Telling

_MEASURING, _RUNNING, _TELLING = Measuring(), Running(), Telling()


def audit(
    model: Annotated[str, Parameter(help="digits, smollm2, hf:FOLDER, gguf:FILE or module:callable.")],
    *,
    samples: Annotated[
        Path | None,
        Parameter(
            help="With --task: write the model's answers to this file as lm-eval logs them, and beside each what "
            "disturbances do to it."
        ),
    ] = None,
    measuring: Measuring = _MEASURING,
    running: Running = _RUNNING,
    telling: Telling = _TELLING,
) -> int:
    """Audits one model: what rounding, pruning, noise, flipped bits and the loss of one weight cost it.

    Try it:

      wheeltap audit digits
      wheeltap audit smollm2 --for nf4,int4-g32,int8 --margin .01
      wheeltap audit my_nets:resnet --data test.npz --fail-on may-cost --junit audit.xml
      wheeltap audit my_nets:resnet --data test.npz --audits survival --full
      wheeltap audit hf:DIR --task lm_eval:arc_easy,limit=200 --samples arc.jsonl
    """
    from wheeltap.cli.running import plan_and_run

    return plan_and_run((model,), measuring, running=running, telling=telling, samples=samples)
