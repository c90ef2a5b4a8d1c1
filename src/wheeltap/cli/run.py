"""``wheeltap run`` and ``wheeltap status``."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from wheeltap.cli.options import AllowCode, ExecutionFlags, Output
from wheeltap.core.errors import UsageError, WheeltapError
from wheeltap.core.plain import many

if TYPE_CHECKING:
    from wheeltap.plans.plan import Plan
    from wheeltap.plans.shard import Shard
    from wheeltap.plans.store import Outcomes, Store
    from wheeltap.runs.stored import StoredPlan


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class ShardFlags(ExecutionFlags):
    """Where outcomes of a plan are kept, who computes them, and which of them."""

    shard: Annotated[
        str | None,
        Parameter(
            help="Run a share of the trials alone, the first of eight being 0/8. auto/8 asks SLURM_ARRAY_TASK_ID or "
            "JOB_COMPLETION_INDEX which one; auto is for a whole SLURM array. Then: wheeltap merge."
        ),
    ] = None
    base: Annotated[
        Path | None,
        Parameter(help="With --shard: the merged store, to go on from. One that is not there holds nothing yet."),
    ] = None
    made: Annotated[
        Path | None,
        Parameter(help="Folder of the nets that a study makes; shards may share it. [default: beside the store]"),
    ] = None


_EXECUTION, _OUTPUT = ShardFlags(), Output()


def run(
    plan: Annotated[Path, Parameter(help="A file made by: wheeltap plan.")],
    *,
    allow_code: AllowCode = False,
    execution: ShardFlags = _EXECUTION,
    output: Output = _OUTPUT,
) -> int:
    """Runs a plan, or a share of it; what its store already holds is not run again.

    Try it:

      wheeltap run digits.plan.json
      wheeltap run ab.plan.json --workers 2 --out report/
      wheeltap run digits.plan.json --shard 0/8 --store part-0.wheeltap
    """
    from wheeltap.cli.execution import load, run_on, run_study
    from wheeltap.cli.progress import spinner
    from wheeltap.plans.plan import Plan
    from wheeltap.plans.shard import shard_of
    from wheeltap.report.origin import missing_trials
    from wheeltap.runs import studying
    from wheeltap.sources.base import require_no_code

    shard = shard_of(execution.shard, store=execution.store, base=execution.base)
    if shard is not None and output != Output(quiet=output.quiet):
        raise UsageError(
            "A shard has no report of its own.", where=f"--shard {shard}", expected="none of the flags of reports",
            do="Merge the stores of all shards, and then: wheeltap report STORE --out FOLDER",
        )  # fmt: skip
    output.prepare()
    made = Plan.read(plan)
    if made.study is not None:
        with spinner("loading"):
            again = studying.again(made, allow_code=allow_code)
        report = run_study(again, execution=execution, output=output)
    else:
        if not made.sources or len(made.sources) != len(made.subjects):
            raise UsageError(
                "The plan does not say how its models are loaded.",
                where=str(plan),
                expected=f"{max(len(made.subjects), 1)} sources, one for each subject",
                got=", ".join(made.sources) or "none",
                do="Run it from Python: wt.run(plan, subjects, task); or make one with: wheeltap plan",
            )
        if not allow_code:
            files = (file.spec for file in made.files)
            code = [*made.sources, *files, made.task.measure]
            require_no_code(code, examples=[] if made.data is None else [made.data], where=str(plan))
        with spinner("loading " + " and ".join(made.sources)):
            names, part = [subject.name for subject in made.subjects], made.subjects[0].output
            subjects, task = load(made.sources, made.data, names=names, output=part)
        report = run_on(made, subjects, task, execution=execution, output=output)
    if shard is None:
        return output.give(report)
    left, ran = missing_trials(report.record), many(report.record.cost.trials, "trial")
    print(f"Shard {shard}: {ran} run into {execution.store}; {left:,} of other shards to go. Next: wheeltap merge")
    return 0


def status(
    store: Annotated[
        Path | None, Parameter(help="A .wheeltap file; may be in use. [default: the one in this folder]")
    ] = None,
) -> int:
    """Shows how far each run in a store is: trials done of those wanted so far, failed, and to go.

    Try it:

      wheeltap status digits.wheeltap
    """
    from wheeltap.core.plain import plain
    from wheeltap.plans.store import Outcomes, Store
    from wheeltap.runs.stored import plan_of, plans_of

    there = sorted(Path().glob("*.wheeltap"))
    if store is None and len(there) != 1:
        raise UsageError(
            "No store is named.",
            where=str(Path().resolve()),
            expected="the one .wheeltap file of this folder, or the path of one",
            got=", ".join(map(str, there[:5])) + (f" and {len(there) - 5} more" if len(there) > 5 else "") or "none",
            do="wheeltap status FILE. A run keeps its outcomes where --store says; else in the folder where it was "
            "started, in a file named after its models.",
        )
    with Store(there[0] if store is None else store, readonly=True) as kept:
        plans, known = plans_of(kept), Outcomes(kept)
        if not plans:
            plan_of(kept)  # says what to do
        for each in plans:
            print(plain(title(each, of=len(plans))))
            for line in _progress(each, known, kept):
                print(f"  {plain(line)}")
        counts = ", ".join(f"{number:,} {name}" for name, number in kept.count().items()) or "none"
        foreign = kept.foreign()
    print(f"outcomes in the store: {counts}")
    if foreign:
        print(f"not signed with your key, and not read: {foreign:,} (wheeltap report FILE --trust)")
    return 0


def title(kept: "StoredPlan", *, of: int) -> str:
    """One line on a plan of a store: its number where there are several, when it was run, and what it asks."""
    number = f"plan {kept.number} of {of}" if of > 1 else ""
    head = ", ".join(part for part in (number, f"run {kept.when}" if kept.when else "") if part)
    if kept.plan is None:
        return f"{head or 'plan'}: made by another version of wheeltap"
    plan = kept.plan
    if plan.study is not None:
        return f"{head}{': ' if head else ''}{plan.command} on {plan.task.name}: {described(plan)}"
    subjects, audits = (", ".join(one.name for one in several) for several in (plan.subjects, plan.audits))
    return f"{head}{': ' if head else ''}{plan.command}: {subjects} on {plan.task.name}: {audits}"


def described(plan: "Plan") -> str:
    """What a study's plan holds, in a few words."""
    assert plan.study is not None, "the plan of a study"
    counts = {"cohort": len(plan.study.cohorts), "rule": len(plan.study.rules), "net": len(plan.subjects)}
    *others, nets = [f"{count:,} {what}{'s' * (count != 1)}" for what, count in counts.items()]
    made = len(plan.makings())
    return f"{nets}{f' ({made:,} made by recipes)' if made else ''} in {others[0]}, {others[1]}"


