"""Three exact tests of whether a language model knows the texts of a benchmark, and how likely each was to find it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, final

import msgspec
import numpy as np

from wheeltap.audits.case import Arrays
from wheeltap.core import seeds
from wheeltap.core.records import Estimate
from wheeltap.stats._scipy import normal_quantile, normal_share, t_quantile
from wheeltap.stats.crossed import FloatArray
from wheeltap.stats.delong1988 import placements
from wheeltap.stats.effect import mean_effect
from wheeltap.suites.lens.specs import FRACTIONS
from wheeltap.suites.lens.stats.exchangeability import flipped, mean_interval, more_often, order_test
from wheeltap.suites.lens.stats.order_cues import CUES, SHOWN

LEVEL: Final = 0.95

ORDER: Final = "Order of the items"
VERSIONS: Final = "Own texts against twins"
COMPLETION: Final = "Completion of the items"
TITLES: Final = (ORDER, VERSIONS, COMPLETION)

FEWEST: Final = 20
"""Pairs, for tests of texts against their twins."""

LONG_ENOUGH: Final = 8
"""Tokens of a tail whose exact completion says something: shorter ones are often the only way to go on."""

TIMES: Final = 2.0
"""How many times the gain of new items of the same form must be exceeded: these may lose part of it."""

SURE: Final = 8.0
"""Standard errors from which an effect is found whatever the test: a normal probability beyond is 0."""


@final
@dataclass(frozen=True, eq=False)
class Shown:
    """One test of one copy.

    Attributes:
        title: Of the test.
        effect: What was tested, with its exact one-sided p-value.
        reach: How many standard errors the effect is from nothing: of several things that must all be shown, the least.
        units: Shards or pairs.
        numbers: What was seen, in words.
    """

    title: str
    effect: Estimate
    reach: float
    units: int
    numbers: str

    def power(self, alpha: float, *, level: float) -> Estimate:
        """Probability that a model with this effect is found at ``alpha``, one-sided, by the normal approximation."""
        least = t_quantile(2.0 * alpha, self.units - 1) if self.units > 1 else SURE
        spread = normal_quantile((1.0 + level) / 2.0)
        value, low, high = (normal_share(self.reach + shift - least) for shift in (0.0, -spread, spread))
        return Estimate(
            name=f"would be found by {self.title[:1].lower()}{self.title[1:]}", value=value, low=low, high=high,
            level=level, n=self.units, unit="probability", method=f"normal, of one taught copy, at {alpha:.3g}",
        )  # fmt: skip


@final
@dataclass(frozen=True, eq=False)
class Copy:
    """What was read of the model or of a copy.

    Attributes:
        read: Arrays of the reading.
        at: Which copy, along ``copy``.
        root: Root seed of the tests' draws.
    """

    read: Arrays
    at: int
    root: int

    @property
    def epochs(self) -> int:
        """How often it was taught the items."""
        return int(self.read["epochs"][self.at])

    @property
    def paired(self) -> bool:
        """Whether there are twins enough."""
        loss = self.read["loss"]
        return loss.shape[2] > 1 and loss.shape[1] >= FEWEST

    def shown(self) -> list[Shown]:
        """Every test that can be made."""
        ordered = [] if self.untested() else [self.order()]
        return [*ordered, *([self.versions(), self.completion()] if self.paired else [])]

    def untested(self) -> str:
        """Why the order of the items shows nothing of memory; empty where it does."""
        known = [cue for cue, p in zip(CUES, self.read["cues"], strict=True) if p <= SHOWN]
        if known:
            least = float(self.read["cues"].min())
            return (
                f"The order of the items can be known from their texts: it follows {' and '.join(known[:2])} "
                f"(exact p = {least:.2g}). A model that never saw them prefers such an order, so that it is no sign of "
                "memory."
            )
        if "order_twins" not in self.read and "order_fresh" not in self.read:
            return (
                "The items are one template with one part of its own each, so that no new items of the same form can "
                "be made to compare with. Whoever knows such a series elsewhere prefers its order; give twins."
            )
        return ""

    def _rng(self, name: str) -> np.random.Generator:
        return seeds.generator(self.root, "contamination", name, self.epochs)

    def order(self) -> Shown:
        """The given order of the items against shuffles, shard by shard, and by more than that of other items.

        An order may carry meaning, by subject or difficulty: then twins, and new items of the same form, in the same
        order and in the same shuffles show it too. All must be shown, so the largest p-value is the test's. New items
        have words of the items, and what a model remembers of these counts against the claim.
        """
        order = self.read["order"][self.at]
        found, tokens = order_test(order, self._rng("order")), self.read["shard_tokens"]
        p, reach, beyond = found.p, _reach(found.gains / tokens), ""
        if "order_twins" in self.read:
            more = order_test(order - self.read["order_twins"][self.at], self._rng("order of twins"))
            p, reach = max(p, more.p), min(reach, _reach(more.gains / tokens))
            beyond = f"; beyond the twins in the same order p = {more.p:.2g}"
        if "order_fresh" in self.read:
            new = self.read["order_fresh"][self.at]
            fresh = order_test(new, self._rng("order of new items"))
            more = order_test(order - TIMES * new, self._rng("beyond new items"))
            p, reach = max(p, more.p), min(reach, _reach(more.gains / tokens))
            beyond += (
                f"; new items of the same form in the same order gain {float((fresh.gains / tokens).mean()):.3g} (p = "
                f"{fresh.p:.2g}), beyond twice that p = {more.p:.2g}"
            )
        mean, low, high = mean_interval(found.gains / tokens, level=LEVEL)
        effect = Estimate(
            name="likelier in the given order", value=mean, low=low, high=high, level=LEVEL, n=len(tokens),
            unit="nats a token", method="exact test over shards; t interval", p=p,
        )  # fmt: skip
        numbers = (
            f"Given order against {order.shape[1] - 1} shuffles of each of {len(tokens)} shards: {effect} nats a "
            f"token, exact p = {found.p:.2g} (t test, as the interval, {found.p_t:.2g}){beyond}."
        )
        return Shown(ORDER, effect, reach, len(tokens), numbers)

    def versions(self) -> Shown:
        """How much likelier own texts are than their twins, which must be more often than words alone say.

        Two things are shown: the losses differ (signs of the gaps flipped), and the model sorts more pairs rightly than
        words and compression do. Both must be, so the larger p-value is the test's.
        """
        loss, free = self.read["loss"][self.at], self.model_free()
        gaps, picks = loss[:, 1] - loss[:, 0], np.sign(loss[:, 1] - loss[:, 0])
        best = max(free, key=lambda name: (float(np.mean(free[name])), name))  # named; all of them must be beaten
        mean, low, high = mean_interval(gaps, level=LEVEL)
        p = max(flipped(gaps, self._rng("flips")), *(more_often(picks, signs) for signs in free.values()))
        effect = Estimate(
            name="own text likelier than its twin", value=mean, low=low, high=high, level=LEVEL, n=len(gaps),
            unit="nats a token", method="exact sign flips and exact McNemar against no model; t interval", p=p,
        )  # fmt: skip
        numbers = (
            f"Own texts are likelier than their twins by {effect} nats a token, in {_share(picks)} of {len(gaps)} "
            f"pairs; {best} alone sort {_share(free[best])} rightly (p = {p:.2g})."
        )
        reach = min(_reach(gaps), *(_reach(picks - signs) for signs in free.values()))
        return Shown(VERSIONS, effect, reach, len(gaps), numbers)

    def model_free(self) -> dict[str, FloatArray]:
        """Which of each pair is called the own text without a model: 1 the own, -1 the twin, 0 a tie."""
        words, size = self.read["words"], self.read["bytes"].astype(np.float64)
        # A model may not be outdone by a coin, which sorts nothing.
        free = {"words": np.sign(words[:, 0] - words[:, 1]), "compressed sizes": np.sign(size[:, 1] - size[:, 0]),
                "coins": np.zeros(len(words))}  # fmt: skip
        if "letters" in self.read:
            free["usual letters"] = np.sign(self.read["letters"][:, 0] - self.read["letters"][:, 1])
        return free

    def recited(self) -> FloatArray:
        """Whether a long enough tail was completed to the last token, after any share: ``[pair, version]``."""
        whole = (self.read["kept"][self.at] == 1.0) & (self.read["tail"] >= LONG_ENOUGH)
        return whole.any(axis=2).astype(np.float64)

    def completion(self) -> Shown:
        """How many more own texts than twins are completed exactly."""
        recited = self.recited()
        gaps = recited[:, 0] - recited[:, 1]
        p = more_often(recited[:, 0], recited[:, 1])
        spread = mean_effect(gaps[None, :], level=LEVEL, bounded=True, unit="share of items")
        effect = msgspec.structs.replace(spread, name="own texts completed more than twins", p=p)
        own, twins = (int(recited[:, side].sum()) for side in (0, 1))
        numbers = (
            f"Of {len(gaps)} items {own} are completed to the last of at least {LONG_ENOUGH} tokens, of their twins "
            f"{twins} (p = {p:.2g})."
        )
        return Shown(COMPLETION, effect, _reach(gaps), len(gaps), numbers)

    def detectors(self) -> Iterator[Estimate]:
        """How well published scores sort own texts from twins, and how well no model does."""
        loss, read = -self.read["loss"][self.at], self.read
        known = {
            "loss": loss, "zlib ratio": -read["zlib"][self.at], "Min-K%": read["mink"][self.at],
            "Min-K%++": read["minkpp"][self.at], "words, no model": read["words"],
            "compressed size, no model": -read["bytes"].astype(np.float64),
            **({"usual letters, no model": read["letters"]} if "letters" in read else {}),
        }  # fmt: skip
        for name, scores in known.items():
            yield paired_auc(scores[:, 0], scores[:, 1], name=f"AUROC of {name}")

    def completed(self) -> Iterator[Estimate]:
        """Mean share of the tail that is completed before the first wrong token."""
        kept = self.read["kept"][self.at]
        for side, version in enumerate(("own texts", "twins")[: kept.shape[1]]):
            for at, fraction in enumerate(FRACTIONS):
                mean, low, high = mean_interval(kept[:, side, at], level=LEVEL)
                yield Estimate(
                    name=f"tail of {version} completed after {100 * fraction:.0f} %", value=mean, low=low, high=high,
                    level=LEVEL, n=len(kept), unit="share of the tail", method="t interval",
                )  # fmt: skip


def paired_auc(own: FloatArray, twins: FloatArray, *, name: str) -> Estimate:
    """Probability that an own text scores higher than any twin, ties half; both of an item count as one unit.

    Source: Obuchowski (1997), "Nonparametric analysis of clustered ROC curve data", eq. 3.
    """
    above, below = placements(own, twins)
    value, low, high = mean_interval(above + below - above.mean(), level=LEVEL)
    inside = [None if end is None else min(max(end, 0.0), 1.0) for end in (low, high)]
    return Estimate(
        name=name, value=value, low=inside[0], high=inside[1], level=LEVEL, n=len(own), unit="AUROC",
        method="DeLong's placements, by pairs",
    )  # fmt: skip


def _reach(values: FloatArray) -> float:
    """Standard errors of a mean from 0; ``SURE`` where all values are the same positive number, 0 where none is."""
    error = float(values.std(ddof=1)) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    if error == 0.0:
        return SURE if float(values.mean()) > 0.0 else 0.0
    return float(values.mean()) / error


def _share(signs: FloatArray) -> str:
    """Pairs sorted rightly, ties half, in percent."""
    return f"{100 * float(np.mean((signs + 1) / 2)):.0f} %"
