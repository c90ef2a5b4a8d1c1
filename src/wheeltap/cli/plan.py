"""``wheeltap plan``."""

import textwrap
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wheeltap.cli.options import Measuring, default_store
from wheeltap.report import files

_MEASURING = Measuring()

SHORT = 0.01
"""Seconds of a pass below which drawing and writing weights are most of what a trial takes."""


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
    from wheeltap.planning import seconds_of_a_pass

    if out is not None:
        files.require_writable(out)
    with said("loading"):
        made, subjects, probe = planned((model, *others), measuring)
    passes = most_passes(made)
    with said("timing one pass"):
        each = max(seconds_of_a_pass(subject, probe) for subject in subjects)
    path = out or default_store(*(s.name for s in subjects)).with_suffix(".plan.json")
    files.write(path, made.to_bytes())
    Console(highlight=False, soft_wrap=True).print(
        f"{path}: {_counted(len(made.audits), 'audit')} of {_counted(len(subjects), 'subject')} on "
        f"{made.probe.examples} examples; at most {passes:.0f} passes over them{_lasting(passes, each)}.\n"
        f"{textwrap.fill(_sentence(sight(made)), 80)}\n"
        f"Run it: wheeltap run {path}",
        markup=False,
    )
    return 0


def _lasting(passes: float, each: float) -> str:
    """What the passes take; nothing where a trial takes longer than its pass."""
    if each < SHORT:
        return ""
    total = passes * each
    return f", {total / 60:.0f} min as the machine is now ({each:.2g} s each)" if total >= 90 else f", {total:.0f} s"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
