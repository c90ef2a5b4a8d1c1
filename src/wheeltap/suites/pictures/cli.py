"""``wheeltap pictures fetch``; the study itself is ``wheeltap study pictures``."""

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from wheeltap.core.errors import UsageError

pictures = App(
    name="pictures",
    group="Ask",
    help="""Published genomes of the study of pictures.

Try it:

  wheeltap pictures fetch --out picbreeder/
  wheeltap study pictures --genome picbreeder/skull.zip --out skull/
""",
    help_format="plaintext",
)
fer = App(name="fer", show=False)


@pictures.command
def fetch(*, out: Annotated[Path, Parameter(help="Folder for the three genomes.")] = Path("picbreeder")) -> int:
    """Downloads the three published genomes from the paper's public repository, checked by digest.

    (Of the apple only the length and the first 8 digits of the digest are known.)

    Try it:

      wheeltap pictures fetch
      wheeltap study pictures --genome picbreeder/skull.zip
    """
    from wheeltap.cli.progress import spinner
    from wheeltap.suites.pictures.sources.genomes import fetch as fetched

    with spinner("fetching three genomes"):
        written = fetched(out)
    print("Written: " + ", ".join(str(path) for path in written))
    return 0


@fer.default
def _former(*_: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> int:
    raise UsageError(
        "There is no verb fer any more.",
        expected="wheeltap study pictures --picture NAME, or --genome FILE; wheeltap pictures fetch",
        got="fer",
        do="See: wheeltap study pictures --help",
    )
