"""Samples that lm-eval logged (``samples_TASK_TIME.jsonl``), in any of the shapes that its versions wrote.

A row is one document under one filter. Numbers may be texts (``["-12.5", "False"]``); answers may have a list around
them, or none (the flattened shape); arguments are the prompts, and are not needed. Several answers to one document are
in ``filtered_resps`` (``take_first_k``), or each in a row of its own with a number (``sample``, ``repeat`` or
``resp_id``).
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.core.plain import many
from wheeltap.suites.lens.recorded.base import AnswerFile
from wheeltap.suites.lens.recorded.gathered import WHOLE, AnswerRow, AnswerTable, group_in
from wheeltap.suites.lens.recorded.lines import decoded, misfit

SHAPE = "samples logged by lm-eval"

_TRIES: Final = re.compile(r"pass@(\d{1,9})")

METRICS: Final = ("acc", "exact_match", "pass@1", "mc1", "em", "acc_norm")
"""Metrics that say whether an answer is right, the first that is there is taken."""

_MAJORITY: Final = "maj"
"""How the names of filters begin that grade the answer that most of an item's answers give."""

_Grade = float | bool | str | None

_LONGEST_NAME: Final = 200
_GREEDY: Final = ("False", "True", False, True)


class _Line(msgspec.Struct, frozen=True):
    doc_id: int | str
    doc: Any = None
    filtered_resps: Any = None
    resps: Any = None
    filter: str = "none"
    doc_hash: str = ""
    prompt_hash: str = ""
    arguments: Any = None
    sample: int | None = None
    repeat: int | None = None
    resp_id: int | None = None
    metrics: list[str] | None = None


def read(path: Path) -> AnswerFile:
    """The samples of a file: those of the filter that comes first, which is said where there are several.

    Raises:
        FileFormatError: If a line has another shape than the first one, or no metric says what is right.
        DataError: If a document is there twice under one filter.
    """
    return _LogReader(path).recording()


