"""``wheeltap dictionary train | check``."""

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter
from cyclopts.validators import Number

from wheeltap.cli.options import ExecutionFlags, Output, Seed, Whole


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """How dictionaries are trained."""

    site: Annotated[
        str,
        Parameter(show_default=False, help="Module path in the model whose output is meant, such as transformer.h.5."),
    ] = ""
    positions: Annotated[
        Literal["last", "all"],
        Parameter(help="Of a language model: the last position of each context, or all but the first."),
    ] = "last"
    steps: Annotated[Whole, Parameter(validator=Number(gte=1), help="Of each training.")] = 1000
    seed: Seed = 0

    @property
    def given(self) -> dict[str, Any]:
        """As the doors take them; those that were not given are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DictionaryFlags(TrainingFlags):
    """Which dictionary is trained."""

    architecture: Annotated[
        Literal["topk", "relu"], Parameter(help="Activation: topk, or relu with an L1 penalty.")
    ] = "topk"
    features: Annotated[
        Whole | None, Parameter(validator=Number(gte=1), help="By default 8 for each number of a vector.")
    ] = None
    k: Annotated[Whole, Parameter(validator=Number(gte=1), help="Features that are active, on average.")] = 8


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class NullFlags(TrainingFlags):
    """What a dictionary is judged beside."""

    nulls: Annotated[str, Parameter(help="Kinds, comma-separated, in addition to matched random.")] = (
        "frozen decoder,soft-frozen decoder,frozen encoder,random,untrained net"
    )
    seeds: Annotated[Whole, Parameter(validator=Number(gte=1), help="Nulls of each kind that is trained.")] = 5


_EXECUTION, _OUTPUT, _DICTIONARY, _NULLS = ExecutionFlags(), Output(), DictionaryFlags(), NullFlags()

dictionary = App(
    name="dictionary",
    group="Ask",
    help="""Does a sparse dictionary (SAE) of a site do better than dictionaries that know nothing?

Try it:

  wheeltap dictionary train ioi --site blocks.1 -o d.safetensors
  wheeltap dictionary check ioi d.safetensors --site blocks.1
""",
    help_format="plaintext",
)

Task = Annotated[
    str | None,
    Parameter(
        help="Examples: attributes:ioi, attributes:agreement, attributes:digits, or a file with factors; by default "
        "the model's own."
    ),
]


@dictionary.command
def train(
    model: Annotated[str | None, Parameter(help="ioi, smollm2, hf:FOLDER or another of: wheeltap list models.")] = None,
    *,
    task: Task = None,
    vectors: Annotated[Path | None, Parameter(help="Without a model: vectors [row, width], .npy or .npz.")] = None,
    file: Annotated[Path, Parameter(name=["--file", "-o"], help="Write it to this .safetensors file, or (no suffix) "
                                    "as a folder in SAELens' layout.")] = Path("dictionary.safetensors"),
    training: DictionaryFlags = _DICTIONARY,
    quiet: Annotated[bool, Parameter(negative="", help="Print no progress.")] = False,
) -> int:  # fmt: skip
    """Trains a dictionary on the vectors of one site of a model, or on vectors in a file.

    Half of the task is trained on; check judges on the other half. If it is interrupted, the same command resumes it.

    Try it:

      wheeltap dictionary train ioi --site blocks.1 -o d.safetensors
      wheeltap dictionary train smollm2 --site model.layers.12 --task attributes:ioi --features 2304 -o layer12
      wheeltap dictionary train --vectors vectors.npy --features 4096 --k 32
    """
    from wheeltap.cli.execution import load
    from wheeltap.cli.progress import spinner, step_progress
    from wheeltap.core.errors import UsageError
    from wheeltap.report.files import require_writable
    from wheeltap.suites.dictionaries import doors, files

    if (model is None) == (vectors is None):
        raise UsageError("A dictionary is trained on the vectors of a model, or on vectors in a file.",
                         where="wheeltap dictionary train", expected="a model and --site, or --vectors",
                         got="neither" if model is None else "both")  # fmt: skip
    files.require_place(file)
    if file.suffix:
        require_writable(file)
    subject, examples = None, vectors
    if model is not None:
        with spinner(f"loading {model}"):
            (subject,), examples = load((model,), task)
    assert examples is not None, "there is a model or a file"
    with step_progress("training", quiet=quiet) as watch:
        made = doors.train(subject, examples, watch=lambda done, total: watch("step", done, total), **training.given)
    files.write(made, file)
    how, joined = made.settings, doors.joined(subject, examples, training.site, training.positions)
    print(f"{file}: {how.features:,} features of vectors of width {how.width:,}{joined} ({how.architecture}).")
    if model is not None:
        # Nulls and reseeds are trained as the dictionary was: elsewhere the steps, or the positions, would differ.
        same = (("site", training.site, ""), ("task", task or "", ""), ("positions", training.positions, "last"),
                ("steps", str(training.steps), str(doors.STEPS)))  # fmt: skip
        asked = [word for name, value, default in same if value != default for word in (f"--{name}", value)]
        print(f"Judge it: wheeltap dictionary check {shlex.join([model, str(file), *asked])}")
    return 0


@dictionary.command
def check(
    model: Annotated[str, Parameter(help="The model that it is of.")],
    file: Annotated[Path, Parameter(help="File of dictionary train, or a folder of SAELens or "
                                    "dictionary-learning.")],
    *,
    task: Task = None,
    beside: NullFlags = _NULLS,
    execution: ExecutionFlags = _EXECUTION,
    output: Output = _OUTPUT,
) -> int:  # fmt: skip
    """Checks a dictionary: does it keep the task, can it be edited, do its features stand for something?

    All of it beside dictionaries that know nothing: with a frozen decoder, random directions, of an untrained net.
    These, the same training by other seeds, and supervised codes are made first, on half of the task; all are judged
    on the other half. If it is interrupted, the same command resumes it.

    Exit code 1 where it is no better than a null.

    Try it:

      wheeltap dictionary check ioi d.safetensors --site blocks.1
      wheeltap dictionary check smollm2 layer12 --site model.layers.12 --task attributes:ioi --seeds 3
    """
    from wheeltap.cli.execution import load, run_on
    from wheeltap.cli.progress import spinner, step_progress
    from wheeltap.suites.dictionaries import doors
    from wheeltap.suites.dictionaries.audits.common import no_better

    output.prepare()
    with spinner(f"loading {model}"):
        subjects, examples = load((model,), task)
    with step_progress("nulls", quiet=output.quiet) as watch:
        subject, judged, plan = doors.prepared(
            subjects[0], file, examples, watch=lambda done, total: watch("dictionary", done, total), **beside.given
        )
    del subjects  # the net itself: what is judged has a copy of it
    plan = msgspec.structs.replace(plan, sources=(model,), data=task)
    report = run_on(plan, [subject], judged, execution=execution, output=output)
    code = output.give(report)
    return 1 if code == 0 and output.fail_on != "never" and no_better(report.findings) else code
