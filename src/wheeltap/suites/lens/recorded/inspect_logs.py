"""Logs of inspect: ``.eval`` archives and JSON documents. Epochs are repeats of an item."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import msgspec

from wheeltap.core.bounded import PARTS, SETTINGS, Archive, decoded, few_parts
from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.core.plain import many
from wheeltap.suites.lens.recorded.base import AnswerFile
from wheeltap.suites.lens.recorded.gathered import AnswerRow, AnswerTable, group_in, texts_in
from wheeltap.suites.lens.recorded.lines import whole

SHAPE = "a log of inspect"

VALUES: Final = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""What grades are worth, as inspect counts them: correct, incorrect, partly correct, no answer."""

_WORDS: Final = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}

T = TypeVar("T")


class _Score(msgspec.Struct, frozen=True):
    value: Any = None
    answer: Any = None


class _Sample(msgspec.Struct, frozen=True):
    id: int | str
    epoch: int = 1
    scores: dict[str, _Score] | None = None
    input: Any = None
    metadata: Any = None


class _Eval(msgspec.Struct, frozen=True):
    model: str = ""
    task: str = ""
    task_version: Any = None
    task_args: Any = None


class _Log(msgspec.Struct, frozen=True):
    eval: _Eval
    status: str = ""
    plan: Any = None
    samples: list[_Sample] | None = None


def read(path: Path) -> AnswerFile:
    """The log in a JSON document.

    Raises:
        FileFormatError: If it is damaged, or holds no samples.
        DataError: If no sample is scored, or scores have no number.
    """
    log = _decoded(whole(path), _Log, where=str(path))
    return _recording(path, log, map(_needed, log.samples or ()))


def read_archive(path: Path) -> AnswerFile:
    """The log in an archive; nothing is unpacked to a file.

    Raises:
        FileFormatError: If it is damaged, unsafe, no such log, or holds no samples.
        DataError: If no sample is scored, or scores have no number.
    """
    do = "Get the file again: a log that was cut short has no list of contents at its end."
    with Archive(path, "log", do=do) as archive:
        archive.require_documents()
        heads = [name for name in ("header.json", "_journal/start.json") if name in archive.members]
        if not heads:
            raise FileFormatError(
                "The archive is no log of inspect.",
                where=str(path),
                expected="header.json and samples/*.json",
                got=", ".join(list(archive.members)[:5]) or "nothing",
                do="Give answers, votes or a log; arrays of examples are for wheeltap audit --data.",
            )
        head = _decoded(archive.member(heads[0]), _Log, where=f"{path}: {heads[0]}")
        if heads[0] != "header.json":
            head = msgspec.structs.replace(head, status="not finished")
        samples = (
            _needed(_decoded(archive.member(name), _Sample, where=f"{path}: {name}", parts=SETTINGS))
            for name in archive.members
            if name.startswith("samples/") and name.endswith(".json")
        )
        return _recording(path, head, samples)


def _needed(sample: _Sample) -> _Sample:
    """Texts and grades of a sample alone: a log may hold gigabytes beside them."""
    scores = dict[str, _Score]()
    for name, one in (sample.scores or {}).items():
        scores[name] = _Score(graded_as(one.value), None if one.answer is None else str(one.answer))
    text, group = " ".join(texts_in(sample.input)), group_in(sample.metadata)
    return msgspec.structs.replace(sample, input=text, metadata=group, scores=scores)


def _decoded(data: bytes, kind: type[T], *, where: str, parts: int = PARTS) -> T:
    what, do = "A log of inspect cannot be read.", "Get the file again, or let inspect write it again."
    data = few_parts(data, where=where, most=parts)
    return decoded(data, kind, where, what, expected="JSON as inspect writes it", do=do)


def _recording(path: Path, log: _Log, samples: Iterable[_Sample]) -> AnswerFile:
    about, status = log.eval, log.status
    held = sorted(samples, key=lambda one: (isinstance(one.id, str), one.id, one.epoch))
    if not held:
        raise FileFormatError(
            "The log holds no samples.",
            where=str(path),
            expected="a record for each sample",
            got="a header alone",
            do="Log with log_samples, and give the whole log and not its header.",
        )
    names = list(dict.fromkeys(name for one in held for name in one.scores or ()))
    if not names:
        raise DataError(
            "No sample of the log is scored.",
            where=str(path),
            expected="scores for each sample",
            got=f"{many(len(held), 'sample')} without scores",
            do="Score the log first: inspect score.",
        )
    gathered, unscored = AnswerTable(SHAPE, str(path)), 0
    system = about.model or path.stem
    for at, one in enumerate(held, start=1):
        score = (one.scores or {}).get(names[0])
        if score is None:
            unscored += 1
            continue
        value = number_of(score.value, where=f"{path}: sample {one.id}, epoch {one.epoch}")
        gathered.asked(str(one.id), one.input)
        gathered.prompted(str(one.id), one.input)
        gathered.add(system, AnswerRow(str(one.id), at, value, score.answer, one.epoch), one.metadata)
    notes = [f"Task {about.task}; right is what the scorer {names[0]} says"
             + (f"; also there: {', '.join(names[1:])}." if len(names) > 1 else ".")]  # fmt: skip
    if status not in ("success", ""):
        notes.append(f"The run did not come to its end (status: {status}): samples that it had are judged.")
    if unscored:
        notes.append(f"{many(unscored, 'sample')} without a score {'is' if unscored == 1 else 'are'} left out.")
    plan = cast("dict[str, Any]", log.plan) if isinstance(log.plan, dict) else {}  # pyright: ignore[reportUnknownMemberType]
    given: dict[str, Any] = {"version": about.task_version, "arguments": about.task_args}
    stated: dict[str, Any] = {"task": about.task, **given, "solvers": plan.get("steps")}
    settings = {name: str(one) for name, one in stated.items() if one}
    return replace(gathered.recording(notes=notes), metric=f"the scorer {names[0]}", settings=settings)


def graded_as(value: Any) -> str:
    """A grade, or the only one of a dictionary."""
    single = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    return str(next(iter(single.values())) if len(single) == 1 else cast("object", value))


def number_of(graded: str, *, where: str) -> float:
    """A grade as a number.

    Raises:
        DataError: If it is neither a number nor one of inspect's letters.
    """
    try:
        number = VALUES[graded] if graded in VALUES else float(_WORDS.get(graded.lower(), graded))
    except ValueError:
        number = float("nan")
    if not abs(number) < float("inf"):
        raise DataError(
            "A score is no number.",
            where=where,
            expected=f"a number, or one of {', '.join(VALUES)}",
            got=graded[:80],
            do="Choose a scorer that grades each sample with one number.",
        )
    return number
