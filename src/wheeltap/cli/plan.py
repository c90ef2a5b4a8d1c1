"""``wheeltap plan``."""

import textwrap
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wheeltap.cli.options import Measuring, default_store
from wheeltap.report import files

_MEASURING = Measuring()


def plan(
    model: Annotated[str, Parameter(help="digits, smollm2, hf:FOLDER, gguf:FILE or module:callable.")],
    *others: Annotated[str, Parameter(help="Models to compare with the first.")],
    out: Annotated[Path | None, Parameter(help="Where to write the plan. [default: NAME.plan.json]")] = None,
    measuring: Measuring = _MEASURING,
) -> int:
    """Writes down what an audit or a comparison would run, and what it would cost at most, without running it.

    Try it:

      wheeltap plan digits
      wheeltap plan hf:a hf:b --draws 8 --out ab.plan.json
    """
    from rich.console import Console

    from wheeltap.budget import most_passes, sight
    from wheeltap.cli.loading import planned
    from wheeltap.cli.progress import said

    if out is not None:
        files.require_writable(out)
    with said("loading"):
        made, subjects, _ = planned((model, *others), measuring)
    path = out or default_store(*(s.name for s in subjects)).with_suffix(".plan.json")
    files.write(path, made.to_bytes())
    Console(highlight=False, soft_wrap=True).print(
        f"{path}: {_counted(len(made.audits), 'audit')} of {_counted(len(subjects), 'subject')} on "
        f"{made.probe.examples} examples; at most {most_passes(made):.0f} passes over them.\n"
        f"{textwrap.fill(_sentence(sight(made)), 80)}\n"
        f"Run it: wheeltap run {path}",
        markup=False,
    )
    return 0


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
