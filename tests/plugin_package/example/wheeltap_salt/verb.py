"""A verb, ``wheeltap salt``, and a file beside every report."""

from typing import Annotated

from cyclopts import App, Parameter

from wheeltap.core.report import ReportRecord

salt = App(name="salt", group="Large runs", help_format="plaintext")


@salt.default
def _salt(model: Annotated[str, Parameter(help="digits, or any other model.")]) -> int:
    """Says how many weights a model has.

    Try it:

      wheeltap salt digits
    """
    from wheeltap.sources import load

    print(f"{model}: {load(model).subject.record.parameters} weights")
    return 0


def taste(record: ReportRecord) -> str | None:
    """``taste.txt`` in the folder of a report with findings; nothing beside any other."""
    return f"{len(record.findings)} findings\n" if record.findings else None