def _progress(kept: "StoredPlan", known: "Outcomes", store: "Store") -> list[str]:
    """What there is to say on a plan's trials."""
    from wheeltap.plans.shard import shard_note
    from wheeltap.runs.stored import again_of, require_audits

    if kept.plan is None:
        return ["Use the wheeltap that made it."]
    try:
        require_audits(kept.plan, where=str(store.path))
        note = shard_note(store, kept.key)
        return _counted(kept.plan, known, again_of(store, kept.key), None if note is None else note.shard)
    except WheeltapError as error:
        return [error.in_line()]


def _counted(plan: "Plan", known: "Outcomes", again: str, shard: "Shard | None") -> list[str]:
    from wheeltap.audits.settle import wanted
    from wheeltap.runs.budget import most_trials

    asked = [trial for trial in wanted(plan, known) if shard is None or shard.has(trial)]
    found = Counter(outcome.status for trial in asked if (outcome := known(trial.key)) is not None)
    there, failed = found.total(), found["failed"]
    beside = ", ".join(f"{count:,} {name}" for name, count in sorted(found.items()) if name != "done")
    first = f"{there:,} of {len(asked):,} trials have run" + (f" ({beside})" if beside else "")
    first += "" if shard is None else f", of those of shard {shard}"
    missing = len(asked) - there
    if not missing:
        return [first, f"complete, but {failed:,} failed: the same command tries them again" if failed else "complete"]
    most = most_trials(plan)
    later = f"Later rounds depend on what these give and may ask for more: at most {most:,} in all."
    made = [outcome for trial in plan.makings() if (outcome := known(trial.key)) is not None]
    return [
        first,
        *([f"{len(made):,} of {len(plan.makings()):,} nets are made"] if plan.makings() else []),
        f"{missing:,} trial{'s' * (missing != 1)} to go{' so far' * (most > len(asked))}: "
        + (f"resume with: {again}" if again else "run the same command again"),
        *([later] if most > len(asked) else []),
    ]
