"""What people say of gold rewrites of ambiguous sentences: rows of AmbiEnt's crowd, with votes on each rewrite."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np

from wheeltap.core.errors import FileFormatError
from wheeltap.suites.lens.recorded.ambient_statements import AUDIT
from wheeltap.suites.lens.recorded.base import RecordedReading
from wheeltap.suites.lens.specs import REWRITES

MAJORITY: Final = 0.5


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
        return all(_confirmed(label, labels, likely) for label, labels, likely in asked if label is not None)


def _confirmed(label: str, labels: list[str], likely: list[bool]) -> bool:
    counts = Counter(labels)
    first = counts.most_common(1)
    return bool(first) and first[0][0] == label and sum(likely) > MAJORITY * len(likely)


def has_rewrites(first: Any) -> bool:
    """Whether a row has votes on rewrites beside those on the ambiguous pair."""
    return isinstance(first, dict) and {"labels", "q1_gold", "d1_gold"} <= first.keys()


def confirmed(lines: Sequence[bytes], *, where: str) -> RecordedReading:
    """Whether people confirm every gold rewrite of each item.

    Args:
        lines: One for each item, in their order.
        where: The file.

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
    return RecordedReading(spec=REWRITES, values={"right": np.array(right, dtype=bool)}, audit=AUDIT)
