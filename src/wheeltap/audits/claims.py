"""What audits say: claims with their tests, before one correction over all of them settles each status."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.power import Graded
from wheeltap.core.circuit_view import CircuitView
from wheeltap.core.lens import LensRecord
from wheeltap.core.literals import require_fields
from wheeltap.core.records import BlockMap, Control, Curve, Estimate, Finding, FindingStatus, Trial
from wheeltap.core.study import Direction, StudyRecord
from wheeltap.stats.effect import mean_effect
from wheeltap.stats.members.base import MemberTest
from wheeltap.stats.rare import rare_effect


@dataclass(frozen=True)
class Words:
    """The three sides of a verdict in the words of its question, and the two ways of being undecided.

    Attributes:
        found: The effect exceeds the margin.
        excluded: It does not.
        leaning: Undecided, but there is an effect.
        undecided: Nothing was shown.
    """

    found: str
    excluded: str
    leaning: str
    undecided: str = "cannot tell"

    def of(self, finding: Finding) -> str:
        """The verdict of a finding; of one without a verdict, its status."""
        if finding.status == "inconclusive":
            return self.leaning if finding.leaning else self.undecided
        if finding.status == "found":
            return self.found
        return self.excluded if finding.status == "excluded" else finding.status.replace("_", " ")


LOSS = Words("costs", "safe", "may cost")
PAIR = Words("differ", "equivalent", "may differ")
CLAIM = Words("found", "excluded", "maybe")


@dataclass(frozen=True, eq=False)
class Edge:
    """The smallest effect of interest, in the unit of the effect.

    Where it is a share of what was measured on the same examples, it has noise of its own. So each example's effect is
    held against its own part of the margin: the mean of ``against`` is compared with ``value``, which is to compare the
    mean of the effect less that part with 0.

    Attributes:
        value: The margin.
        each: ``[example]``, whose mean is the margin; ``None`` where it is a number that was given.
        share: Of the undisturbed error, where it is a share of that; else 0.
        because: How it came about, as a sentence; empty where it is what was asked for.
    """

    value: float
    each: NDArray[np.floating[Any]] | None = None
    share: float = 0.0
    because: str = ""

    def against(self, values: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """Effects ``[draw, example]`` whose mean, compared with ``value``, is compared with the margin exactly."""
        return values if self.each is None else values - (self.each - self.each.mean())


@dataclass(frozen=True, eq=False)
class Cells:
    """The numbers that a tested mean is the mean of.

    Attributes:
        values: ``[draw, example]``, in the unit of the effect.
        bounded: Whether each is a difference of two scores in [0, 1].
        ends: The least and the most of a draw's mean, where few draws hit hard; ``None`` where draws are alike.
        edge: The margin, where it varies with the examples.
    """

    values: NDArray[np.floating[Any]]
    bounded: bool
    ends: tuple[float | None, float | None] | None = None
    edge: Edge | None = None

    def tested(self, margin: float, *, level: float = 0.95, name: str, unit: str) -> Estimate:
        """The mean effect with its interval, and the p-value of "it is no larger than the margin", either way."""

        def effect(cells: Cells, margin: float) -> Estimate:
            if cells.ends is not None:
                return rare_effect(cells.values, cells.ends, margin=margin, bounded=self.bounded, name=name, unit=unit)
            return mean_effect(cells.values, level=level, margin=margin, bounded=self.bounded, name=name, unit=unit)

        plain = effect(self, margin)
        if self.edge is None or self.edge.each is None:
            return plain
        # The p-value is of the side on which the effect is.
        side = self.facing(1.0 if float(self.values.mean()) >= 0.0 else -1.0, margin)
        return msgspec.structs.replace(plain, p=effect(*side).p)

    def facing(self, sign: float, margin: float) -> tuple["Cells", float]:
        """One side of the test as a plain one: effects of this sign that are held against a margin for all examples.

        Where margins vary a value may lie beyond 1 though none of a score can: both are then scaled.
        """
        values = sign * self.values if self.edge is None else self.edge.against(sign * self.values)
        scale = max(1.0, float(np.abs(values).max())) if self.bounded else 1.0
        ends = None if self.ends is None else [None if end is None else sign * end / scale for end in self.ends]
        low, high = (None, None) if ends is None else ends if sign > 0.0 else ends[::-1]
        return replace(self, values=values / scale, ends=ends and (low, high), edge=None), margin / scale

    def __eq__(self, other: object) -> bool:
        """Whether the numbers and their bounds are the same."""
        if not isinstance(other, Cells):
            return NotImplemented
        same = (self.bounded, self.ends, self.edge) == (other.bounded, other.ends, other.edge)
        return same and np.array_equal(self.values, other.values)

    __hash__ = None  # pyright: ignore[reportAssignmentType] - of arrays


@dataclass(frozen=True)
class Draft:
    """A finding before the family-wide correction has settled its status.

    Attributes:
        finding: With a provisional status, used as it is where there is no ``test``.
        test: The tested effect, with the p-value of "it is no more than the margin".
        margin: Smallest effect of interest; where it is zero, nothing can be excluded.
        cells: What the tested effect is the mean of; where unknown, its interval alone says what is excluded.
        one_sided: Only a positive effect counts as found.
        otherwise: The words where it was not found.
        fallback: The status where it was not found, if other evidence than this test settles it.
        words: Of the verdict.
        over: The test over members of a study, which says itself what is excluded and what can be decided.
        direction: Which effects that test is about.
        undecided: What to do where it is neither found nor excluded.
    """

    finding: Finding
    test: Estimate | None = None
    margin: float = 0.0
    cells: Cells | None = None
    one_sided: bool = False
    otherwise: str = ""
    fallback: FindingStatus | None = None
    words: Words = CLAIM
    over: MemberTest | None = None
    direction: Direction = "either"
    undecided: str = ""

    def __post_init__(self) -> None:
        require_fields(self)


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A claim: the tested effect, what it is held against, and the words for either answer.

    Attributes:
        test: The effect, with its p-value; ``None`` for a claim that is no test, whose ``status`` stands as it is.
        found: The words where it was found (or as they stand, where there is no test).
        otherwise: The words where it was not.
        margin: Smallest effect of interest: found is a larger one, excluded is one no larger.
        min_effect: Effect that a null control must have been able to see.
        cells: What the tested effect is the mean of, where it is a plain mean.
        words: Of the verdict.
        beside: What else was measured; no test of this report.
        one_sided: Only a positive effect counts as found.
        alarm: Whether found is bad news.
        among: Of how many effects the tested one was the largest: each is tested at ``alpha / among``.
        title: Of its finding; the audit's, where empty.
        scheme: Name of the deployment scheme it is about.
        coverage: Share of the weights that it looked at, where its trials do not tell.
        brief: The sentence for a headline; the first one of ``found``, where empty.
        status: Where there is no test.
        fallback: The status where it was not found, if other evidence than this test settles it.
        shown: The effect that is reported, where the tested p-value is not its alone.
        trials: What it rests on beside the readings.
    """

    test: Estimate | None
    found: str
    otherwise: str = ""
    margin: float = 0.0
    min_effect: float = 0.0
    cells: Cells | None = None
    words: Words = CLAIM
    beside: tuple[Estimate, ...] = ()
    one_sided: bool = False
    alarm: bool = True
    among: int = 1
    title: str = ""
    scheme: str = ""
    coverage: float | None = None
    brief: str = ""
    status: FindingStatus = "found"
    fallback: FindingStatus | None = None
    shown: Estimate | None = None
    trials: tuple[Trial, ...] = ()

    @property
    def effect(self) -> Estimate:
        """The tested effect of a claim that has one."""
        assert self.test is not None, "this claim is no test"
        return self.test


Answered = Callable[[Sequence[Finding], bool], tuple[str, StudyRecord]]
"""From the settled findings, and whether the study is void, to its headline and its table."""


@dataclass
class Verdict:
    """What an audit concludes.

    Attributes:
        graded: What was measured of graded copies; its power is reported when all tests of the report are known.
        answered: Of a study: the headline and the table, once all findings are settled.
        lens: What is known of the benchmark.
        circuits: What a report shows of circuits.
    """

    drafts: list[Draft] = field(default_factory=list[Draft])
    controls: list[Control] = field(default_factory=list[Control])
    curves: list[Curve] = field(default_factory=list[Curve])
    blocks: list[BlockMap] = field(default_factory=list[BlockMap])
    graded: Graded | None = None
    answered: Answered | None = None
    lens: LensRecord | None = None
    circuits: list[CircuitView] = field(default_factory=list[CircuitView])


class Unanswered(Exception):
    """A trial an audit rests on failed or was skipped; carries the status to report and why."""

    def __init__(self, status: FindingStatus, because: str) -> None:
        super().__init__(because)
        self.status: FindingStatus = status
        self.because = because
