"""Answers true or false to statements about readings, as AmbiEnt's evaluation wrote them: one a row."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from wheeltap.core.errors import DataError
from wheeltap.core.plain import many
from wheeltap.suites.lens.recorded.base import Answers, RecordedReading, Recording
from wheeltap.suites.lens.recorded.lines import decoded
from wheeltap.suites.lens.specs import FALSE, NO_ANSWER, NOT_ASKED, STATEMENTS, TEMPLATES, TRUE

SHAPE = "statements about readings, true or false"

AUDIT = "ambiguity"


class _Row(msgspec.Struct, frozen=True):
    example_id: str | int
    ambiguous_sentence_key: str
    disambiguation: str
    template_id: int
    answer: bool
    prediction: bool | float | None = None
    TF_prob_mass: float | None = None


def fits(first: Any) -> bool:
    """Whether a file whose first row is this has this shape."""
    return isinstance(first, dict) and {"example_id", "template_id", "disambiguation", "answer"} <= first.keys()


def read(path: Path) -> Recording:
    """The answers in a file; one that was not given is kept as such.

    Raises:
        FileFormatError: If a line has another shape.
        DataError: If a template is not known, its right answer is another one, or a statement is there twice.
    """
    places: dict[str, dict[tuple[str, str], int]] = {}
    given: dict[tuple[str, int, int], tuple[int, float | None]] = {}
    for number, row in decoded(path, _Row, shape=SHAPE):
        where = f"{path}, line {number}"
        readings = places.setdefault(str(row.example_id), {})
        reading = readings.setdefault((row.ambiguous_sentence_key, row.disambiguation), len(readings))
        place = (str(row.example_id), reading, _template(row, where))
        if place in given:
            again = f"{row.example_id}, template {row.template_id} again"
            raise DataError("A statement is there twice.", where=where, expected="each template and reading once",
                            got=again)  # fmt: skip
        given[place] = (_answer(row, where), row.TF_prob_mass)
    items = tuple(places)
    rows = {item: at for at, item in enumerate(items)}
    most = max(map(len, places.values()), default=1)
    answer = np.full((len(items), most, len(TEMPLATES)), NOT_ASKED)
    mass = np.zeros(answer.shape)
    for (item, reading, template), (said, probability) in given.items():
        answer[rows[item], reading, template] = said
        mass[rows[item], reading, template] = probability or 0.0
    values: dict[str, Any] = {"answer": answer}
    if all(probability is not None for _, probability in given.values()):
        values["mass"] = mass
    missing = sum(said == NO_ANSWER for said, _ in given.values())
    none = f" {many(missing, 'statement')} without an answer: counted as wrong, and left out, both." if missing else ""
    return Recording(
        shape=SHAPE, items=items, notes=(f"{many(len(given), 'answer')} to statements.{none}",),
        systems=(Answers(name=path.stem, more=(RecordedReading(spec=STATEMENTS, values=values, audit=AUDIT),)),),
    )  # fmt: skip


def _template(row: _Row, where: str) -> int:
    if not 0 <= row.template_id < len(TEMPLATES) or TEMPLATES[row.template_id][1] != row.answer:
        raise DataError(
            "A statement is none of the four templates.",
            where=where,
            expected=", ".join(f"{at} ({str(true).lower()})" for at, (_, true) in enumerate(TEMPLATES)),
            got=f"template_id {row.template_id}, answer {str(row.answer).lower()}",
        )
    return row.template_id


def _answer(row: _Row, where: str) -> int:
    if row.prediction is None:
        return NO_ANSWER
    if row.prediction not in (0, 1):
        raise DataError("A prediction is neither true nor false.", where=where, expected="true, false or null",
                        got=str(row.prediction))  # fmt: skip
    return TRUE if row.prediction else FALSE
