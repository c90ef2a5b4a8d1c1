"""AmbiEnt's results: answers to statements, divergences of continuations, and what people say of gold rewrites."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.core.plain import many
from wheeltap.suites.lens.recorded.base import AnswerFile, Answers, ReadingArrays
from wheeltap.suites.lens.recorded.lines import decoded, misfit
from wheeltap.suites.lens.specs import (
    CONTINUATIONS,
    DISTRACTOR,
    FALSE,
    NO_ANSWER,
    NOT_ASKED,
    READING,
    REWRITES,
    STATEMENTS,
    TEMPLATES,
    TRUE,
)

AUDIT: Final = "ambiguity"

STATED: Final = "statements about readings, true or false"
CONTINUED: Final = "divergences of readings and a distractor"

_DISTRACTOR: Final = "d"
_SIDES: Final = 2
MAJORITY: Final = 0.5


class _Statement(msgspec.Struct, frozen=True):
    example_id: str | int
    ambiguous_sentence_key: str
    disambiguation: str
    template_id: int
    answer: bool
    prediction: bool | float | None = None
    TF_prob_mass: float | None = None


def statements(path: Path) -> AnswerFile:
    """The answers in a file; one that was not given is kept as such.

    Raises:
        FileFormatError: If a line has another shape.
        DataError: If a template is not known, its right answer is another one, or a statement is there twice.
    """
    places: dict[str, dict[tuple[str, str], int]] = {}
    given: dict[tuple[str, int, int], tuple[int, float | None]] = {}
    for number, row in decoded(path, _Statement, shape=STATED):
        where = f"{path}, line {number}"
        readings = places.setdefault(str(row.example_id), {})
        reading = readings.setdefault((row.ambiguous_sentence_key, row.disambiguation), len(readings))
        if not 0 <= row.template_id < len(TEMPLATES) or TEMPLATES[row.template_id][1] != row.answer:
            raise DataError(
                "A statement is none of the four templates.",
                where=where,
                expected=", ".join(f"{at} ({str(true).lower()})" for at, (_, true) in enumerate(TEMPLATES)),
                got=f"template_id {row.template_id}, answer {str(row.answer).lower()}",
            )
        place = (str(row.example_id), reading, row.template_id)
        if place in given:
            again = f"{row.example_id}, template {row.template_id} again"
            raise DataError("A statement is there twice.", where=where, expected="each template and reading once",
                            got=again)  # fmt: skip
        if row.prediction not in (None, 0, 1):
            raise DataError("A prediction is neither true nor false.", where=where, expected="true, false or null",
                            got=str(row.prediction))  # fmt: skip
        said = NO_ANSWER if row.prediction is None else TRUE if row.prediction else FALSE
        given[place] = (said, row.TF_prob_mass)
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
    return AnswerFile(
        shape=STATED, items=items, notes=(f"{many(len(given), 'answer')} to statements.{none}",),
        systems=(Answers(name=path.stem, more=(ReadingArrays(spec=STATEMENTS, values=values, audit=AUDIT),)),),
    )  # fmt: skip


class _Option(msgspec.Struct, frozen=True):
    KL_div: float


class _Sentence(msgspec.Struct, frozen=True):
    id: str | int
    options: dict[str, _Option]
    num_conts: int


def continuations(path: Path) -> AnswerFile:
    """The divergences in a file; an item has one row, or two where premise and hypothesis are ambiguous.

    Raises:
        FileFormatError: If a line has another shape, or no distractor or reading.
        DataError: If an item has more than two rows.
    """
    several: dict[str, list[_Sentence]] = {}
    for number, row in decoded(path, _Sentence, shape=CONTINUED):
        if _DISTRACTOR not in row.options or len(row.options) < _SIDES:
            raise misfit(path, number, expected="a distractor d and a reading", got=", ".join(row.options) or "none")
        held = several.setdefault(str(row.id), [])
        held.append(row)
        if len(held) > _SIDES:
            raise DataError("An item is there more than twice.", where=f"{path}, line {number}",
                            expected="one row, or one for premise and hypothesis each", got=str(row.id))  # fmt: skip
    most = max((len(row.options) for rows in several.values() for row in rows), default=_SIDES)
    shape = (len(several), _SIDES, most)
    divergence, kind = np.zeros(shape), np.zeros(shape, dtype=np.int64)
    counts = np.zeros(shape[:2], dtype=np.int64)
    for at, rows in enumerate(several.values()):
        for side, row in enumerate(rows):
            counts[at, side] = row.num_conts
            for place, (name, option) in enumerate(row.options.items()):
                divergence[at, side, place] = option.KL_div
                kind[at, side, place] = DISTRACTOR if name == _DISTRACTOR else READING
    values: dict[str, Any] = {"divergence": divergence, "kind": kind, "continuations": counts}
    sentences = sum(map(len, several.values()))
    return AnswerFile(
        shape=CONTINUED, items=tuple(several), notes=(f"{many(sentences, 'ambiguous sentence')}.",),
        systems=(Answers(name=path.stem, more=(ReadingArrays(spec=CONTINUATIONS, values=values, audit=AUDIT),)),),
    )  # fmt: skip


class RewriteVotes(msgspec.Struct, frozen=True):
    """The votes on the rewrites of one item; its distractor has no label.

    Attributes:
        labels: Gold label of each rewrite; ``None`` of the distractor.
        q1_gold: Labels that people gave the first rewrite; those of the others alike.
        d1_gold: Whether people found it plausible; those of the others alike.
    """

    labels: list[str | None]
    q1_gold: list[str]
    d1_gold: list[bool]
    q2_gold: list[str] = []
    d2_gold: list[bool] = []
    q3_gold: list[str] = []
    d3_gold: list[bool] = []

    @property
    def confirmed(self) -> bool:
        """Whether most people found every rewrite plausible, and gave it its gold label more often than any other."""
        votes = (self.q1_gold, self.q2_gold, self.q3_gold)
        plausible = (self.d1_gold, self.d2_gold, self.d3_gold)
        asked = zip(self.labels, votes, plausible, strict=False)
        return all(
            [first for first, _ in Counter(labels).most_common(1)] == [label] and sum(likely) > MAJORITY * len(likely)
            for label, labels, likely in asked
            if label is not None
        )


def confirmed(lines: Sequence[bytes], *, where: str) -> ReadingArrays:
    """Whether people confirm every gold rewrite of each item, by the line of each in the file.

    Raises:
        FileFormatError: If a line has no votes on rewrites.
    """
    right: list[bool] = []
    for number, line in enumerate(lines, start=1):
        try:
            right.append(msgspec.json.decode(line, type=RewriteVotes).confirmed)
        except msgspec.ValidationError as error:
            raise FileFormatError(
                "A row has no votes on its rewrites.",
                where=f"{where}, row {number}",
                expected="labels, q1_gold, d1_gold and those of further rewrites, as in the first row",
                got=str(error),
            ) from error
    return ReadingArrays(spec=REWRITES, values={"right": np.array(right, dtype=bool)}, audit=AUDIT)
