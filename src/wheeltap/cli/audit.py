"""``wheeltap audit``, ``wheeltap compare``, ``wheeltap plan``."""

import math
import textwrap
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from wheeltap.audits.base import studies
from wheeltap.cli.options import ExecutionFlags, Output, RequestFlags, default_store
from wheeltap.core.errors import UsageError
from wheeltap.core.plain import many
from wheeltap.report import files
from wheeltap.sources.base import is_code, is_code_of_examples

_REQUEST, _EXECUTION, _OUTPUT = RequestFlags(), ExecutionFlags(), Output()

PATIENCE: Final = 1.0
"""Seconds that timing some trials may take."""

Model = Annotated[str, Parameter(help="digits, hf:FOLDER, gguf:FILE or another of: wheeltap list models.")]


def audit(
    model: Model,
    *,
    samples: Annotated[
        Path | None,
        Parameter(
            help="With --task lm_eval:NAME: write the model's answers to this file as lm-eval logs them, and beside "
            "each what disturbances do to it."
        ),
    ] = None,
    request: RequestFlags = _REQUEST,
    execution: ExecutionFlags = _EXECUTION,
    output: Output = _OUTPUT,
) -> int:
    """Audits one model: what rounding, pruning, noise, flipped bits and the loss of one weight cost it.

    Try it:

      wheeltap audit digits
      wheeltap audit smollm2 --for nf4,int4-g32,int8 --margin .01
      wheeltap audit my_nets:resnet --data test.npz --fail-on may-cost --junit audit.xml
      wheeltap audit my_nets:resnet --data test.npz --audits survival --full
      wheeltap audit hf:DIR --task lm_eval:arc_easy,limit=200 --samples arc.jsonl
    """
    from wheeltap.cli.execution import plan_and_run

    return plan_and_run((model,), request, execution=execution, output=output, samples_to=samples)


def compare(
    a: Model,
    b: Annotated[str, Parameter(help="The other model.")],
    *more: Annotated[str, Parameter(help="Further models, each compared with the first.")],
    request: RequestFlags = _REQUEST,
    execution: ExecutionFlags = _EXECUTION,
    output: Output = _OUTPUT,
) -> int:
    """Compares models on the same examples and draws: which of them loses more when it is shipped?

    Try it:

      wheeltap compare hf:checkpoints/a hf:checkpoints/b --for nf4,int4-g32
      wheeltap compare digits my_nets:candidate --audits structure
      wheeltap compare hf:a hf:b hf:c --audits survival --full
      wheeltap compare answers:base.jsonl answers:quantized.jsonl
    """
    from wheeltap.cli.execution import compare_logs, plan_and_run
    from wheeltap.runs.recorded import are_logs

    if are_logs((a, b, *more)):
        return compare_logs((a, b, *more), request, store=execution.store, output=output)
    return plan_and_run((a, b, *more), request, execution=execution, output=output)


plan = App(name="plan", help_format="plaintext")
plan.command("wheeltap.cli.study:planned", name="study", help="Plans a study: wheeltap plan study NAME, or FILE.toml.")


@plan.default
def _models(
    model: Model,
    *others: Annotated[str, Parameter(help="Models to compare with the first.")],
    file: Annotated[
        Path | None, Parameter(name=["--file", "-o"], help="Where to write the plan. [default: NAME.plan.json]")
    ] = None,
    request: RequestFlags = _REQUEST,
) -> int:
    """Writes down what an audit, a comparison or a study would run, and what it would cost at most.

    Try it:

      wheeltap plan digits
      wheeltap plan hf:a hf:b --draws 8 -o ab.plan.json
      wheeltap plan study pictures --seeds 10 -o pictures.plan.json
    """
    from wheeltap.cli.execution import planned
    from wheeltap.cli.progress import spinner
    from wheeltap.core.plain import terminal
    from wheeltap.runs.budget import most_passes, sight
    from wheeltap.runs.planning import priced

    if model in studies or Path(model).suffix == ".toml":
        raise UsageError(
            "This is a study, and no model.",
            where=model,
            expected="a model",
            got="a study",
            do=f"wheeltap plan study {model} -o FILE, and later: wheeltap run FILE",
        )
    if file is not None:
        files.require_writable(file)
    with spinner("loading"):
        made, subjects, task = planned((model, *others), request)
    passes = most_passes(made)
    with spinner("timing some trials"):
        seconds = priced(made, subjects, task, seconds=PATIENCE).seconds(made)
    specs = (*made.sources, *(one.spec for one in made.files))
    code = any(map(is_code, specs)) or is_code_of_examples(made.data or "")
    path = file or default_store(*(s.name for s in subjects)).with_suffix(".plan.json")
    files.write(path, made.to_bytes())
    audits, models = many(len(made.audits), "audit"), many(len(subjects), "subject")
    about = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{math.ceil(seconds)} s"
    seen = sight(made)
    more = [f"{seen[:1].upper()}{seen[1:]}.", *([f"Cut to the budget: {made.cut}."] if made.cut else [])]
    terminal().print(
        f"{path}: {audits} of {models} on {many(made.task.examples, 'example')}; at most {passes:.0f} passes over "
        f"them, about {about} as the machine is now.",
        *(textwrap.fill(text, 80) for text in more),
        f"Run it: wheeltap run {path}{' --allow-code' if code else ''}",
        sep="\n",
        soft_wrap=True,
    )
    return 0
