"""Logs of one benchmark: that of a model, and those of the model as it is shipped.

    wheeltap compare answers:base.jsonl answers:quantized.jsonl

Logs of other items, prompts or settings are refused: their difference would not be what shipping costs.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NoReturn, final

import msgspec
import numpy as np

from wheeltap.core.bounded import decoded, document, opened
from wheeltap.core.errors import DataError, MissingFile, UsageError
from wheeltap.plans.plan import AuditSpec
from wheeltap.sources.base import LoadedModel, ModelSource
from wheeltap.suites.lens import recorded
from wheeltap.suites.lens.recorded.base import AnswerFile, Answers
from wheeltap.suites.lens.runs import RecordedRun, imported

_NAME: Final = re.compile(r"samples_(?P<task>.+?)(_(?P<when>\d{4}-\d\d-\d\dT[\d.:-]+))?\.jsonl")
"""Of a file of samples, as lm-eval names them; its results beside it have the same time."""

_NAMED: Final = 3
"""Items that an error names."""


@final
class AnswerLogs(ModelSource):
    """Recorded answers, which are no model, but are compared as models are."""

    form = "answers:FILE"
    title = "Recorded answers (samples of lm-eval or a folder of them, a log of inspect, rows): only for compare."
    place = "file"

    def load(self, rest: str, *, name: str) -> LoadedModel:
        """See ``ModelSource.load``: there is none."""
        raise UsageError(
            "Recorded answers are no model.", where=rest, expected="a model that can be run", got="a log",
            do="Compare two logs: wheeltap compare answers:A answers:B; or look at one: wheeltap lens FILE",
        )  # fmt: skip

    def put_logs(
        self, rests: Sequence[str], *, names: Sequence[str], store: Path, margin: float, alpha: float
    ) -> tuple[str, ...]:
        """See ``ModelSource.put_logs``."""
        run = of_logs([Path(rest).expanduser() for rest in rests], names=names)
        run = replace(run, plan=msgspec.structs.replace(run.plan, margin=margin, alpha=alpha))
        run.put(store)
        says = [f"{name}: {one}." for name, one in zip(names, run.says, strict=True)]
        return (*says, *dict.fromkeys(run.notes))


def of_logs(paths: Sequence[Path], *, names: Sequence[str]) -> RecordedRun:
    """Logs as one plan that says what each loses beside the first, task by task and over all of them.

    Each is a file of recorded answers, or a folder with samples of lm-eval.

    Raises:
        DataError: If they are not of the same items, prompts and settings, or one holds several systems.
        WheeltapError: If one cannot be read.
    """
    logs = [_tasks_of(path) for path in paths]
    first, *others = logs
    for name, other in zip(names[1:], others, strict=True):
        if first.keys() != other.keys():
            alone = [", ".join(sorted(a.keys() - b.keys())) or "none" for a, b in ((first, other), (other, first))]
            _refuse("tasks", where=name, expected=", ".join(first), got=f"only in {names[0]}: {alone[0]}; only in "
                    f"{name}: {alone[1]}")  # fmt: skip
        for task, one in first.items():
            _require_alike(one, other[task], where=f"{names[0]}, {name}{f', task {task}' if task else ''}")
    run = of_answers(logs, names)
    digests = list[list[str]]()
    for path in paths:
        digests.append([])
        for one in _samples(path):
            with opened(one, "file of answers") as file:
                digests[-1].append(hashlib.file_digest(file, "sha256").hexdigest())
    same = [name for name, digest in zip(names[1:], digests[1:], strict=True) if digest == digests[0]]
    copies = [f"{name} has the same bytes as {names[0]}: was one log given twice?" for name in same]
    return replace(run, notes=(*run.notes, *copies))


def of_answers(logs: Sequence[Mapping[str, AnswerFile]], names: Sequence[str]) -> RecordedRun:
    """Answers by their tasks, of the same items, as a plan and outcomes."""
    first = logs[0]
    merged = [_merged(log, name) for log, name in zip(logs, names, strict=True)]
    made = imported(merged, audits=[AuditSpec(name="recorded-score", settings={"shipped": True})])
    plan = msgspec.structs.replace(made.plan, command="compare")
    # Score of a guess among the options; 0 where it is not known how many there are.
    known = [(len(one.items), one.systems[0].probability) for one in first.values()]
    guess = np.concatenate([np.full(size, 0.0 if p is None else 1.0 / p.shape[1]) for size, p in known])
    part = np.concatenate([np.full(len(one.items), sorted(first).index(task)) for task, one in first.items()])
    key = plan.clean(plan.reference).key
    more = {"guess": guess.astype(np.float32), "part": part.astype(np.int32)}
    outcomes = (replace(one, values={**one.values, **more}) if one.key == key else one for one in made.outcomes)
    unknown = [name for name, one in zip(names, merged, strict=True) if not any(one.prompts)]
    blind = [f"{', '.join(unknown)}: no prompts are logged: that they are the same is not checked."] if unknown else []
    return replace(made, plan=plan, outcomes=tuple(outcomes), notes=(*made.notes, *blind))


def _samples(path: Path) -> list[Path]:
    return sorted([*path.glob("samples_*.jsonl"), *path.glob("*/samples_*.jsonl")]) if path.is_dir() else [path]


def _tasks_of(path: Path) -> dict[str, AnswerFile]:
    """What a file holds, or a folder's samples by their task; a single task has no name."""
    files = _samples(path)
    if not files:
        raise MissingFile(
            "The folder holds no samples.", where=str(path), expected="samples_*.jsonl of lm-eval", got="none",
            do="Run lm_eval with --log_samples --output_path FOLDER: results alone do not say which items were right.",
        )  # fmt: skip
    found, held = dict[str, AnswerFile](), dict[str, Path]()
    for file in files:
        name = _NAME.fullmatch(file.name)
        task = name["task"] if name else file.stem
        if task in held:
            raise DataError(
                "A folder holds two logs of one task.", where=str(path), expected="the samples of one run",
                got=f"{held[task].name}, {file.name}", do="Give the folder of one model and run, or the files.",
            )  # fmt: skip
        one = recorded.read(file)
        if len(one.systems) != 1 or one.systems[0].mean is None:
            several = ", ".join(system.name for system in one.systems[:_NAMED])
            raise DataError(
                "The log is not that of one system.", where=str(file), expected="graded answers of one system",
                got=f"{len(one.systems)} systems: {several}" if several else one.says, do=f"See: wheeltap lens {file}",
            )  # fmt: skip
        results = file.with_name(f"results_{name['when']}.json") if name else file
        beside = _settings(results, task) if name and name["when"] and results.is_file() else {}
        held[task], found[task] = file, replace(one, settings={**one.settings, **beside})
    return found if len(found) > 1 else {"": found.popitem()[1]}


