"""``wheeltap fer``: one picture, nets that draw it, and what tells them apart inside."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from wheeltap.cli.options import slug
from wheeltap.cli.telling import FailOn
from wheeltap.cli.whole import Whole

_HELP = """Is a net that draws a picture wired like nets trained to draw the same picture?

The net comes from a Picbreeder genome, or is one of the built-in pictures. Nets of the same layout are trained by \
gradient descent to draw it too, and control nets that each fool one of the metrics; every metric is reported with its \
interval over nets. The page holds the pictures, the numbers, and an explorer in which any weight can be moved by hand.
It is the study "pictures": wheeltap study pictures --size full does the same with its own options.

After Kumar et al. 2025, arXiv:2505.11581 (the fractured entangled representation hypothesis).

Try it:

  wheeltap fer --picture face
  wheeltap fer skull.zip --seeds 8 --steps 10000 --out skull/
  wheeltap fer fetch --out picbreeder/
"""

fer = App(name="fer", help=_HELP, help_format="plaintext")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Training:
    """Which nets are trained, and how long."""

    seeds: Annotated[Whole, Parameter(validator=Number(gte=2, lte=100), help="Nets trained to draw it.")] = 5
    controls: Annotated[
        str,
        Parameter(help="Kinds of control nets, separated by commas: abs-x, l1, relu, decay, sam, sparse."),
    ] = "abs-x,l1"
    control_seeds: Annotated[Whole, Parameter(validator=Number(gte=1, lte=100), help="Nets of each of these.")] = 3
    size: Annotated[Whole, Parameter(validator=Number(gte=8, lte=512), help="Pixels of a side, in training.")] = 64
    steps: Annotated[Whole, Parameter(validator=Number(gte=1, lte=1_000_000), help="Steps of training.")] = 4000
    seed: Annotated[Whole, Parameter(validator=Number(gte=0, lt=2**63), help="Root of every draw.")] = 0

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of control nets, each once."""
        return tuple(dict.fromkeys(kind.strip() for kind in self.controls.split(",") if kind.strip()))


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Written:
    """Where a study goes."""

    out: Annotated[
        Path | None,
        Parameter(
            help="Folder for the pages (report, explorer), the report as JSON, the store and the trained nets. "
            "[default: wheeltap-fer-NAME, here]"
        ),
    ] = None
    json: Annotated[Path | None, Parameter(help="Write the report as JSON to this file too.")] = None
    fail_on: Annotated[FailOn, Parameter(help="Exit with 1 if any finding is this or worse.")] = "never"
    workers: Annotated[
        Whole | None,
        Parameter(validator=Number(gte=1), help="Processes. [default: one for each processor, up to 8]"),
    ] = None
    full: Annotated[bool, Parameter(negative="", help="Print everything: findings, controls, cost.")] = False

    def folder(self, picture: str) -> Path:
        """The folder asked for, or one named after the picture: a second picture must not replace the first."""
        return Path(f"wheeltap-fer-{slug(picture)}") if self.out is None else self.out


_TRAINING, _WRITTEN = Training(), Written()


@fer.default
def study(
    genome: Annotated[Path | None, Parameter(help="A Picbreeder genome: XML, or a zip file that holds it.")] = None,
    *,
    picture: Annotated[str | None, Parameter(help="A built-in picture instead: face, flower or scene.")] = None,
    nets: Annotated[
        Path | None, Parameter(help="Further nets to measure: an .npz file with arch and arrays of parameters.")
    ] = None,
    training: Training = _TRAINING,
    written: Written = _WRITTEN,
) -> int:
    """Is a net that draws a picture wired like nets trained to draw the same picture?"""
    from wheeltap.suites.pictures.cli.pictured import Asked, carry_out

    return carry_out(Asked(genome, picture, nets), training, written=written)


@fer.command
def fetch(*, out: Annotated[Path, Parameter(help="Folder for the three genomes.")] = Path("picbreeder")) -> int:
    """Downloads the three published genomes from the paper's public repository, checked by digest.

    (Of the apple only the length and the first 8 digits of the digest are known.)

    Try it:

      wheeltap fer fetch
      wheeltap fer picbreeder/skull.zip
    """
    from wheeltap.cli.progress import said
    from wheeltap.suites.pictures.sources.genomes import fetch as fetched

    with said("fetching three genomes"):
        written = fetched(out)
    print("Written: " + ", ".join(str(path) for path in written))
    return 0
