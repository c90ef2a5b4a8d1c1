"""``wheeltap report``."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter


def report(
    source: Annotated[Path, Parameter(help="A .wheeltap store, or a report.json.")],
    *,
    html: Annotated[Path | None, Parameter(help="The page to write. [default: report.html]")] = None,
    json: Annotated[Path | None, Parameter(help="Also write the report as JSON to this file.")] = None,
) -> int:
    """Makes the page of a finished run.

    Examples:
      wheeltap report digits.wheeltap --html digits.html
      wheeltap report report.json
    """
    from wheeltap.cli.show import read

    made = read(source)
    written = [made.html(html or Path("report.html"))]
    if json is not None:
        written.append(made.json(json))
    print("Written: " + ", ".join(str(path) for path in written))
    return 0