class _Results(msgspec.Struct, frozen=True):
    versions: dict[str, Any] = {}
    shots: dict[str, Any] = msgspec.field(name="n-shot", default_factory=dict[str, Any])
    fewshot_as_multiturn: Any = None
    system_instruction_sha: Any = None


def _settings(path: Path, task: str) -> dict[str, str]:
    """How lm-eval ran a task, by the results that it wrote beside the samples."""
    what, data = "Results of lm-eval cannot be read.", document(path, "file of results")
    held = decoded(data, _Results, path, what, expected="JSON as lm-eval writes it")
    stated = {
        "few-shot examples": held.shots.get(task), "version of the task": held.versions.get(task),
        "few-shot examples as turns": held.fewshot_as_multiturn, "system prompt": held.system_instruction_sha,
    }  # fmt: skip
    return {name: str(one) for name, one in stated.items() if one is not None}


def _require_alike(one: AnswerFile, two: AnswerFile, *, where: str) -> None:
    """Raises ``DataError`` if two logs are not of the same items, metric, settings and prompts."""
    alone = [sorted(set(a) - set(b)) for a, b in ((one.items, two.items), (two.items, one.items))]
    if any(alone):
        got = [f"{len(some):,} {who} ({', '.join(some[:_NAMED])})" for some, who in zip(
            alone, ("in the first alone", "in the second alone"), strict=True) if some]  # fmt: skip
        _refuse("items", where=where, expected=f"the same {len(one.items):,} items", got="; ".join(got))
    for name, (a, b) in {
        "metric": (one.metric, two.metric),
        **{name: (one.settings[name], two.settings[name]) for name in one.settings.keys() & two.settings.keys()},
    }.items():
        if a != b:
            _refuse("settings", where=where, expected=f"{name} {a}"[:200], got=f"{name} {b}"[:200])
    second = dict(zip(two.items, two.prompts, strict=True)) if two.prompts else {}
    known = zip(one.items, one.prompts, strict=True) if one.prompts else ()
    others = [item for item, prompt in known if prompt and second.get(item, 0) not in (0, prompt)]
    if others:
        got = f"other ones for {len(others):,} of {len(one.items):,} items: {', '.join(others[:_NAMED])}"
        expected = "the same prompts: few-shot examples, chat template, settings of generation"
        _refuse("prompts", where=where, expected=expected, got=got)


def _refuse(what: str, *, where: str, expected: str, got: str) -> NoReturn:
    raise DataError(
        f"The logs are of different {what}, so that their scores differ for that alone.", where=where,
        expected=expected, got=got, do="Run the same benchmark with the same settings on both models.",
    )  # fmt: skip


def _merged(log: Mapping[str, AnswerFile], name: str) -> AnswerFile:
    """All tasks of a log as the parts of one benchmark."""
    files, several = list(log.values()), len(log) > 1
    systems = [one.systems[0] for one in files]
    right = [one.right for one in systems if one.right is not None]
    samples = [one.samples for one in systems if one.samples is not None]
    means = [one.mean for one in systems if one.mean is not None]
    whole = len(right) == len(samples) == len(files)
    answers = Answers(
        name=name, right=np.concatenate(right) if whole else None, samples=np.concatenate(samples) if whole else None,
        score=None if whole else np.concatenate(means),
    )  # fmt: skip
    shared = [one.found or one.groups for one in files]
    alike = [f"{at} {own}" for at, one in enumerate(files) for own in shared[at] or range(len(one.items))]
    alike = alike if any(shared) else []
    return AnswerFile(
        shape=files[0].shape, systems=(answers,),
        notes=tuple(dict.fromkeys(note for one in files for note in one.notes)),
        items=tuple(f"{task} {item}".lstrip() for task, one in log.items() for item in one.items),
        groups=tuple(task for task, one in log.items() for _ in one.items) if several else files[0].groups,
        found=tuple(map(int, np.unique(alike, return_inverse=True)[1])) if alike else (), parts=several,
        prompts=tuple(prompt for one in files for prompt in one.prompts or [0] * len(one.items)),
    )  # fmt: skip
