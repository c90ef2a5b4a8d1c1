"""``wheeltap doctor --plant``: what is planted, what is found."""

from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from wheeltap import sources
from wheeltap.cli.options import Measuring
from wheeltap.cli.progress import shown
from wheeltap.core.errors import UnknownName
from wheeltap.report.files import require_writable, write
from wheeltap.runs import planting
from wheeltap.runs.planting import CODES, DEFECTS, Detection


def planted(
    model: str, data: Path | None, *, runs: int, draws: int | None, names: str | None, json: Path | None
) -> int:
    """Plants, compares, prints one table per defect."""
    chosen = tuple(DEFECTS) if names is None else tuple(name.strip() for name in names.split(",") if name.strip())
    for name in chosen:
        if name not in DEFECTS:
            raise UnknownName("defect", name, DEFECTS)
    if json is not None:
        require_writable(json)
    loaded = sources.load(model, data=data)
    effort = Measuring(draws=draws).settled().effort(loaded.subject.record.parameters)
    console = Console(highlight=False)
    console.print(
        f"Planting in copies of {loaded.subject.name}; {runs} copies a strength, {effort.draws} draws a dose."
    )
    found: list[Detection] = []
    with shown("planting") as watch:
        for one in planting.detect(loaded.subject, loaded.task, names=chosen, runs=runs, effort=effort, watch=watch):
            found.append(one)
            _print(one, console)
    if json is not None:
        write(json, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
        console.print(f"Written: {json}")
    return 0


def _print(one: Detection, console: Console) -> None:
    defect = DEFECTS[one.defect]
    console.print()
    if one.refused:
        console.print(f"{one.defect}: not planted. {one.refused}", markup=False)
        return
    unit = f" (strength: {defect.unit})" if defect.unit else ""
    table = Table(title=f"{defect.title}{unit}", title_justify="left", box=None, pad_edge=False)
    for heading in ("strength", *CODES):
        table.add_column(heading, justify="right")
    for at, strength in enumerate(defect.strengths):
        table.add_row(f"{strength:g}", *(f"{one.found[code][at]} of {one.runs}" for code in CODES))
    if one.defect != "none":
        least = {code: one.smallest(code) for code in CODES}
        table.add_row("smallest", *("-" if s is None else f"{s:.2g}" for s in least.values()))
    console.print(table)
