"""``wheeltap circuits train | find | check``."""

import dataclasses
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from wheeltap.cli.options import ExecutionFlags, Output, Seed, Whole
from wheeltap.suites.circuits.specs import Ablation, Method

if TYPE_CHECKING:
    from wheeltap.core.canon import Scalar


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class SearchFlags:
    """How a circuit is searched for."""

    method: Annotated[
        Method | None,
        Parameter(
            help="masks keep units; eap and eap-ig keep edges between heads and MLPs. By default masks for models "
            "of up to 5 million weights, eap-ig for larger ones."
        ),
    ] = None
    target: Annotated[
        float | None,
        Parameter(
            validator=Number(gt=0, lt=0.69),
            help="Loss that it must reach, nats; a guess has .693. By default what keeps 90 % of what the model does "
            "beyond a guess, or .1 where that is less.",
        ),
    ] = None
    pairs: Annotated[
        Whole | None,
        Parameter(
            validator=Number(gte=1),
            help="Searched on, and held out, at most; by default 32 with the methods of edges, all with masks.",
        ),
    ] = None
    penalties: Annotated[
        str, Parameter(help="Nats for each unit that is kept, separated by commas; the smallest circuit is taken.")
    ] = "5e-4,1e-3,2.5e-3"
    steps: Annotated[Whole, Parameter(validator=Number(gte=1), help="Of each search.")] = 250
    ablation: Annotated[
        Ablation | None,
        Parameter(
            help="Ablation value: mean, or (edges) patch: the value on the other side of their pair "
            "(the counterfactual). By default mean for units, patch for edges."
        ),
    ] = None

    @property
    def settings(self) -> "dict[str, Scalar]":
        """As the audits take them; those that were not given are left out."""
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: value for name, value in given.items() if value is not None}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class NetFlags:
    """What net is trained."""

    share: Annotated[
        float, Parameter(validator=Number(gt=0, lte=1), help="Of each matrix, weights that are not 0.")
    ] = 0.05
    dense: Annotated[bool, Parameter(negative="", help="Its twin of equal loss, with all weights.")] = False
    steps: Annotated[
        Whole | None, Parameter(validator=Number(gte=1), help="Batches in all; by default what the two nets need.")
    ] = None
    seed: Annotated[Whole, Parameter(help="Of weights and order.")] = 0


_EXECUTION, _OUTPUT, _SEARCH, _NET = ExecutionFlags(), Output(), SearchFlags(), NetFlags()

_PROCESSES = 2
"""By default, where there are as many processors: each holds the model."""

circuits = App(
    name="circuits",
    group="Ask",
    help="""Which units, or edges, of a language model do a task, and is that account of it true?

Try it:

  wheeltap circuits train -o sparse.safetensors
  wheeltap circuits find artifact:sparse.safetensors --task quote -o quote.json
  wheeltap circuits check artifact:sparse.safetensors quote.json --task quote
""",
    help_format="plaintext",
)

Task = Annotated[
    str,
    Parameter(
        help="Task name: quote, bracket or set_or_string, for nets of circuits train; agreement, for language models; "
        "or a .jsonl file of {clean, corrupted, answer, wrong}. Audit takes these too, as pairs:NAME."
    ),
]


@circuits.command
def find(  # noqa: PLR0913 - a door: each is a choice of its own
    model: Annotated[str, Parameter(help="artifact:FILE, hf:FOLDER or another of: wheeltap list models.")],
    *,
    task: Task,
    file: Annotated[Path, Parameter(name=["--file", "-o"], help="Write the circuit to this file.")] = Path(
        "circuit.json"
    ),
    search: SearchFlags = _SEARCH,
    seed: Seed = 0,
    execution: ExecutionFlags = _EXECUTION,
    output: Output = _OUTPUT,
) -> int:
    """Finds a small circuit that does a task, and checks it: sufficient, necessary, nulls, stable.

    The file holds the best circuit so far from the first search on, marked as undecided until a search has reached the
    target. If it is interrupted, the same command resumes it.

    Try it:

      wheeltap circuits find artifact:net.safetensors --task quote -o quote.json
      wheeltap circuits find my_nets:decoder --task pairs.jsonl --target .2
      wheeltap circuits find smollm2 --task agreement -o agreement.json
    """
    return _judged(model, task, search.settings, seed=seed, execution=execution, output=output, file=file)


