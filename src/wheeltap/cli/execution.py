"""From what the command line asks for to a report: load, plan, run with progress."""

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Final, final

from wheeltap import sources
from wheeltap.audits.base import DEFAULT
from wheeltap.cli import COMMAND
from wheeltap.cli.options import STDOUT, ExecutionFlags, Output, RequestFlags, default_store
from wheeltap.cli.progress import run_progress, spinner
from wheeltap.core.errors import UsageError
from wheeltap.core.plain import terminal
from wheeltap.core.settings import comma_separated
from wheeltap.core.stages import stage
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.plans.plan import Plan
from wheeltap.recipes.make import Pace
from wheeltap.report import files
from wheeltap.report.report import Report
from wheeltap.report.words import wrapped
from wheeltap.runs import loop, planning, recorded, samples, shipping, stored, studying
from wheeltap.runs.pace import MakingProgress, Progress, share
from wheeltap.runs.request import Budget, only_files
from wheeltap.runs.studying import PlannedStudy
from wheeltap.sources.specs import SharedExamples, located

STUDY: Final = "study "
"""What the commands of studies begin with."""


@stage("loading")
def load(
    specs: Sequence[str], data: str | Path | None, *, names: Sequence[str] = (), output: str | None = None
) -> tuple[list[Subject], BaseTask]:
    """Every model, by the shortest names that tell the specs apart if none are given; and the first one's task.

    Raises:
        UsageError: If there are not as many names as models, or two are alike.
    """
    if names and (len(names) != len(specs) or len(set(names)) < len(names) or not all(name.strip() for name in names)):
        raise UsageError(
            "The names do not fit the models.",
            where="--name",
            expected=f"{len(specs)} name{'s' * (len(specs) != 1)} that differ, for {', '.join(specs)}",
            got=", ".join(names),
            do="Give one name for each model, in the same order: --name before,after.",
        )
    called = names or sources.names_of(specs)
    shared = SharedExamples(specs[0], data=data, name=called[0])
    others = [shared.other(spec, name=name) for spec, name in zip(specs[1:], called[1:], strict=True)]
    subjects = [shared.subject, *others]
    if output is not None:
        for subject in subjects:
            subject.choose(output)
    return subjects, shared.task


def planned(specs: tuple[str, ...], request: RequestFlags) -> tuple[Plan, list[Subject], BaseTask]:
    """The plan that flags and settings file ask for, with what it needs to run."""
    data = request.examples
    request.specs(DEFAULT)  # before anything is loaded: a mistyped name should not cost a minute
    subjects, task = load(specs, data, names=comma_separated(request.name), output=request.output)
    made = planning.planned(
        subjects, task, request.asked(subjects, task), sources=specs, data=None if data is None else located(data)
    )
    return made, subjects, task


def plan_and_run(
    specs: tuple[str, ...],
    request: RequestFlags,
    *,
    execution: ExecutionFlags,
    output: Output,
    samples_to: Path | None = None,
) -> int:
    """Audits the one model named, or compares the others with the first; gives the exit code.

    The first model's answers to a task of lm-eval go to ``samples_to``.
    """
    output.prepare()
    if samples_to is not None:
        samples.require_asked(samples_to, request.examples)
        files.require_writable(samples_to)
    if len(specs) == 1 and only_files(request.specs(DEFAULT)):
        return compare_files(specs[0], request, execution=execution, output=output)
    with spinner("loading " + " and ".join(specs)):
        plan, subjects, task = planned(specs, request)
    code = output.give(run_on(plan, subjects, task, execution=execution, output=output))
    if samples_to is not None:
        store = execution.store or default_store(*(subject.name for subject in subjects))
        with spinner("writing samples"):
            samples.write(samples_to, plan, subjects[0], store)
    return code


def compare_files(spec: str, request: RequestFlags, *, execution: ExecutionFlags, output: Output) -> int:
    """Compares files with their original tensor by tensor, without examples; gives the exit code."""
    names = comma_separated(request.name)
    with spinner(f"loading {spec}"):
        subject = sources.load_model(spec, name=names[0] if names else "")
    store = execution.store or default_store(subject.name)
    output.prepare(store)
    with spinner("comparing tensors"):
        asked = replace(request, audits=request.specs(DEFAULT))  # pyright: ignore[reportArgumentType]
        report = shipping.compare_files(subject, asked, store=store, source=spec)
    return output.give(report)


def compare_logs(specs: Sequence[str], request: RequestFlags, *, store: Path | None, output: Output) -> int:
    """Compares recorded answers with the first of them, without a model; gives the exit code."""
    output.prepare(store)
    with tempfile.TemporaryDirectory(prefix="wheeltap-") as folder:
        place = store or Path(folder) / "logs.wheeltap"
        said = recorded.put_logs(specs, request, names=comma_separated(request.name), store=place)
        if not output.quiet and output.json != STDOUT:
            for line in said:
                wrapped(terminal(), line, style="dim")
            print()
        return output.give(stored.judge(place))


def run_on(
    plan: Plan, subjects: list[Subject], task: BaseTask, *, execution: ExecutionFlags, output: Output,
    after: Callable[[], None] | None = None,
) -> Report:  # fmt: skip
    """Runs a plan of models with progress; nothing is printed of the report yet."""
    names = [subject.name for subject in subjects]
    store = execution.store or default_store(*names)
    output.prepare(store)
    with run_progress(" vs ".join(names), quiet=output.quiet) as watch:

        def each(state: Progress) -> None:
            watch(state)
            if after is not None:
                after()

        return loop.run(
            plan, subjects, task, store=store, workers=execution.executor, watch=each,
            memory=execution.memory_bytes, again=COMMAND.get(), shard=execution.shard, base=execution.base,
        )  # fmt: skip


def run_study(
    study: PlannedStudy, *, execution: ExecutionFlags, output: Output, budget: Budget | None = None
) -> Report:
    """Runs a study's plan with progress; where the budget is spent, the report is on what is there."""
    store = execution.store or default_store(Path(study.plan.command.removeprefix(STUDY)).stem)
    output.prepare(store)
    folder = execution.made or studying.folder_of(store)
    with run_progress(study.plan.command, quiet=output.quiet) as watch:
        net: MakingProgress | None = None
        began, limits = monotonic(), budget or Budget()

        def within_budget(state: Progress) -> None:
            nonlocal net
            net = state.member
            watch(state)
            in_seconds = limits.seconds is not None
            spent, limit = (monotonic() - began, limits.seconds) if in_seconds else (state.forwards, limits.forwards)
            if limit is not None and spent >= limit:
                raise _BudgetEnd

        try:
            return loop.run(
                study.plan, [], study.task, store=store, workers=execution.executor, watch=within_budget,
                memory=execution.memory_bytes, members=study.members(folder), again=COMMAND.get(),
                shard=execution.shard, base=execution.base,
            )  # fmt: skip
        except _BudgetEnd:
            return stored.judge(store)
        except KeyboardInterrupt:
            if net is not None and not output.quiet:
                print(
                    f"wheeltap: {net.name} was stopped at {share(net)}. Its state is kept in {folder}: training "
                    f"goes on from there, and {Pace().keep:g} s of it are lost at most.",
                    file=sys.stderr,
                )
            raise


@final
class _BudgetEnd(KeyboardInterrupt):
    """The budget is spent: a run stops as it does at Ctrl-C, with everything kept."""
