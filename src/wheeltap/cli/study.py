"""``wheeltap study``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from wheeltap.cli.options import AllowCode, Running
from wheeltap.cli.telling import Telling
from wheeltap.cli.whole import Whole
from wheeltap.plans.plan import HIGHEST


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Choosing:
    """How large a study is, and what is set in it."""

    size: Annotated[
        Literal["small", "full"] | None,
        Parameter(
            help="Small takes minutes on two cores. A study in a file has the size that it says. [default: small]"
        ),
    ] = None
    seeds: Annotated[
        Whole | None, Parameter(validator=Number(gte=1), help="Nets of each kind, where the study has such a setting.")
    ] = None
    set_: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            negative="",
            consume_multiple=False,
            help="A setting, such as steps=300; may be given several times (see: wheeltap list studies NAME).",
        ),
    ] = ()
    draws: Annotated[
        Whole | None,
        Parameter(validator=Number(gte=2), help="Draws of noise per dose, where an audit is a metric. [default: 32]"),
    ] = None
    seed: Annotated[Whole, Parameter(validator=Number(gte=0, lt=2**63), help="Root of every draw.")] = 0
    alpha: Annotated[
        float,
        Parameter(
            validator=Number(gt=0, lte=HIGHEST),
            help="Chance of any rule being called true falsely, all rules together; of being called false, likewise.",
        ),
    ] = 0.05
    budget: Annotated[
        str | None,
        Parameter(
            help="Stop after so much: 90s, 10m, 2h or 2000f (passes over the examples). Nets and rules are fixed, so "
            "nothing is cut; the same command resumes."
        ),
    ] = None
    plan: Annotated[Path | None, Parameter(help="Write the plan to this file, and run nothing.")] = None
    allow_code: AllowCode = False


_CHOOSING, _RUNNING, _TELLING = Choosing(), Running(), Telling()


def study(
    name: Annotated[str, Parameter(help="Name of a study (see: wheeltap list studies), or a TOML file.")],
    *,
    choosing: Choosing = _CHOOSING,
    running: Running = _RUNNING,
    telling: Telling = _TELLING,
) -> int:
    """Makes and measures kinds of nets, and decides by rules that were fixed beforehand.

    Nets that were made and numbers that were measured are kept: the same command resumes.

    Try it:

      wheeltap study pictures --set picture=flower
      wheeltap study my_study.toml --store my.wheeltap --out my/
      wheeltap study pictures --size full --seeds 10 --plan full.plan.json
    """
    from wheeltap.cli.studying import carry_out

    return carry_out(name, choosing, running=running, telling=telling)