@circuits.command
def check(
    model: Annotated[str, Parameter(help="The model that it was found in.")],
    circuit: Annotated[Path, Parameter(help="A file of circuits find; or MIB's JSON of edges, by any program.")],
    *,
    task: Task,
    seed: Seed = 0,
    execution: ExecutionFlags = _EXECUTION,
    output: Output = _OUTPUT,
) -> int:
    """Checks a circuit: is it sufficient, is it necessary, would one be found where there is none, is it stable?

    Exit code 1 where it is not evidence: not sufficient, not necessary, or no better than its nulls.

    Try it:

      wheeltap circuits check artifact:net.safetensors quote.json --task quote
      wheeltap circuits check hf:gpt2 their_graph.json --task pairs.jsonl
    """
    return _judged(model, task, circuit, seed=seed, execution=execution, output=output)


@circuits.command
def train(
    *,
    file: Annotated[Path, Parameter(name=["--file", "-o"], help="Write the net to this file.")] = Path(
        "net.safetensors"
    ),
    net: NetFlags = _NET,
    quiet: Annotated[bool, Parameter(negative="", help="Print no progress.")] = False,
) -> int:
    """Trains a small decoder with sparse weights on lines that look like Python, on which its circuits can be found.

    If it is interrupted, the same command resumes it.

    Try it:

      wheeltap circuits train -o sparse.safetensors
      wheeltap circuits train --dense -o dense.safetensors
    """
    from wheeltap.cli.progress import step_progress
    from wheeltap.report.files import require_writable
    from wheeltap.suites.circuits import runs

    require_writable(file)
    with step_progress("training", quiet=quiet) as watch:
        made = runs.train(file, watch=lambda done, total: watch("step", done, total), **dataclasses.asdict(net))
    print(
        f"{file}: {made.nonzero:,} weights that are not 0; loss on sequences held out {made.loss:.4f} nats per token."
    )
    print(f"Find a circuit: wheeltap circuits find artifact:{file} --task quote")
    return 0


def _judged(  # noqa: PLR0913 - what the two doors have in common
    model: str, task: str, asked: "dict[str, Scalar] | Path", *, seed: int, execution: ExecutionFlags, output: Output,
    file: Path | None = None,
) -> int:  # fmt: skip
    """Plans and runs the audits of a circuit, prints the report, writes the circuit."""
    from wheeltap.cli.execution import load, run_on
    from wheeltap.cli.options import default_store
    from wheeltap.cli.progress import spinner
    from wheeltap.report.files import require_writable
    from wheeltap.runs import planning
    from wheeltap.sources.specs import located
    from wheeltap.suites.circuits import runs

    if file is not None:
        require_writable(file)
    output.prepare()
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if execution.ray is None:
        execution = replace(execution, workers=execution.workers or min(usable, _PROCESSES))
    data = located(f"pairs:{task.removeprefix('pairs:')}")
    with spinner(f"loading {model}"):
        subjects, examples = load((model,), data)
        if isinstance(asked, Path):
            audits = runs.file_audits(asked, subjects[0], examples)
        else:
            audits = runs.search_audits(asked, subjects[0])
        plan = planning.plan(subjects, examples, audits=audits, seed=seed, sources=(model,), data=data)
    store = execution.store or default_store(subjects[0].name)
    note = runs.selection_note(asked) if isinstance(asked, Path) else ""

    def keep() -> None:
        """Writes the best circuit so far: also where the run is killed, or the reader of the report goes away."""
        nonlocal note
        if file is not None:
            circuit = runs.found(plan, subjects[0], examples, store)
            size = "" if circuit is None else runs.save(circuit, file)
            note = f"{file}: {size}" if size else f"There is no circuit: {file} was not written."

    report = run_on(plan, subjects, examples, execution=execution, output=output, after=keep)
    keep()
    code = output.give(report)
    if note:
        print(note)
    return code
