"""``wheeltap demo``: five small nets with the same score, told apart."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from wheeltap.cli.options import FailOn, Telling
from wheeltap.cli.whole import Whole

if TYPE_CHECKING:
    from wheeltap.core.subject import Subject

_SEED_OF_TWIN = 101
"""Not the seed of the plan's own control copies: the demo's nets are other copies than the controls."""

_SPREAD_OF_TWIN = 0.5
"""Rounding to a few bits rightly tells copies apart that are written at very different scales (from about 1 on)."""


def demo(
    *,
    out: Annotated[Path, Parameter(help="Folder for report.html, report.json and the store.")] = Path("wheeltap-demo"),
    seed: Annotated[Whole, Parameter(help="Root of every draw.")] = 0,
    draws: Annotated[Whole, Parameter(validator=Number(gte=2), help="Draws of noise per dose.")] = 48,
    fail_on: Annotated[FailOn, Parameter(help="Exit with 1 if any finding is this or worse.")] = "never",
) -> int:
    """Trains small nets on handwritten digits and shows what the score hides, in about half a minute.

    original: trained as usual. gauge-twin: the same function, re-coded. imposter: the same function with units added
    that cancel each other. other-seed: trained from another seed. dropout: trained with dropout.

    Try it:

      wheeltap demo
      wheeltap demo --out /tmp/demo --draws 16
    """
    from wheeltap.audits import base
    from wheeltap.cli.progress import said, shown
    from wheeltap.plans.plan import Effort
    from wheeltap.runs import loop, planning
    from wheeltap.sources import digits

    telling = Telling(out=out, fail_on=fail_on)
    telling.prepare()
    with said("training five small nets"):
        subjects, task = cast_of_five(), digits.task()
        made = planning.plan(
            subjects, task, audits=base.DEFAULT, effort=Effort(draws=draws, control_draws=draws), seed=seed,
            command="demo",
        )  # fmt: skip
    with shown("demo") as watch:
        report = loop.run(made, subjects, task, store=out / "demo.wheeltap", watch=watch)
    return telling.tell(report)


def cast_of_five() -> "list[Subject]":
    """The demo's nets: original, gauge-twin, imposter, other-seed, dropout."""
    from wheeltap import gauge
    from wheeltap.core.subject import Subject
    from wheeltap.sources import digits

    original = digits.subject(name="original")
    recoded = gauge.describe("relu-chain", "permute", "rescale", seed=_SEED_OF_TWIN, spread=_SPREAD_OF_TWIN)
    cancelling = gauge.describe("relu-chain", "cancel", seed=_SEED_OF_TWIN, pairs=64, scale=4.0)
    return [
        original,
        Subject(gauge.twin(original.model, recoded), name="gauge-twin"),
        Subject(gauge.twin(original.model, cancelling), name="imposter"),
        digits.subject(seed=1, name="other-seed"),
        digits.subject(dropout=digits.DROPOUT, name="dropout"),
    ]
