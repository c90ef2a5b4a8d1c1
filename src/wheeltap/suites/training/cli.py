"""``wheeltap doctor --plant``: which planted defects are found in copies of a model, by the study ``detection``."""

import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.table import Table

from wheeltap import sources
from wheeltap.audits.power import smallest_found
from wheeltap.cli.options import Whole
from wheeltap.cli.progress import run_progress, spinner, step_progress
from wheeltap.core.errors import ModelError, WheeltapError
from wheeltap.core.plain import terminal
from wheeltap.core.report import ReportRecord
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.readings import create as reading
from wheeltap.plans.defects import DEFECTS, SOUND, USUAL, names_of
from wheeltap.plans.plan import Effort
from wheeltap.recipes.base import Given, recipe_of, spec
from wheeltap.report.files import require_writable, write
from wheeltap.runs import loop, planning, studying
from wheeltap.runs.request import StudyRequest
from wheeltap.suites.training.studies import detection as rules


class DetectionCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How often one defect was found."""

    defect: str  # its name
    runs: int  # copies tried at each strength, each with a plant and draws of its own
    strengths: tuple[float, ...] = ()  # tried, rising
    found: dict[str, tuple[int, ...]] = {}  # by finding code: how many of them were found, strength by strength
    # By finding code: the smallest strength that is found with a probability of .8, if any.
    smallest: dict[str, float | None] = {}
    refused: str = ""  # why it could not be planted, if so


def plant(
    model: Annotated[str, Parameter(help="digits, hf:FOLDER, gguf:FILE or another of: wheeltap list models.")],
    *,
    data: Annotated[Path | None, Parameter(help="Examples, as for audit.")] = None,
    runs: Annotated[Whole, Parameter(validator=Number(gte=2), help="Copies for each defect and strength.")] = 5,
    draws: Annotated[
        Whole | None, Parameter(validator=Number(gte=2), help="Draws of noise per dose, as for audit.")
    ] = None,
    defects: Annotated[
        str | None, Parameter(help="Which, separated by commas; sound copies are always beside them.")
    ] = None,
    json: Annotated[Path | None, Parameter(help="Write what was found to this file.")] = None,
) -> int:
    """Plants defects in copies of a model and says which are found: a check of the instruments.

    Copies that compute the same, with a defect of known strength or sound, are compared with the model; a table says
    how often each was found (the study detection).

    Try it:

      wheeltap doctor --plant my_nets:resnet --data test.npz --defects cancel,none
    """
    chosen = tuple(dict.fromkeys((*(USUAL if defects is None else names_of(defects)), SOUND)))
    if json is not None:
        require_writable(json)
    with spinner("loading"):
        loaded = sources.load(model, data=data)
    subject, task = loaded.subject, loaded.task
    effort = planning.effort_of(draws, subject.record.parameters)
    console = terminal()
    console.print(f"Planting in copies of {subject.name}; {runs} copies a strength, {effort.draws} draws a dose.")
    with spinner("planting"):
        refused = {name: why for name in chosen if (why := _refused(name, subject, task))}
    found = [DetectionCounts(defect=name, runs=runs, refused=why) for name, why in refused.items()]
    left = [name for name in chosen if name not in refused]
    if SOUND in left:
        settings = {
            "model": model, "data": "" if data is None else str(data), "defects": ",".join(left), "strengths": "all",
            "copies": runs, "shift": _shifts(subject, task),
        }  # fmt: skip
        record = _studied(settings, effort)
        failed = [f"{control.name}: {control.because}" for control in record.controls if control.status == "failed"]
        console.print(*([record.headline, *failed] if record.void else []), sep="\n")
        found += [_counted(name, runs, record) for name in left]
    for one in found:
        _print(one)
    if json is not None:
        write(json, msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
        console.print(f"Written: {json}")
    return 0


def _refused(name: str, subject: Subject, task: BaseTask) -> str:
    """Why a defect cannot be planted in a model; empty where it can."""
    settings = {"defect": name, "strength": DEFECTS[name].strengths[0]}
    asked = spec("planted", settings, seed=0, of=(subject.record.fingerprint,), data=task.digest)
    try:
        recipe_of(asked).blank(Given(asked, (subject.model,), task))
    except ModelError as error:
        return " ".join(part for part in (error.what, error.got) if part)
    return ""


def _shifts(subject: Subject, task: BaseTask) -> bool:
    """Whether the inputs of a task can be disturbed."""
    try:
        reading("input-shift").require(subject, task)
    except WheeltapError:
        return False
    return True


def _studied(settings: dict[str, str | int | bool], effort: Effort) -> ReportRecord:
    """The study, made and measured in a folder that is deleted."""
    with step_progress("planning") as planning:
        asked = studying.planned(studying.create("detection", settings), StudyRequest(effort=effort), watch=planning)
    with tempfile.TemporaryDirectory(prefix="wheeltap-") as folder, run_progress("planting") as watch:
        members = asked.members(Path(folder) / "made")
        report = loop.run(
            asked.plan, [], asked.task, store=Path(folder) / "run.wheeltap", watch=watch, members=members
        )  # fmt: skip
    return report.record


def _counted(name: str, runs: int, record: ReportRecord) -> DetectionCounts:
    """Of how many copies each code was found, strength by strength."""
    assert record.study is not None, "it is the report of a study"
    strengths = DEFECTS[name].strengths
    cohorts = [rules.COPIES if name == SOUND else str(rules.Plant(name, strength)) for strength in strengths]
    values = {(row.metric.key, cohort.cohort): cohort.values for row in record.study.rows for cohort in row.cohorts}
    codes = [row.metric.code for row in record.study.rows if row.metric.key == rules.found_key(row.metric.code)]
    found = {
        code: tuple(int(sum(values.get((rules.found_key(code), cohort), ()))) for cohort in cohorts) for code in codes
    }
    smallest = {
        code: smallest_found([(at, count / runs) for at, count in zip(strengths, counts, strict=True)])
        for code, counts in found.items()
    }  # fmt: skip
    return DetectionCounts(
        defect=name, runs=runs, strengths=strengths, found=found, smallest={} if name == SOUND else smallest
    )  # fmt: skip


def _print(one: DetectionCounts) -> None:
    console, defect = terminal(), DEFECTS[one.defect]
    console.print()
    if one.refused:
        console.print(f"{one.defect}: not planted. {one.refused}")
        return
    table = Table(title=f"{defect.title} (strength: {defect.unit})", title_justify="left", box=None, pad_edge=False)
    for heading in ("strength", *one.found):
        table.add_column(heading, justify="right")
    for at, strength in enumerate(one.strengths):
        table.add_row(f"{strength:.3g}", *(f"{counts[at]} of {one.runs}" for counts in one.found.values()))
    if one.smallest:
        table.add_row("smallest", *("-" if least is None else f"{least:.2g}" for least in one.smallest.values()))
    console.print(table)
