"""What the tests of ambiguity scored, item by item: statements, continuations, sets of labels, rewrites."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from wheeltap.audits.case import Arrays
from wheeltap.core import seeds
from wheeltap.core.records import Estimate
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.wilson1927 import wilson, wilson_of_items
from wheeltap.suites.lens.record import Recognized, SystemScore
from wheeltap.suites.lens.specs import DISTRACTOR, NO_ANSWER, NOT_ASKED, READING, TEMPLATES, TRUE

Flags = NDArray[np.bool_]
Places = NDArray[np.intp]

THRESHOLDS: Final = np.arange(1, 100) / 100
"""Probabilities from which a label is in the set: the best of these is taken."""


@final
@dataclass(frozen=True, eq=False)
class Share:
    """A share of right answers, in words and with its interval."""

    what: str
    estimate: Estimate
    answers: int
    items: int

    @property
    def said(self) -> str:
        """In percent, with the number of answers, and of items where that is another one."""
        one = self.estimate
        ends = "no interval" if one.low is None or one.high is None else f"{100 * one.low:.1f}, {100 * one.high:.1f}"
        of = f"{self.answers:,}" if self.answers == self.items else _of_items(self.answers, self.items)
        return f"{100 * (one.value or 0.0):.1f} % [{ends}] (n {of})"

    def row(self, subject: str) -> Recognized:
        """As tables hold it."""
        one = self.estimate
        score = SystemScore(subject=subject, value=one.value or 0.0, low=one.low, high=one.high)
        return Recognized(subject=subject, what=self.what, score=score, answers=self.answers, items=self.items)


@final
@dataclass(frozen=True, eq=False)
class Scores:
    """What one test gave of one subject.

    Attributes:
        test: Which, in words.
        items: ``[item]``, the tested ones' places among the task's.
        values: ``[item]``, the score of each, 0 to 1.
        chance: ``[item]``, what counts as no skill; ``None`` where nothing does.
        shares: With intervals, the most informative first.
        words: What was found, in a sentence.
    """

    test: str
    items: Places
    values: FloatArray
    chance: FloatArray | None
    shares: tuple[Share, ...]
    words: str


STATED: Final = "statements about readings"
WENT_ON: Final = "continuations of readings"
LABELLED: Final = "sets of labels"
CONFIRMED: Final = "gold rewrites"


def merged(parts: Sequence[Arrays], name: str) -> NDArray[np.float64]:
    """One array of all parts: each says nothing of the items of the others."""
    several = np.stack([part[name] for part in parts])
    return (several.min(0) if name == "answer" else several.sum(0)).astype(np.float64)


def of_statements(parts: Sequence[Arrays]) -> Scores | None:
    """Right answers to statements; each answer that was not given counts as wrong, and is left out, both.

    ``None`` where nothing was asked.
    """
    answer = merged(parts, "answer")
    asked, none = answer != NOT_ASKED, answer == NO_ANSWER
    if not asked.any():
        return None
    right = answer == np.where([is_true for _, is_true in TEMPLATES], TRUE, 1 - TRUE)
    item = np.broadcast_to(np.arange(len(answer))[:, None, None], answer.shape)
    items = np.flatnonzero(asked.any((1, 2)))
    joint = (right | ~asked).all((1, 2))[items]
    missing = int(none.sum())
    shares = [_over(right, asked, item, STATED)]
    if missing:
        shares.append(_over(right, asked & ~none, item, f"{STATED}, no answer left out"))
    shares.append(_plain(joint, "all statements of an item"))
    each = np.arange(len(TEMPLATES))
    shares += [_over(right, asked & (each == at), item, f'"{text}"') for at, (text, _) in enumerate(TEMPLATES)]
    counted = f", {missing:,} without an answer counted as wrong ({shares[1].said} without them)" if missing else ""
    mass = ""
    if all("mass" in part for part in parts):
        held = merged(parts, "mass")[asked]
        mass = f" P(True) + P(False) is {held.mean():.2f} in the mean."
    words = (
        f"judges {shares[0].said} of the statements about readings rightly{counted}, and all statements of an item for "
        f"{shares[1 + (missing > 0)].said}. Which answer is right follows from the template alone.{mass}"
    )
    values = (right & asked).sum((1, 2))[items] / asked.sum((1, 2))[items]
    return Scores(STATED, items, values, None, tuple(shares), words)


def of_continuations(parts: Sequence[Arrays]) -> Scores | None:
    """Sentences of which every reading goes on more like the ambiguous one than the distractor does."""
    divergence, kind = merged(parts, "divergence"), merged(parts, "kind")
    reading, other = kind == READING, kind == DISTRACTOR
    asked = reading.any(2) & other.any(2)
    if not asked.any():
        return None
    far = np.where(other, divergence, np.inf).min(2)
    near = np.where(reading, divergence, -np.inf).max(2)
    right = near < far
    share = _plain(right[asked], WENT_ON, items=int(asked.any(1).sum()))
    items = np.flatnonzero(asked.any(1))
    by_chance = np.where(asked, 1.0 / (reading.sum(2) + 1.0), 0.0)
    several = asked.sum(1)[items]
    counts = merged(parts, "continuations")[asked]
    drawn = f"{counts.min():.0f}" if counts.min() == counts.max() else f"{counts.min():.0f} to {counts.max():.0f}"
    chance = float(by_chance[asked].mean())
    words = (
        f"finds every reading closer to the ambiguous sentence than a distractor, by how it continues them, for "
        f"{share.said}: "
        f"{int(right[asked].sum()):,} of {share.answers:,} sentences, by chance {100 * chance:.1f} % "
        f"(KL from {drawn} continuations of each)."
    )
    values = (right & asked).sum(1)[items] / several
    return Scores(WENT_ON, items, values, by_chance.sum(1)[items] / several, (share,), words)


FEWEST_LABELLED: Final = 2
"""Items that sets of labels take: the threshold of each half is tuned on the other."""


def of_labels(probability: FloatArray, right: Flags, *, seed: int) -> Scores:
    """Items whose set of labels is exactly right.

    Items are put in two halves at random; the threshold of each is the best one on the other, and so is the set that
    is always given by whom it is held against.

    Args:
        probability: ``[item, label]``.
        right: ``[item, label]``, whether some reading has the label; of ``FEWEST_LABELLED`` items or more.
        seed: Of the halves.
    """
    order = seeds.generator(seed, "ambiguity", "halves").permutation(len(right))
    halves = order[::2], order[1::2]
    exact, common = np.zeros(len(right), dtype=bool), np.zeros(len(right), dtype=bool)
    chosen: list[float] = []
    for own, other in (halves, halves[::-1]):
        tuned = [float((sets(probability[other], at) == right[other]).all(1).mean()) for at in THRESHOLDS]
        chosen.append(float(THRESHOLDS[int(np.argmax(tuned))]))
        exact[own] = (sets(probability[own], chosen[-1]) == right[own]).all(1)
        several, counts = np.unique(right[other], axis=0, return_counts=True)
        common[own] = (right[own] == several[counts.argmax()]).all(1)
    ambiguous = right.sum(1) > 1
    shares = [_plain(exact, LABELLED)]
    shares += [
        _plain(exact[rows], f"{LABELLED}, {name}")
        for rows, name in ((ambiguous, "ambiguous items"), (~ambiguous, "others"))
        if rows.any()
    ]
    more = [_plain(common, "always the most common set")]
    single = _plain(
        np.take_along_axis(right, probability.argmax(1)[:, None], 1)[:, 0], "most likely label is in the set"
    )
    words = (
        f"gives exactly the right set of labels for {shares[0].said}; always giving the most common set is right for "
        f"{more[0].said}. Threshold {' and '.join(f'{one:.2f}' for one in chosen)}, each tuned on the other half."
    )
    kept = (*shares, *more, single)
    return Scores(LABELLED, np.arange(len(right)), exact.astype(float), common.astype(float), kept, words)


def sets(probability: FloatArray, threshold: float) -> Flags:
    """The labels with at least this probability; the most likely one, where none has it: ``[item, label]``."""
    chosen = np.asarray(probability >= threshold, dtype=np.bool_)
    none = np.flatnonzero(~chosen.any(1))
    chosen[none, probability[none].argmax(1)] = True
    return chosen


def of_rewrites(read: Arrays) -> Scores:
    """Items of which people confirm every gold rewrite: the ceiling of whoever writes readings."""
    right = read["right"].astype(bool)
    share = _plain(right, CONFIRMED)
    published = wilson(*PUBLISHED, name="gpt-4")
    ends = f"{100 * (published.low or 0.0):.1f}, {100 * (published.high or 0.0):.1f}"
    words = (
        f"confirm all gold rewrites, each as plausible and with its label, of {share.said}: {int(right.sum()):,} of "
        f"{len(right):,}. The published figure for rewrites of gpt-4 is {PUBLISHED[0]} of {PUBLISHED[1]} items, "
        f"{100 * PUBLISHED[0] / PUBLISHED[1]:.1f} % [{ends}]."
    )
    return Scores(CONFIRMED, np.arange(len(right)), right.astype(float), None, (share,), words)


PUBLISHED: Final = (16, 50)
"""Items of which gpt-4's rewrites were right, of those that people judged.

Source: arXiv:2304.14399, table 3 (32 %, 50 items a model)."""


def _of_items(answers: int, items: int) -> str:
    return f"{answers:,} of {items:,} item{'' if items == 1 else 's'}"


def _plain(right: Flags, what: str, *, items: int | None = None) -> Share:
    return Share(
        what, wilson(int(right.sum()), len(right), name=what), len(right), len(right) if items is None else items
    )


def _over(right: Flags, asked: Flags, item: NDArray[np.intp], what: str) -> Share:
    of = item[asked]
    return Share(what, wilson_of_items(right[asked], of, name=what), len(of), len(np.unique(of)))
