"""What a report holds of a benchmark beside its findings: curves over tries, and what is solved at all."""

import msgspec

Runs = tuple[tuple[int, int], ...]
"""Numbers of tries as runs, first and last of each."""


class SystemScore(msgspec.Struct, frozen=True, kw_only=True):
    """What a benchmark prints of one system, with its interval; a share where that lies within 0 and 1."""

    subject: str
    value: float
    low: float | None
    high: float | None


class TryCurve(msgspec.Struct, frozen=True, kw_only=True):
    """How often k tries are enough.

    Attributes:
        subject: Whose answers.
        group: Part of the benchmark; empty for all of it.
        items: How many.
        ks: Numbers of tries, ascending.
        solved: pass@k, unbiased; ``low`` and ``high`` hold the whole curve at once.
        always: pass^k: all of k tries right.
    """

    subject: str
    group: str = ""
    items: int
    ks: tuple[int, ...]
    solved: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    always: tuple[float, ...]


class TryGap(msgspec.Struct, frozen=True, kw_only=True):
    """Another one's pass@k minus that of the first, item by item.

    Attributes:
        subject: The pair.
        ks: Numbers of tries, ascending.
        gap: Mean over items; ``low`` and ``high`` hold the whole curve at once.
        more: Numbers of tries at which the second surely solves more.
        fewer: At which it surely solves fewer.
        undecided: The others.
    """

    subject: str
    group: str = ""
    items: int
    ks: tuple[int, ...]
    gap: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    more: Runs
    fewer: Runs
    undecided: Runs


class ChangedItem(msgspec.Struct, frozen=True):
    """An item that one of two solves and the other does not, with right answers of both."""

    item: int
    id: str
    first: int
    second: int
    p: float


class Support(msgspec.Struct, frozen=True, kw_only=True):
    """Which items are solved at least once, by whom.

    Attributes:
        samples: Answers of each item: with more, some of those that were never solved would be.
        p: Exact, of "an item that one alone solves is as likely the first's as the second's".
        sure: Items whose difference holds by itself, after correction over all that only one solves.
        items: Those that only one solves, the surest first.
    """

    subject: str
    group: str = ""
    samples: int
    both: int
    first: int
    second: int
    neither: int
    p: float
    sure: int
    items: tuple[ChangedItem, ...] = ()


class Closeness(msgspec.Struct, frozen=True, kw_only=True):
    """How close a system is to people; of ``people`` themselves, how close half of them is to the other half.

    Attributes:
        distance: JS distance to all votes of an item, in nats, square root; ``None`` of people.
        half: The same to half of the people, by whom both are measured.
        soft: Share of that half who chose its most likely label.
    """

    subject: str
    distance: SystemScore | None
    half: SystemScore
    soft: SystemScore


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of a benchmark whose items must have a label that at least this share of the people chose.

    Attributes:
        share: Of the people; 0 keeps all.
        items: How many are kept.
        scores: Share of right answers of each system, the label that most people chose being right.
    """

    share: float
    items: int
    scores: tuple[float, ...] = ()


class People(msgspec.Struct, frozen=True, kw_only=True):
    """What one label an item hides.

    Attributes:
        items: With two votes or more.
        labels: Names, where they have any.
        systems: Whose scores the thresholds hold.
        thresholds: Ascending.
        redrawn: Share of the labels that most people chose which another draw of as many would change.
        halves: Share of the items of which two halves of the people choose different labels.
        order: Share of pairs of systems whose order by score another draw of people would change.
        best: Share of draws in which another system has the best score.
        reordered: Share of pairs of systems that score and distance to people order differently.
    """

    items: int
    labels: tuple[str, ...]
    systems: tuple[str, ...]
    thresholds: tuple[Threshold, ...]
    redrawn: float
    halves: float
    order: float | None = None
    best: float | None = None
    reordered: float | None = None


class AgreementBand(msgspec.Struct, frozen=True, kw_only=True):
    """A system where people agree so much: half of them says how much, the other half is what it is held against.

    Attributes:
        subject: Whose probabilities.
        band: How far the one half agrees, in words; see ``items`` for how many items that is on average.
        confidence: Probability of its most likely label.
        share: Share of the other half who chose it.
        gap: The one minus the other.
        variation: Total variation between its probabilities and the other half (DistCE).
        people: Total variation between the two halves.
        points: Share of the other half who chose its label, at each level of confidence.
        levels: Mean confidence at each level.
    """

    subject: str
    band: str
    items: float
    confidence: float
    share: float
    gap: SystemScore
    variation: float
    people: float
    points: tuple[SystemScore, ...] = ()
    levels: tuple[float, ...] = ()


class FarItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item where a system is far from people.

    Attributes:
        distance: JS distance to the votes.
        low: To what all people would say, with 95 % confidence; ``high`` alike.
    """

    subject: str
    item: int
    id: str
    votes: tuple[int, ...]
    probability: tuple[float, ...]
    distance: float
    low: float
    high: float


class TestShare(msgspec.Struct, frozen=True, kw_only=True):
    """A share of right answers in a test of ambiguity.

    Attributes:
        subject: Whose answers.
        what: Which test, in words.
        score: The share, with its interval.
        answers: How many answers it is a share of.
        items: Of how many items these are.
    """

    subject: str
    what: str
    score: SystemScore
    answers: int
    items: int
