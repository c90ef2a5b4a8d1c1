"""The numbers and the rules of the study ``rlvr``: fixed before the first net of the study was made."""

from typing import Final

from wheeltap.core.study import Direction, Metric, Rule

BASE, TEACHER = "base", "teacher"
REWARDED, DISTILLED, CONTAMINATED, MAJORITY, RANDOM = "rewarded", "distilled", "contaminated", "majority", "random"
"""Kinds of nets. Those of the second row are made from a base."""

TRAINED: Final = (REWARDED, DISTILLED, CONTAMINATED, MAJORITY, RANDOM)

ONCE, WITHIN, ENTROPY = "once", "within", "entropy"
GAIN, GAINED, LOST, BALANCE, BEYOND, GAP, NAMED = (
    "gain", "items_gained", "items_lost", "support", "beyond_majority", "seen_less_fresh", "named",
)  # fmt: skip

SIGNATURES: Final = {
    REWARDED: "sharpened", DISTILLED: "widened", CONTAMINATED: "memorized", MAJORITY: "narrowed", RANDOM: "narrowed",
}  # fmt: skip
"""Which signature each kind must have. Rewards that do not depend on what is right have one in common."""

UNCHANGED: Final = "unchanged"

MATTERS: Final = 0.05
"""Smallest difference of interest, as a share of items."""

CLEAR: Final = 0.1
"""Difference from which one net counts as widened, narrowed or memorized: items that are solved by luck differ by less
between two samples of one net."""

SHARE: Final = (0.0, 1.0)
CHANGE: Final = (-1.0, 1.0)


def signature(*, gap: float, balance: float, beyond: float) -> str:
    """What the answers of one net say of its training, by rules fixed beforehand.

    Args:
        gap: See ``GAP``.
        balance: See ``BALANCE``.
        beyond: See ``BEYOND``.
    """
    if gap > CLEAR:
        return SIGNATURES[CONTAMINATED]
    if balance > CLEAR:
        return SIGNATURES[DISTILLED]
    if beyond > MATTERS:
        return SIGNATURES[REWARDED]
    return SIGNATURES[RANDOM] if balance < -CLEAR else UNCHANGED


def metrics(draws: int) -> tuple[Metric, ...]:
    """The numbers of each net, from ``draws`` sampled answers to each item."""
    fresh, tries = "On fresh twins, which no net was taught.", f"{draws} tries"
    unit = "share of items"
    listed = (
        (ONCE, "Solved at one try", SHARE, f"{fresh} pass@1."),
        (WITHIN, f"Solved within {tries}", SHARE, f"{fresh} Items with at least one right answer among {tries}."),
        (GAIN, "Gain at one try", CHANGE, f"{fresh} pass@1 less that of its base: what a leaderboard shows."),
        (GAINED, "Items gained", SHARE, f"{fresh} Solved within {tries}, and not by its base."),
        (LOST, "Items lost", SHARE, f"{fresh} Solved by its base within {tries}, and no more."),
        (
            BALANCE, "Support", CHANGE,
            f"{fresh} Items gained less items lost. A net that guesses more solves more within many tries: see the "
            "entropy of answers.",
        ),
        (
            BEYOND, "Beyond the base's best guesses", CHANGE,
            f"{fresh} pass@1 less the share of items on which the most likely answer of its base is right: what "
            "sharpening alone, whatever is rewarded, does not reach.",
        ),
        (
            GAP, "Gain on seen items less gain on fresh twins", CHANGE,
            "At one try. Seen items are those that contaminated nets were taught, and no other net; twins are drawn "
            "alike.",
        ),
    )  # fmt: skip
    return (
        *(Metric(key=key, title=title, unit=unit, code="WT504", ends=ends, reads=reads)
          for key, title, ends, reads in listed),
        Metric(
            key=ENTROPY, title="Entropy of answers", unit="nats", code="WT504", ends=(0.0, None),
            reads=f"{fresh} Of the distinct answers among {tries}, mean over items.",
        ),
        Metric(
            key=NAMED, title="Named by its signature", unit="share of nets", code="WT504", ends=SHARE, grain=1.0,
            reads="Whether the rules for a single net name the kind that it is. They see its answers and those of its "
            "base, and not how it was trained.",
        ),
    )  # fmt: skip


def rules() -> tuple[Rule, ...]:
    """Eight on what each kind of training does, and one on whether single nets can be named."""
    return (
        *_of(REWARDED, "Rewarded nets", (
            (GAIN, "more", MATTERS, "solve more at one try", "Rewards raise the score"),
            (BALANCE, "more", MATTERS, "solve more items within many tries", "Rewards widen support"),
            (BEYOND, "more", MATTERS, "get beyond the base's best guesses", "Rewards teach what is right"),
        )),
        *_of(DISTILLED, "Distilled nets", (
            (BALANCE, "more", MATTERS, "solve more items within many tries", "A teacher widens support"),
        )),
        *_of(CONTAMINATED, "Contaminated nets", (
            (GAP, "more", CLEAR, "gain more on the items that they saw than on fresh twins", "Seen items show"),
        )),
        *_of(MAJORITY, "Nets rewarded for the base's most frequent answer", (
            (BEYOND, "more", MATTERS, "get beyond the base's best guesses", "Agreement teaches what is right"),
            (BALANCE, "less", MATTERS, "solve fewer items within many tries", "Agreement narrows support"),
        )),
        *_of(RANDOM, "Nets rewarded at random", (
            (GAIN, "more", MATTERS, "solve more at one try", "Random rewards raise the score"),
        )),
        Rule(
            code="WT504", title="Signatures name single nets", metric=NAMED, cohorts=TRAINED, statistic="exact",
            direction="more", share=0.5, margin=0.25,
            supports="The answers of a net and of its base say how it was trained, for more than three nets in four.",
            refutes="The answers of a net and of its base do not say how it was trained, for three nets in four.",
        ),
    )  # fmt: skip


_Listed = tuple[str, Direction, float, str, str]
"""Key of the metric, direction, margin, what the nets do, and the title of the finding."""


def _of(kind: str, nets: str, listed: tuple[_Listed, ...]) -> list[Rule]:
    return [
        Rule(
            code="WT504", title=title, metric=key, cohorts=(kind,), statistic="mean", direction=direction,
            margin=margin, alarm=False, supports=f"{nets} {does}, by over {100 * margin:g} points.",
            refutes=f"{nets} do not {does}, by {100 * margin:g} points or more.",
        )
        for key, direction, margin, does, title in listed
    ]  # fmt: skip
