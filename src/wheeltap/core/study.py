"""Studies as data: which kinds of nets, which rules fixed beforehand, and the table that comes of them."""

from typing import Annotated, Literal

import msgspec

from wheeltap.core.canon import Scalar
from wheeltap.core.records import Estimate
from wheeltap.core.settings import ChoiceRecord

CohortRole = Literal["studied", "compared", "null", "planted", "given"]
"""What nets are asked about; what they are compared with; controls that must show nothing, or something; a user's."""

Statistic = Literal["one_of", "paired", "difference", "mean", "association", "auc", "added", "exact"]
Direction = Literal["more", "less", "either"]
Side = Literal["high", "low", ""]


class MemberSpec(ChoiceRecord, frozen=True, kw_only=True):
    """A member that a study asks for: made by a recipe, or loaded from where it is.

    Attributes:
        name: What it is called; another one for each member.
        recipe: Registered name of the recipe; empty where it is loaded.
        settings: Of the recipe, that differ from its defaults.
        seed: Root of the recipe's draws.
        of: Names of the members that it is made from.
        on_task: Whether it is meant to learn the very examples that it is measured on: nets that know them by heart.
        source: ``hf:DIR``, ``module:callable`` and so on, where it is loaded.
    """

    name: str
    recipe: str = ""
    settings: dict[str, Scalar] = msgspec.field(default_factory=dict[str, Scalar])
    seed: int = 0
    of: tuple[str, ...] = ()
    on_task: bool = False
    source: str = ""


class CohortSpec(ChoiceRecord, frozen=True, kw_only=True):
    """A cohort as a study asks for it; see ``Cohort``."""

    name: str
    members: tuple[MemberSpec, ...]
    role: CohortRole = "studied"
    about: str = ""


class Cohort(ChoiceRecord, frozen=True, kw_only=True):
    """Nets made alike, or given together.

    Attributes:
        name: What they are called.
        members: Names of its subjects.
        role: What they are for.
        about: What they have in common, in one sentence.
        training: How many examples they were trained on and are measured on, in one sentence; empty where not known.
    """

    name: str
    members: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    role: CohortRole = "studied"
    about: str = ""
    training: str = ""


class Metric(ChoiceRecord, frozen=True, kw_only=True):
    """One number that every member has.

    Attributes:
        key: Its name in rules and files.
        title: In plain words.
        unit: Of the number.
        reads: A sentence or two: what it measures and where it misleads.
        code: Of the findings that rest on it.
        toward: Which way the property lies that the study asks about; empty where neither is known.
        ends: What the number cannot be below or above, so that intervals end there.
        grain: Step in which it is counted; 0 where it is not a count.
        log: Whether members are compared by the ratio: of losses, norms and doses, which are skewed from net to net.
        of_score: Whether it is a score, or a difference of two, in units of the examples' measure.
    """

    key: str
    title: str
    unit: str
    reads: str = ""
    code: str = ""
    toward: Side = ""
    ends: tuple[float | None, float | None] = (None, None)
    grain: float = 0.0
    log: bool = False
    of_score: bool = False


class Rule(ChoiceRecord, frozen=True, kw_only=True):
    """How a question about kinds of nets is decided, written down before the first one is made.

    Attributes:
        code: Of its finding.
        title: What the finding claims.
        metric: Key of the metric.
        cohorts: Names of the cohorts: one for ``association`` over its members, ``mean`` and ``exact``, two for the
            others.
        statistic: ``one_of``: the one member of the first against those of the second; ``paired``: member by member;
            ``difference`` of means; ``mean`` of one cohort, against 0; ``auc``: how often a member of
            the first has more than one of the second; ``added``: how much of that the metric adds to those in
            ``beyond``; ``association`` with another metric; ``exact``: the share of members whose number is larger
            than ``above``, against ``share``.
        direction: Which effect counts.
        margin: Smallest effect of interest, in units of the statistic; a share of the second cohort's mean where
            ``relative``; of a metric that is compared by ratios, the distance from 1.
        with_metric: The other metric of an association.
        beyond: Metrics whose part in the association is removed first; of ``added``, what the metric is added to.
        above: The threshold of ``exact``: a member counts where its number is larger.
        share: What the share of ``exact`` is tested against.
        within: Whether an association is one within cohorts: each cohort's mean is removed first; of ``added``, whether
            only members of the same place in both cohorts are compared: copies of one net, say.
        supports: What it means if the effect is found.
        refutes: What it means if it is excluded.
        otherwise: What is said where it is not found; "No evidence of added value." of ``added``, where empty.
        alarm: Whether ``found`` is bad news.
    """

    code: str
    title: str
    metric: str
    cohorts: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    statistic: Statistic
    direction: Direction = "either"
    margin: Annotated[float, msgspec.Meta(ge=0.0)] = 0.0
    relative: bool = False
    with_metric: str = ""
    beyond: tuple[str, ...] = ()
    above: float = 0.5
    share: float = 0.5
    within: bool = False
    supports: str = ""
    refutes: str = ""
    otherwise: str = ""
    alarm: bool = False


class StudySpec(msgspec.Struct, frozen=True, kw_only=True):
    """A study in a plan: its rules are part of the plan's key.

    Attributes:
        name: Registered name.
        version: Of its code: another version measures other things.
        settings: That differ from its defaults.
        cohorts: Which nets.
        metrics: Which numbers.
        rules: How they are judged.
    """

    name: str
    version: int
    settings: dict[str, Scalar]
    cohorts: tuple[Cohort, ...]
    metrics: tuple[Metric, ...]
    rules: tuple[Rule, ...]


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One net of a study.

    Attributes:
        status: ``done``, or how its making ended.
        because: Why it is in no number, where it is not.
        note: A few words beside its name.
    """

    name: str
    cohort: str
    status: str = "done"
    because: str = ""
    note: str = ""


class CohortRow(msgspec.Struct, frozen=True, kw_only=True):
    """One metric of one cohort.

    Attributes:
        values: One per member that has the number.
        mean: Over members, with its interval; of a cohort of one, over what was sampled within it.
        next_net: Where one more such net would lie (95 %), where that is known.
        beside: How it looks beside the net under study, in words; empty where that is not asked.
        members: Names of those that have the number, one for each value.
    """

    cohort: str
    values: tuple[float, ...]
    mean: Estimate
    next_net: tuple[float, float] | None = None
    beside: str = ""
    members: tuple[str, ...] = ()


class MetricRow(ChoiceRecord, frozen=True, kw_only=True):
    """One metric of every cohort; ``verdict`` in a word, where a rule is about it."""

    metric: Metric
    cohorts: tuple[CohortRow, ...]
    verdict: str = ""
    alarm: bool = False


class StudyRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What a report holds of a study beside its findings and controls.

    Attributes:
        name: Registered name.
        question: What it asks.
        about: What the nets have in common: the data, say.
        cohorts: Which nets.
        rules: Fixed beforehand.
        members: Every net, those included that are in no number.
        rows: Every metric.
        notes: How to read the numbers together.
        caveats: What the numbers cannot say.
    """

    name: str
    question: str
    about: str
    cohorts: tuple[Cohort, ...]
    rules: tuple[Rule, ...]
    members: tuple[Member, ...]
    rows: tuple[MetricRow, ...]
    notes: tuple[str, ...] = ()
    caveats: tuple[str, ...] = ()
