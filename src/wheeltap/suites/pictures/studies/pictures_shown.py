"""What is shown of a picture study: pictures, maps of hidden units, strips of single weights, nets to explore."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Arrays, Case
from wheeltap.audits.claims import Unanswered
from wheeltap.core.records import SubjectRecord
from wheeltap.core.study import DrawnNet, Member, MetricRow, Strip
from wheeltap.report import png
from wheeltap.studies.base import Shown, members_of
from wheeltap.studies.table import Table
from wheeltap.suites.pictures.specs import BLOCKS, STEPS, as_text
from wheeltap.suites.pictures.studies.pictures_metrics import ERROR
from wheeltap.suites.pictures.studies.pictures_said import Words, decibels

if TYPE_CHECKING:
    from wheeltap.suites.pictures.studies.pictures import Pictures

Picture = NDArray[Any]

_STOPS: Final = np.array(
    [[0.65, 0.06, 0.12], [0.92, 0.52, 0.40], [1.0, 1.0, 1.0], [0.42, 0.60, 0.85], [0.11, 0.22, 0.55]]
)
"""Red, white, blue, as the paper has them: the ends are as dark as each other, and tell apart where red and green do
not."""


@final
@dataclass(frozen=True, eq=False)
class Showing:
    """One study's pictures.

    Attributes:
        study: Whose readings they are.
        case: Plan and outcomes.
        table: The numbers.
    """

    study: "Pictures"
    case: Case
    table: Table

    def shown(self) -> Shown:
        """All of them."""
        inside = {subject.name: self._inside(subject) for subject in self.case.whole.subjects}
        explored = {name: read for name, read in inside.items() if "kernels" in read}
        names = self._factors()
        own = self.study.own
        return Shown(
            members=tuple(self._member(member, inside) for member in members_of(self.table)),
            rows=tuple(self._row(row) for row in self.table.rows()),
            strips=tuple(
                strip
                for name, read in explored.items()
                for strip in strips(name, read, names if name == own else {})
            ),
            drawn=tuple(drawn(name, read, names if name == own else {}) for name, read in explored.items()),
        )  # fmt: skip

    def _inside(self, subject: SubjectRecord) -> Arrays:
        try:
            for trial in self.study.inside(self.case, subject):
                return self.case.reading(trial)
        except Unanswered:
            pass
        return {}

    def _factors(self) -> dict[tuple[int, ...], str]:
        """Names of weights by their published ids and places."""
        try:
            read = self.case.reading(self.study.graph(self.case))
        except Unanswered:
            return {}
        if "factor" not in read:
            return {}
        names = as_text([int(code) for code in read["factors"]]).split("\n")
        return {tuple(place): name for place, name in zip(read["factor"].tolist(), names, strict=True)}

    def _member(self, member: Member, inside: dict[str, Arrays]) -> Member:
        subject = next(one for one in self.case.whole.subjects if one.name == member.name)
        try:
            picture = png.encode(self.study.drawn(self.case, subject).astype(np.float32))
        except Unanswered:
            return member
        error = self.table.numbers[member.name][ERROR].value if member.name in self.table.numbers else 0.0
        maps = inside[member.name].get("maps")
        return msgspec.structs.replace(
            member, picture=picture, maps=b"" if maps is None else maps_of(maps),
            note=f"{decibels(error):.1f} dB" if error > 0.0 else "",
        )  # fmt: skip

    def _row(self, row: MetricRow) -> MetricRow:
        words = Words(self.table, (), self.study.own)
        cohorts = tuple(msgspec.structs.replace(one, beside=words.beside(row, one)) for one in row.cohorts)
        return msgspec.structs.replace(row, cohorts=cohorts)


def diverging(values: NDArray[np.floating[Any]]) -> Picture:
    """Colors ``[..., 3]`` of values from -1 (red) over 0 (white) to 1 (blue); what lies beyond is clipped."""
    place = (np.clip(values, -1.0, 1.0) + 1.0) / 2.0 * (len(_STOPS) - 1)
    below = np.minimum(place.astype(np.int64), len(_STOPS) - 2)
    share = (place - below)[..., None]
    return (_STOPS[below] * (1.0 - share) + _STOPS[below + 1] * share).astype(np.float32)


def maps_of(values: NDArray[np.floating[Any]]) -> bytes:
    """Maps ``[layer, unit, row, column]`` as a PNG file: a row for each layer from the inputs on."""
    rows = [_joined([diverging(cell) for cell in row.astype(np.float32)], axis=1) for row in values]
    return png.encode(_joined(rows, axis=0))


def _joined(pictures: Sequence[Picture], *, axis: int, gap: int = 1) -> Picture:
    """Pictures side by side (or one below the other), with white between them."""
    shape = list(pictures[0].shape)
    shape[axis] = gap
    between = np.ones(shape, dtype=np.float32)
    parts = [part for one, _ in pairwise([*pictures, pictures[-1]]) for part in (one, between)]
    return np.concatenate(parts[:-1], axis)


def strips(net: str, read: Arrays, names: Mapping[tuple[int, ...], str]) -> list[Strip]:
    """Pictures of a net as single weights move."""
    found: list[Strip] = []
    for at, place in enumerate(read["place"].tolist()):
        label, name = "weight {} ({}: {} to {})".format(*place), names.get(tuple(place), "")
        drawn = [picture / 255.0 for picture in read["strip"][at]]
        found.append(
            Strip(
                net=net, weight=f"{name}, {label}" if name else label,
                steps=tuple(float(share * read["delta"][at]) for share in STEPS),
                strip=png.encode(_joined(drawn, axis=1, gap=3)), effect=float(read["effect"][at]),
                symmetry=float(read["symmetry"][at]) if "symmetry" in read else None,
            )
        )  # fmt: skip
    return found


def drawn(name: str, read: Arrays, names: Mapping[tuple[int, ...], str]) -> DrawnNet:
    """A net for the explorer."""
    blocks = [f"{block}:{count}" for block, count in zip(BLOCKS, read["units"].tolist(), strict=True) if count]
    return DrawnNet(
        name=name, arch=f"{len(read['maps'])};{','.join(blocks)}", weights=read["kernels"].astype("<f4").tobytes(),
        labels={",".join(map(str, place[1:])): label for place, label in names.items()},
        links=tuple((int(layer), int(source), int(target)) for layer, source, target in read["link"]),
        fold="abs-x" if bool(read["folded"]) else "",
    )  # fmt: skip
