"""What ``study`` and ``fer`` do: find the study, plan it, run it with progress, give its report."""

import dataclasses
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final, final

import msgspec

from wheeltap.audits.base import studies
from wheeltap.cli.options import Running, default_store
from wheeltap.cli.progress import share, shown, steps
from wheeltap.cli.status import described
from wheeltap.cli.study import Choosing
from wheeltap.cli.telling import Telling
from wheeltap.cli.typed import TYPED
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.plans.plan import Effort, Plan
from wheeltap.recipes.make import Pace
from wheeltap.report import files
from wheeltap.report.report import Report
from wheeltap.runs import loop, stored, studying
from wheeltap.runs.budget import Budget
from wheeltap.runs.loop import Making, Progress, Watch
from wheeltap.runs.studying import Planned
from wheeltap.studies import declared
from wheeltap.studies.base import Study

VERB: Final = "study "
"""What the commands of such plans begin with."""


def carry_out(name: str, choosing: Choosing, *, running: Running, telling: Telling) -> int:
    """Plans a study and runs it, or writes its plan; gives the exit code."""
    telling.prepare()
    budget = None if choosing.budget is None else Budget.parse(choosing.budget)
    if choosing.plan is not None:
        files.require_writable(choosing.plan)
    found = chosen(name, choosing)
    asked = planned(found, f"{VERB}{name}", choosing)
    if choosing.plan is None:
        return telling.tell(run(asked, running=running, telling=telling, budget=budget))
    files.write(choosing.plan, asked.plan.to_bytes())
    allowed = " --allow-code" if choosing.allow_code else ""
    print(f"{choosing.plan}: {described(asked.plan)}.\nRun it: wheeltap run {choosing.plan}{allowed}")
    return 0


def chosen(name: str, choosing: Choosing) -> Study:
    """The study of this name, or in this file.

    Raises:
        UnknownName: If there is no study of this name, or it has no such setting.
        MissingFile: If there is no such file.
        UsageError: If a setting cannot be used.
    """
    if name not in studies and (Path(name).suffix == ".toml" or Path(name).name != name or Path(name).is_file()):
        given = {"--size": choosing.size, "--seeds": choosing.seeds, "--set": choosing.set_}
        wrong = [flag for flag, value in given.items() if value]
        if wrong:
            raise UsageError(
                "A study in a file has its settings there.",
                where=name,
                expected="the file alone",
                got=", ".join(wrong),
                do=f"Write them into {name}.",
            )
        return declared.read(Path(name), allow_code=choosing.allow_code)
    kind = studies.get(name)
    assert issubclass(kind, Study), "the registry holds nothing else"
    fields = {field.name: field.type for field in msgspec.structs.fields(kind.settings_type)}
    settings: dict[str, Any] = dict(kind.sized(choosing.size or "small"))
    if "seed" in fields:
        settings["seed"] = choosing.seed
    if choosing.seeds is not None:
        if "seeds" not in fields:
            raise UnknownName(f"setting of the study {name}", "seeds", fields)
        settings["seeds"] = choosing.seeds
    return studying.create(name, {**settings, **given_settings(choosing.set_, fields, name=name)})


def given_settings(pairs: Iterable[str], fields: Mapping[str, Any], *, name: str) -> dict[str, Any]:
    """Settings written as ``name=value``, each as its field wants it.

    Raises:
        UsageError: If one has no value.
        UnknownName: If there is no such setting.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, mark, text = pair.partition("=")
        if not mark:
            raise UsageError("A setting has no value.", where="--set", expected="NAME=VALUE", got=pair)
        if key not in fields:
            raise UnknownName(f"setting of the study {name}", key, fields)
        found[key] = _value(text, fields[key])
    return found


def _value(text: str, kind: Any) -> Any:
    """What is written, as its field wants it; as it is where that cannot be, for the study says what it expects."""
    with suppress(msgspec.ValidationError):
        return msgspec.convert(text, kind, strict=False)
    with suppress(ValueError, msgspec.ValidationError):
        return msgspec.convert(float(text), kind)  # .2 is a number too
    for number in (int, float):  # out of range, then: it says of what
        with suppress(ValueError):
            return number(text)
    return text


def planned(found: Study, command: str, choosing: Choosing) -> Planned:
    """The plan of a study, as this command made it."""
    draws = choosing.draws
    effort = None if draws is None else Effort(draws=draws, control_draws=draws)
    with steps(f"planning {command}") as watch:
        made = studying.planned(found, effort=effort, seed=choosing.seed, alpha=choosing.alpha, watch=watch)
    return dataclasses.replace(made, plan=msgspec.structs.replace(made.plan, command=command))


def run(
    asked: Planned, *, running: Running, telling: Telling, budget: Budget | None = None, made: Path | None = None
) -> Report:
    """Runs a study's plan with progress.

    Args:
        asked: The plan, with what is needed to run it.
        running: Where outcomes are kept, and who computes them.
        telling: Where the report goes.
        budget: When to stop, with a report on what is there.
        made: Folder of what recipes make; by default beside the store.
    """
    store = running.store or store_of(asked.plan)
    telling.require_apart(store)
    folder = made or studying.folder_of(store)
    with shown(asked.plan.command, quiet=telling.quiet) as watch:
        watched = _Watched(watch, budget)
        try:
            return loop.run(
                asked.plan, [], asked.task, store=store, workers=running.workers or 1, watch=watched,
                memory=running.memory_bytes, members=asked.members(folder), again=TYPED.get(),
            )  # fmt: skip
        except _Spent:
            return stored.judge(store)
        except KeyboardInterrupt:
            if watched.member is not None and not telling.quiet:
                print(_stopped(watched.member, folder), file=sys.stderr)
            raise


@final
class _Spent(KeyboardInterrupt):
    """The budget is spent: a run stops as it does at Ctrl-C, with everything kept."""


@final
class _Watched:
    """A watch that ends the run when the budget is spent, and remembers which net was in the making."""

    def __init__(self, watch: Watch, budget: Budget | None) -> None:
        self.member: Making | None = None
        self._watch, self._budget, self._began = watch, budget or Budget(), monotonic()

    def __call__(self, state: Progress) -> None:
        self.member = state.member
        self._watch(state)
        budget = self._budget
        spent, limit = (
            (state.forwards, budget.forwards) if budget.seconds is None else (monotonic() - self._began, budget.seconds)
        )
        if limit is not None and spent >= limit:
            raise _Spent


def _stopped(member: Making, folder: Path) -> str:
    return (
        f"wheeltap: {member.name} was stopped at {share(member)}. Its state is kept in {folder}: training "
        f"goes on from there, and {Pace().keep:g} s of it are lost at most."
    )


def store_of(plan: Plan) -> Path:
    """A file in this folder named after the study."""
    return default_store(Path(plan.command.removeprefix(VERB)).stem)
