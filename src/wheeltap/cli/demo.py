"""``wheeltap demo``: four small nets with equal scores, of which one does not survive 4 bits."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from wheeltap.cli import COMMAND
from wheeltap.cli.options import Output, Seed, Whole
from wheeltap.core.report import FailOn

if TYPE_CHECKING:
    from wheeltap.core.subject import Subject

_SEED_OF_COPIES = 101
"""Not the seed of the plan's own control copies: the demo's nets are other copies than the controls."""

_SPREAD = 0.55
"""How unevenly the rescaled net is written: standard deviation of the logarithm of its units' factors."""

_MARGIN = 0.05
"""What 600 examples can decide of four nets at once."""

_SCHEMES = "int8,nf4,int4,int4-tensor,prune30,noise25"
"""Few enough for a screen; noise shows the imposter, whose units cancel only as long as they are exact."""


def demo(
    *,
    out: Annotated[Path, Parameter(help="Folder for report.html, report.json and the store.")] = Path("wheeltap-demo"),
    seed: Seed = 0,
    draws: Annotated[Whole, Parameter(validator=Number(gte=2), help="Draws of noise.")] = 16,
    fail_on: Annotated[FailOn, Parameter(help="Exit with 1 if a verdict is this or worse.")] = "never",
) -> int:
    """Shows checkpoints with the same outputs, of which one does not survive 4 bits, in a few seconds.

    original: a small net trained on handwritten digits. rescaled: the same net with each hidden unit's weights scaled
    up on one side and down on the other: identical outputs on every input. other-seed: trained from another seed.
    imposter: the original with units added that cancel each other.

    Try it:

      wheeltap demo
      wheeltap demo --out /tmp/demo --draws 32
    """
    from wheeltap.cli.progress import run_progress, spinner
    from wheeltap.plans.plan import AuditSpec
    from wheeltap.report.gate import exit_code
    from wheeltap.runs import loop, planning
    from wheeltap.sources import digits

    output = Output(out=out, fail_on=fail_on)
    output.prepare()
    shipped = AuditSpec(name="deployment", settings={"schemes": _SCHEMES, "draws": draws})
    with spinner("training small nets"):
        subjects, task = cast_of_four(), digits.task()
        made = planning.plan(
            subjects, task, audits=["score", shipped, "single-point"], seed=seed, margin=_MARGIN, command="demo"
        )
    with run_progress("demo") as watch:
        report = loop.run(made, subjects, task, store=out / "demo.wheeltap", watch=watch, again=COMMAND.get())
    if fail_on == "never":  # the default here: nobody has turned a gate off
        output.show(report)
        return exit_code(report.record, fail_on)
    return output.give(report)


def cast_of_four() -> "list[Subject]":
    """The demo's nets: original, rescaled, other-seed, imposter."""
    from wheeltap import gauge
    from wheeltap.core.subject import Subject
    from wheeltap.sources import digits

    original = digits.subject(name="original")
    rescaled = gauge.describe("relu-chain", "rescale", seed=_SEED_OF_COPIES, spread=_SPREAD, exact=True)
    cancelling = gauge.describe("relu-chain", "cancel", seed=_SEED_OF_COPIES, pairs=64, scale=4.0)
    return [
        original,
        Subject(gauge.twin(original.model, rescaled), name="rescaled"),
        digits.subject(seed=1, name="other-seed"),
        Subject(gauge.twin(original.model, cancelling), name="imposter"),
    ]
