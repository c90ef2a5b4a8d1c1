"""What audits say: claims with their tests, before one correction over all of them settles each status."""

from dataclasses import dataclass, field

from wheeltap.core.records import BlockMap, Control, Curve, Estimate, Finding, FindingStatus, Trial


@dataclass(frozen=True)
class Draft:
    """A finding before the family-wide correction has settled its status.

    Attributes:
        finding: With a provisional status, used as it is where there is no ``test``.
        test: The tested effect, with its p-value.
        worth: The smallest effect of interest: with a larger smallest detectable effect, a test that does not
            reject is ``inconclusive``, not ``not_found``.
        one_sided: Only a positive effect counts as found.
        otherwise: The words where nothing was found.
        fallback: The status where nothing was found, if other evidence than ``worth`` settles it.
    """

    finding: Finding
    test: Estimate | None = None
    worth: float = 0.0
    one_sided: bool = False
    otherwise: str = ""
    fallback: FindingStatus | None = None


@dataclass(frozen=True, kw_only=True)
class Tested:
    """A claim: the tested effect, what it is held against, and the words for either answer.

    Attributes:
        test: The effect, with its p-value; ``None`` for a claim that is no test, whose ``status`` stands as it is.
        found: The words where it was found (or as they stand, where there is no test).
        otherwise: The words where it was not.
        margin: Effect that does not matter; the test is of a larger one.
        min_effect: Smallest effect of interest: with a larger smallest detectable effect, a test that does not reject
            is ``inconclusive``, not ``not_found``.
        beside: What else was measured; no test of this report.
        one_sided: Only a positive effect counts as found.
        alarm: Whether found is bad news.
        among: Of how many effects the tested one was the largest: each is tested at ``alpha / among``.
        title: Of its finding; the audit's, where empty.
        brief: The sentence for a headline; the first one of ``found``, where empty.
        status: Where there is no test.
        fallback: The status where nothing was found, if other evidence than ``min_effect`` settles it.
        shown: The effect that is reported, where the tested p-value is not its alone.
        trials: What it rests on beside the readings.
    """

    test: Estimate | None
    found: str
    otherwise: str = ""
    margin: float = 0.0
    min_effect: float = 0.0
    beside: tuple[Estimate, ...] = ()
    one_sided: bool = False
    alarm: bool = True
    among: int = 1
    title: str = ""
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


@dataclass
class Verdict:
    """What an audit concludes."""

    drafts: list[Draft] = field(default_factory=list[Draft])
    controls: list[Control] = field(default_factory=list[Control])
    curves: list[Curve] = field(default_factory=list[Curve])
    blocks: list[BlockMap] = field(default_factory=list[BlockMap])


class Unanswered(Exception):
    """A trial an audit rests on failed or was skipped; carries the status to report and why."""

    def __init__(self, status: FindingStatus, because: str) -> None:
        super().__init__(because)
        self.status: FindingStatus = status
        self.because = because
