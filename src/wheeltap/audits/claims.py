"""What audits say: hypotheses with their tests, before one correction over all of them settles each status."""

from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.power import PowerData
from wheeltap.core.records import BlockMap, Control, Curve, Estimate, Finding, FindingStatus, Trial
from wheeltap.core.section import Section
from wheeltap.core.settings import require_fields
from wheeltap.core.study import StudyRecord
from wheeltap.stats.evidence import Evidence


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
    held against its own part of the margin: see ``Sample``.

    Attributes:
        value: The margin.
        each: ``[example]``, whose mean is the margin; ``None`` where it is a number that was given.
        because: How it came about, as a sentence; empty where it is what was asked for.
    """

    value: float
    each: NDArray[np.floating[Any]] | None = None
    because: str = ""


UNNAMED: Final = Finding(code="", title="", status="error", subject="", because="Nobody said what this is about.")
"""The finding of a hypothesis that no audit has named yet."""


@dataclass(frozen=True)
class Hypothesis:
    """What is claimed: the tested effect, what it is held against, and the words for either answer.

    It becomes one finding once the correction over all tests of a report has settled its status.

    Attributes:
        finding: With a provisional status, which stands where there is no ``test``; see ``Audit.draft``.
        test: The effect, with the p-value of "it is no more than the margin"; ``None`` for a claim that is no test,
            whose ``status`` stands as it is.
        found: The words where it was found (or as they stand, where there is no test).
        otherwise: The words where it was not.
        undecided: What to do where it is neither found nor excluded.
        margin: Smallest effect of interest: found is a larger one, excluded is one no larger. Where it is zero, nothing
            can be excluded.
        min_effect: Effect that a null control must have been able to see.
        evidence: What the tested effect rests on, which says what is excluded; every test of a finding has one.
        by_example: Whether it says something of other examples: where these come in groups, its evidence must be over
            groups, or nothing is concluded.
        words: Of the verdict.
        beside: What else was measured; no test of this report.
        one_sided: Only a positive effect counts as found.
        alarm: Whether found is bad news.
        among: Of how many effects the tested one was the largest: each is tested at ``alpha / among``.
        title: Of its finding; the audit's, where empty.
        scheme: Name of the deployment scheme it is about.
        coverage: Share of the weights that it looked at, where its trials do not tell.
        reach: The same without those that every format keeps in full precision; ``None`` where a part is disturbed.
        brief: The sentence for a headline; the first one of ``found``, where empty.
        status: Where there is no test.
        fallback: The status where it was not found, if other evidence than this test settles it.
        shown: The effect that is reported, where the tested p-value is not its alone.
        trials: What it rests on beside the readings.
    """

    finding: Finding = UNNAMED
    _: KW_ONLY
    test: Estimate | None = None
    found: str = ""
    otherwise: str = ""
    undecided: str = ""
    margin: float = 0.0
    min_effect: float = 0.0
    evidence: Evidence | None = None
    by_example: bool = True
    words: Words = CLAIM
    beside: tuple[Estimate, ...] = ()
    one_sided: bool = False
    alarm: bool = True
    among: int = 1
    title: str = ""
    scheme: str = ""
    coverage: float | None = None
    reach: float | None = None
    brief: str = ""
    status: FindingStatus = "found"
    fallback: FindingStatus | None = None
    shown: Estimate | None = None
    trials: tuple[Trial, ...] = ()

    def __post_init__(self) -> None:
        require_fields(self)
        unfounded = self.finding is not UNNAMED and self.test is not None and self.evidence is None
        assert not unfounded, f"{self.finding.code}: a test without its evidence"

    @property
    def effect(self) -> Estimate:
        """The tested effect of a claim that has one."""
        assert self.test is not None, "this claim is no test"
        return self.test


def ungrouped(claim: Hypothesis) -> Hypothesis:
    """A claim that counts examples one by one, where these come in groups: what was measured, and no conclusion."""
    known = [*(one for one in (claim.shown or claim.test,) if one is not None), *claim.beside]
    beside = tuple(without_interval(one) for one in known)
    number = f" ({known[0].name}: {known[0].value:.3g})" if known and known[0].value is not None else ""
    return replace(
        claim, test=None, shown=None, evidence=None, beside=beside, status="inconclusive", brief="",
        found=f"{_ALONE}{number}.",
    )  # fmt: skip


def without_interval(estimate: Estimate) -> Estimate:
    """An estimate over single examples, where these come in groups: with few of them its spread is not known."""
    method = f"{estimate.method}; no interval over groups"
    return msgspec.structs.replace(estimate, low=None, high=None, p=None, method=method)


_ALONE: Final = (
    "The examples come in groups. This counts them one by one, as if they were independent, so nothing is concluded"
)


@dataclass
class Verdict:
    """What an audit concludes.

    Attributes:
        graded: What was measured of graded copies; its power is reported when all tests of the report are known.
        answered: Of a study: from the settled findings, and whether it is void, to its headline and its table.
        sections: What a report shows beside the findings.
    """

    drafts: list[Hypothesis] = field(default_factory=list[Hypothesis])
    controls: list[Control] = field(default_factory=list[Control])
    curves: list[Curve] = field(default_factory=list[Curve])
    blocks: list[BlockMap] = field(default_factory=list[BlockMap])
    graded: PowerData | None = None
    answered: Callable[[Sequence[Finding], bool], tuple[str, StudyRecord]] | None = None
    sections: list[Section] = field(default_factory=list[Section])


class NoAnswer(Exception):
    """A trial an audit rests on failed or was skipped; carries the status to report and why."""

    def __init__(self, status: FindingStatus, because: str) -> None:
        super().__init__(because)
        self.status: FindingStatus = status
        self.because = because