class _LogReader:
    """One reading of a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._gathered = AnswerTable(SHAPE, str(path))
        self._name = path.stem
        self._filters: dict[str, int] = {}
        self._choices: int | None = None
        self._uneven = False
        self._unjudged = 0
        self.metric, self._also = _metric(path)
        found = _TRIES.fullmatch(self.metric)
        self._tries = int(found[1]) if found else 1
        # Only this metric is read of each line, under a name of its own.
        grade = ("grade", _Grade, msgspec.field(name=self.metric, default=None))
        made = msgspec.defstruct("Line", [grade], bases=(_Line,), kw_only=True, frozen=True)
        self._kind = cast("type[_Line]", made)

    def recording(self) -> AnswerFile:
        """All of it.

        Raises:
            DataError: If filters are of different documents: then a log holds several tasks.
        """
        chosen = ""
        for number, line in decoded(self._path, self._kind, shape=SHAPE):
            self._filters[line.filter] = self._filters.get(line.filter, 0) + 1
            grade = _grade(cast("Any", line).grade)
            if grade is None:
                raise misfit(
                    self._path, number, expected=f"a number for {self.metric}", got=str(cast("Any", line).grade)[:80]
                )
            chosen = chosen or line.filter
            if line.filter == chosen:
                self._take(number, line, grade)
        if len(set(self._filters.values())) > 1:
            raise DataError(
                "Filters of a log were applied to different numbers of answers.",
                where=str(self._path),
                expected="the same answers under each filter",
                got=", ".join(f"{count:,} under {name}" for name, count in self._filters.items()),
                do="Give the log of one task in a file.",
            )
        labels = () if self._choices is None or self._uneven else tuple(str(at) for at in range(self._choices))
        return replace(self._gathered.recording(labels=labels, notes=self._notes()), metric=self.metric)

    def _take(self, number: int, line: _Line, grade: float) -> None:
        item = f"{line.doc_id} {line.doc_hash[:16]}".rstrip()
        self._gathered.asked(item, line.doc)
        self._gathered.prompted(item, line.arguments or line.prompt_hash)
        self._gathered.item(item, group_in(line.doc))
        answers = _answers(line)
        sample = line.sample if line.sample is not None else line.repeat if line.repeat is not None else line.resp_id
        choices = _log_likelihoods(answers)
        if choices is not None:
            self._uneven |= self._choices not in (None, len(choices))
            self._choices = len(choices)
            p = _softmax(choices, f"{self._path}, line {number}")
            row = AnswerRow(item, number, grade, str(p.index(max(p))), sample, None if self._uneven else p)
            self._gathered.add(self._name, row)
            return
        given = [None if one is None else str(one) for one in answers] or [None]
        sampled = _sampled(line)
        if self._tries > 1:
            if max(sampled, len(given)) < self._tries:
                raise DataError(
                    f"{self.metric} is not defined for so few answers.",
                    where=f"{self._path}, line {number}",
                    expected=f"{self._tries:,} answers to the item, or more",
                    got=f"{max(sampled, len(given)):,}",
                    do="Log pass@1 as well, or sample as many answers.",
                )
            self._gathered.add(self._name, AnswerRow(item, number, grade, None, sample))
            return
        self._unjudged = max(self._unjudged, sampled - len(given))
        self._repeats(AnswerRow(item, number, grade, None, sample), given)

    def _repeats(self, row: AnswerRow, given: Sequence[str | None]) -> None:
        """Answers of one row that share a mean grade: as many of them count as right as it says."""
        count, score = len(given), row.score or 0.0
        if count == 1:
            self._gathered.add(self._name, AnswerRow(row.item, row.line, score, given[0], row.sample))
            return
        right = round(score * count)
        if abs(score * count - right) > WHOLE * count:
            raise misfit(
                self._path, row.line, expected=f"the mean of {count} answers, each right or wrong", got=f"{score:g}"
            )
        for at, answer in enumerate(given):
            self._gathered.add(self._name, AnswerRow(row.item, row.line, float(at < right), answer, at))

    def _notes(self) -> list[str]:
        chosen, *others = self._filters
        also = f"; also there: {', '.join(self._also)}" if self._also else ""
        notes = [f"Right is {self.metric}{also}."]
        if self._tries > 1:
            notes.append(f"The score is {self.metric} of each item's answers, not of single ones.")
        if others:
            notes.append(f"Answers are those of the filter {chosen}; also there: {', '.join(others)}.")
        if chosen.startswith(_MAJORITY):
            notes.append(
                f"The score is that of a majority over an item's answers, not of single ones (filter {chosen})."
            )
        elif self._unjudged:
            stated = (
                f"Up to {many(self._unjudged, 'more answer')} to an item {'was' if self._unjudged == 1 else 'were'}"
            )
            notes.append(f"{stated} sampled and not graded (filter {chosen}).")
        if self._uneven:
            notes.append("Items have different numbers of choices, so that there are no probabilities of labels.")
        return notes


def _metric(path: Path) -> tuple[str, list[str]]:
    """Which metric says what is right, and which others there are, by the first line."""
    _, first = next(iter(decoded(path, dict[str, Any], shape=SHAPE)))
    named = first.get("metrics")
    there = [str(name) for name in cast("list[Any]", named)] if isinstance(named, list) else []
    there = [name for name in there or METRICS if _grade(first.get(name)) is not None]
    best = next((name for name in METRICS if name in there), there[0] if there else "")
    if not best:
        raise FileFormatError(
            "A log says of no answer whether it is right.",
            where=f"{path}, line 1",
            expected=f"a number for one of {', '.join(METRICS)}",
            got=", ".join(sorted(first)),
            do="Log a task with such a metric, with --log_samples.",
        )
    odd = re.search(r'["\\\x00-\x1f]', best) or len(best) > _LONGEST_NAME or best in _Line.__struct_fields__
    if odd:
        raise FileFormatError("The name of a metric cannot be read.", where=f"{path}, line 1",
                              expected="a plain name that no other field has", got=repr(best)[:80],
                              do="Log the task again with a plain name.")  # fmt: skip
    return best, [name for name in there if name != best]


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except (ValueError, OverflowError):
        return None


def _grade(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and math.isfinite(number) else None


def _answers(line: _Line) -> list[Any]:
    """Answers that were graded, or choices; without the list around a single answer, where there is one."""
    held = line.resps if line.filtered_resps is None else line.filtered_resps
    if not isinstance(held, list):
        return [held]
    inner = cast("list[Any]", held)
    # Answers of one request: [[a, b]] is [a, b]. A pair of log-likelihood and flag is no list of answers.
    if len(inner) == 1 and isinstance(inner[0], list) and not _pair(cast("list[Any]", inner[0])):
        return cast("list[Any]", inner[0])
    return inner


def _sampled(line: _Line) -> int:
    """How many answers were sampled."""
    held = line.resps
    while isinstance(held, list) and len(cast("list[Any]", held)) == 1:
        held = cast("list[Any]", held)[0]
    return len(cast("list[Any]", held)) if isinstance(held, list) else 1


def _pair(value: Any) -> bool:
    """Whether this is a log-likelihood and whether it is the greedy one."""
    if not isinstance(value, list):
        return False
    held = cast("list[Any]", value)
    return len(held) == 2 and held[1] in _GREEDY and _number(held[0]) is not None


def _log_likelihoods(answers: Sequence[Any]) -> list[float] | None:
    """Of each choice; ``None`` where answers are texts."""
    if len(answers) < 2 or not isinstance(answers[0], list):
        return None
    try:
        values = [float(value) for value, greedy in answers if greedy in _GREEDY]
    except (TypeError, ValueError):
        return None
    return values if len(values) == len(answers) else None


def _softmax(values: Sequence[float], where: str) -> list[float]:
    """Probabilities of choices from their log-likelihoods."""
    top = max(values)
    if not all(map(math.isfinite, values)):
        raise DataError("A log-likelihood is not finite.", where=where, expected="finite numbers", got=str(values[:4]))
    p = [math.exp(value - top) for value in values]
    total = sum(p)
    return [one / total for one in p]
