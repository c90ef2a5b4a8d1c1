"""The numbers and the rules of the study ``tampering``: fixed before the first net of the study was made."""

from collections.abc import Sequence
from typing import Final

from wheeltap.core.study import Direction, Metric, Rule

CODE: Final = "WT601"

DENSE, CONVOLUTIONAL, GPT = "dense", "convolutional", "gpt"
"""Kinds of nets."""

KINDS: Final = (DENSE, CONVOLUTIONAL, GPT)

PASSED, FOUND, HASH_FALSE, BY_HASH = "harmless_passed", "found", "hash_false_alarms", "by_hash"
SIGN, SIGNS, SMALL, SMALL_FIVE, SMALL_PRINTS, PRINTS = (
    "signs", "signs_less_random", "small", "small_five", "small_fingerprints", "five_less_fingerprints",
)  # fmt: skip
BLOCK, KIND = "block_right", "kind_right"

SMALL_CHANGES: Final = ("noise-0.002", "8-bit", "step")
"""Changes of which nearly all must be found."""

NEARLY_ALL: Final = 0.99
ROUNDING: Final = 1e-9

ALL: Final = 0.99999
"""Share of copies below which one is missing, of as many as a study may make."""

MATTERS: Final = 0.05
"""Smallest difference of interest, as a share of copies."""

_SHARE: Final = (0.0, 1.0)
_CHANGE: Final = (-1.0, 1.0)


def metrics() -> tuple[Metric, ...]:
    """The numbers of each net: means over kinds of change, of shares of copies."""
    small = "Relative noise of .002, rounding to 8 bits and one step of gradient descent, without reading weights."
    listed = (
        (PASSED, "Harmless copies that the seal passes", _SHARE, "Of copies that were converted in harmless ways."),
        (FOUND, "Changed copies that the seal finds", _SHARE, "Of all kinds, also those of the same function."),
        (HASH_FALSE, "False alarms of SHA-256", _SHARE, "Of the bytes of all weights; of harmless changes."),
        (
            BY_HASH, "Changed copies that SHA-256 finds if seals do", _SHARE,
            "All but those that the seal finds and SHA-256 does not. It is 1 where every change is one of weights.",
        ),
        (SMALL, "Small changes, 16 inputs", _SHARE, f"{small} By outputs and blocks on the seal's inputs."),
        (SMALL_FIVE, "Small changes, 5 inputs", _SHARE, f"{small} On the first five of these inputs."),
        (
            SMALL_PRINTS, "Small changes, 5 fingerprints", _SHARE,
            f"{small} By the top answers to five inputs near decision boundaries.",
        ),
        (SIGN, "Flipped signs, 16 inputs", _SHARE, "Of single weights, without reading them."),
        (
            SIGNS, "Flipped signs: chosen less random inputs", _CHANGE,
            "Share of single flipped signs that 16 inputs of the seal show, less that which 16 inputs at random show.",
        ),
        (PRINTS, "Small changes: 5 inputs less 5 fingerprints", _CHANGE, small),
        (BLOCK, "First changed block named right", _SHARE, "Where one weight, matrix or norm was changed."),
        (KIND, "Kind of change named right", _SHARE, "Where it has a name: noise, scale, swapped, 8 bits and so on."),
    )  # fmt: skip
    return tuple(
        Metric(key=key, title=title, unit="share of copies", code=CODE, ends=ends, reads=reads)
        for key, title, ends, reads in listed
    )


def rules(kinds: Sequence[str]) -> tuple[Rule, ...]:
    """Five over all nets, and two of each kind of net."""
    pooled: tuple[tuple[str, str, Direction, float, str, str], ...] = (
        ("Every harmless conversion passes", PASSED, "more", ALL, "seals let every harmless conversion pass",
         "seals call some harmless conversion a change"),
        ("Every change is found", FOUND, "more", ALL, "seals find every changed copy", "seals pass some changed copy"),
        ("SHA-256 alarms on harmless conversions", HASH_FALSE, "more", 0.0,
         "SHA-256 calls harmless conversions changes", "SHA-256 lets every harmless conversion pass"),
        ("SHA-256 finds every change that seals find", BY_HASH, "more", ALL,
         "seals find no changed weights that SHA-256 does not find",
         "seals find some changed weights that SHA-256 does not find"),
        ("Small changes are found by 16 inputs", SMALL, "more", NEARLY_ALL - ROUNDING,
         "sixteen inputs show 99 % of small changes without reading weights",
         "sixteen inputs show less than 99 % of small changes"),
    )  # fmt: skip
    return (
        *(Rule(
            code=CODE, title=title, metric=key, cohorts=tuple(kinds), statistic="exact", direction=direction,
            above=above, supports=f"{_ON}, {supports}.", refutes=f"{_ON}, {refutes}.",
        ) for title, key, direction, above, supports, refutes in pooled),
        *(_of(kind, SIGNS, "more flipped signs than random ones") for kind in kinds),
        *(_of(kind, PRINTS, "more small changes than five fingerprints") for kind in kinds),
    )  # fmt: skip


_ON: Final = "On most nets like these"
"""Of whatever share of the nets at hand it is true: that is what a test over nets can say."""


def _of(kind: str, key: str, what: str) -> Rule:
    return Rule(
        code=CODE, title=f"Chosen inputs show {what}: {kind} nets", metric=key, cohorts=(kind,),
        statistic="mean", direction="more", margin=MATTERS,
        supports=f"Chosen inputs of {kind} nets show {what}, by over {100 * MATTERS:g} points.",
        refutes=f"Chosen inputs of {kind} nets do not show {what}, by {100 * MATTERS:g} points or more.",
    )  # fmt: skip
