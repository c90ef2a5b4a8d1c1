"""``wheeltap plan``."""

import math
import textwrap
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from wheeltap.cli.options import Measuring, default_store
from wheeltap.core.errors import UsageError
from wheeltap.core.plain import many
from wheeltap.report import files
from wheeltap.sources.base import is_code, is_code_of_examples

_MEASURING = Measuring()

PATIENCE = 1.0
"""Seconds that timing some trials may take."""


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
    from wheeltap.cli.loading import planned
    from wheeltap.cli.progress import said
    from wheeltap.report.lines import terminal
    from wheeltap.runs.budget import most_passes, sight
    from wheeltap.runs.planning import priced

    _require_no_study(model)
    if out is not None:
        files.require_writable(out)
    with said("loading"):
        made, subjects, task = planned((model, *others), measuring)
    passes = most_passes(made)
    with said("timing some trials"):
        prices = priced(made, subjects, task, seconds=PATIENCE)
    code = any(map(is_code, made.sources)) or is_code_of_examples(made.data or "")
    path = out or default_store(*(s.name for s in subjects)).with_suffix(".plan.json")
    files.write(path, made.to_bytes())
    terminal().print(
        f"{path}: {many(len(made.audits), 'audit')} of {many(len(subjects), 'subject')} on "
        f"{many(made.task.examples, 'example')}; at most {passes:.0f} passes over them, "
        f"{_lasting(prices.seconds(made))}.\n"
        f"{_paragraph(_sentence(sight(made)))}"
        f"{_paragraph(f'Cut to the budget: {made.cut}.') if made.cut else ''}"
        f"Run it: wheeltap run {path}{' --allow-code' if code else ''}",
        soft_wrap=True,
    )
    return 0


def _require_no_study(name: str) -> None:
    """Raises ``UsageError`` if this is a study and no model."""
    from wheeltap.audits.base import studies

    if name in studies or Path(name).suffix == ".toml":
        raise UsageError(
            "A study is planned by its own verb.",
            where=name,
            expected="a model",
            got="a study",
            do=f"wheeltap study {name} --plan FILE, and later: wheeltap run FILE",
        )


def _lasting(seconds: float) -> str:
    """What the run takes, in words."""
    about = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{math.ceil(seconds)} s"
    return f"about {about} as the machine is now"


def _paragraph(text: str) -> str:
    return f"{textwrap.fill(text, 80)}\n"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
