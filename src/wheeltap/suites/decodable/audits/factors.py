"""What the audit ``decodable`` knows of a factor: layer by layer, is it decodable, and do the outputs depend on it?"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from math import comb, floor
from typing import final

import msgspec
import numpy as np

from wheeltap.audits.base import Margin, Share
from wheeltap.audits.case import Values
from wheeltap.core.records import Estimate
from wheeltap.stats.among import above_draws, share_of
from wheeltap.stats.crossed import crossed
from wheeltap.stats.effect import mean_effect, score_interval
from wheeltap.stats.family import holm
from wheeltap.suites.decodable.specs import STATUSES, DecodableSettings


class DecodableAuditSettings(DecodableSettings, frozen=True, kw_only=True):
    """Thresholds.

    Attributes:
        decodable: A factor counts as decodable if its probe is right more often than this above what is known without
            the layer (the most frequent class; a probe for random labels), as a share of the examples.
        sight: A factor is called not decodable only if so much could have been seen; else it stays open.
        margin: Without the factor's subspace the outputs must move less than this share of what they move without the
            subspace they depend on most: then the factor counts as unused.
        null_margin: The null control fails if random labels are decoded by more than this with ``null_level``.
        null_use: The null control fails if every random subspace moves the outputs by more than this share of the
            most, though to first order all but nothing was to be expected.
        null_expected: Share that counts as all but nothing.
        null_level: Confidence with which a control must fail before the audit is void.
    """

    decodable: Margin = 0.1
    sight: Margin = 0.3
    margin: Share = 0.1
    null_margin: Margin = 0.05
    null_use: Share = 0.5
    null_expected: Share = 0.05
    null_level: Share = 0.999


@final
@dataclass(frozen=True)
class FactorLayer:
    """What was read of one factor on one layer."""

    name: str
    arrays: dict[str, Values]
    majority: Values
    settings: DecodableAuditSettings

    def __getitem__(self, name: str) -> Values:
        return self.arrays[name]

    @property
    def place(self) -> str:
        """What it is called in words: by itself a name such as ``2`` reads like a number."""
        return f"layer {self.name}"

    @property
    def erased(self) -> bool:
        """Whether anything was ablated."""
        return float(self["rank"]) > 0.0

    @property
    def drawn(self) -> Values:
        """Mean effect of each random subspace ``[draw]``."""
        return self["moved"][1 + len(self["held"]) :]

    def in_place(self, at: int) -> "FactorLayer":
        """The same layer, had held-out random subspace ``at`` been the factor's."""
        held = {"erased": self["held"][at], "moved": np.append(self["moved"][1 + at], self["moved"][1:])}
        return replace(self, arrays=self.arrays | held)

    @cached_property
    def gain(self) -> Estimate:
        """How much more often the probe is right than without the layer: the lesser of two margins."""
        right, margin = self["correct"], self.settings.decodable
        gains = (
            mean_effect(
                (right - self.majority)[None], margin=margin, bounded=True, name="above_majority", unit="share"
            ),
            mean_effect(right[None] - self["control"], margin=margin, name="selectivity", unit="share"),
        )
        # Far below the margin is no evidence of more than it.
        upwards = [g if (g.value or 0.0) > margin else msgspec.structs.replace(g, p=1.0) for g in gains]
        return max(upwards, key=lambda gain: (gain.p or 0.0, -(gain.value or 0.0)))

    @property
    def gain_df(self) -> int:
        """Degrees of freedom of the gain; of that over control labels few, as these are."""
        over = self.majority if self.gain.name == "above_majority" else self["control"]
        return crossed(self["correct"][None] - over).df

    @cached_property
    def use(self) -> Estimate:
        """How far the outputs move without the factor, as a share of how far without what they depend on most."""
        return self.share("erased", name="use", below=self.settings.margin)

    def share(self, which: str, *, name: str, below: float = 0.0, level: float = 0.95) -> Estimate:
        """An effect as a share of that of the steepest subspace; of draws, their mean."""
        effect = self[which].mean(0) if self[which].ndim > 1 else self[which]
        label, unit = f"{name}: {self.place}", "share of the most"
        return share_of(effect, self["steepest"], below=below, level=level, name=label, unit=unit)

    def unseen(self, share: float, *, alpha: float) -> bool:
        """Whether neither its test alone nor its interval speaks for a probe that is right so much more often."""
        high, p = self.gain.high, self.gain.p
        return (p is None or p > alpha) and high is not None and high <= share

    def surely(self, which: str, share: float, *, level: float) -> bool:
        """Whether an effect is surely more than a share of that of the steepest subspace."""
        low = self.share(which, name=which, level=level).low
        return low is not None and low > share

    @property
    def loud(self) -> bool:
        """Whether random subspaces move the outputs much: those in the factor's place surely, and all others too.

        A few may, where slopes say little of what a whole subspace is worth; all of them do not.
        """
        settings, count = self.settings, len(self["held"])
        if float(self["moved"][1:].min()) <= settings.null_use * float(self["steepest"].mean()):
            return False
        places = (self.in_place(at) for at in range(count))
        return all(place.surely("erased", settings.null_use, level=settings.null_level) for place in places)

    @cached_property
    def left(self) -> Estimate:
        """Share of right answers of a new probe, once the factor's subspace is gone."""
        return score_interval(self["left"], bounded=True, name=f"accuracy afterwards: {self.place}", unit="share")

    @property
    def accuracy(self) -> Estimate:
        """Share of right answers of the probe."""
        return score_interval(self["correct"], bounded=True, name=f"accuracy: {self.place}", unit="share")


@final
@dataclass(frozen=True)
class DecodedFactor:
    """What was read of one factor.

    Attributes:
        status: One of ``STATUSES``.
        explained: ``[2, example]``: squared distances of the targets from their mean, and from their class's.
        layers: All that were looked at.
        alpha: Of the plan.
        labels: ``[example]``, from 0.
        others: Labels of the other factors.
        copies: Examples left out because another one has their input.
        rivals: ``beyond`` of the other factors that are held against random subspaces.
    """

    name: str
    status: str
    classes: int
    explained: Values
    layers: tuple[FactorLayer, ...]
    alpha: float
    labels: Values
    others: dict[str, Values]
    copies: int = 0
    rivals: tuple[float, ...] = ()

    @property
    def measured(self) -> bool:
        """Whether it was measured, on any layer."""
        return self.status == STATUSES[0]

    @property
    def best(self) -> FactorLayer:
        """The layer off which it is decoded best."""
        return min(self.layers, key=lambda layer: (layer.gain.p or 0.0, -float(layer["correct"].mean())))

    @cached_property
    def decodable(self) -> tuple[FactorLayer, ...]:
        """Layers off which it can be read, by Bonferroni's rule over the layers."""
        return tuple(layer for layer in self.layers if self._p(layer) <= self.alpha)

    def _p(self, layer: FactorLayer) -> float:
        return min(1.0, len(self.layers) * (1.0 if layer.gain.p is None else layer.gain.p))

    @property
    def most_used(self) -> FactorLayer:
        """The layer, of those off which it can be read, that speaks least for its being unused."""
        return max(self.decodable, key=lambda layer: (layer.use.p or 0.0, layer.use.value or 0.0))

    @property
    def unused(self) -> float:
        """P-value of "not decodable anywhere, or used in one of the layers where it is decodable".

        Source: Berger (1982), intersection-union test: all must reject, so no correction over the layers.
        """
        uses = [1.0 if layer.use.p is None or not layer.erased else layer.use.p for layer in self.decodable]
        return max(*uses, min(self._p(layer) for layer in self.layers))

    @cached_property
    def erased(self) -> tuple[FactorLayer, ...]:
        """Layers off which it can be read and where its subspace was ablated."""
        return tuple(layer for layer in self.decodable if layer.erased)

    @cached_property
    def beyond(self) -> float:
        """P-value of "in no layer where it is decodable do the outputs depend on it more than on random subspaces"."""
        if not self.erased:
            return 1.0
        one = np.array([layer["moved"][0] for layer in self.erased])
        return above_draws(one, np.stack([layer.drawn for layer in self.erased]))

    @cached_property
    def corrected(self) -> float:
        """The same, by Holm's rule over the factors of the subject."""
        own = holm([self.beyond, *self.rivals])[0]
        return 1.0 if own is None else own

    @property
    def used(self) -> bool:
        """Whether the outputs surely depend on it, more than on random subspaces."""
        return self.corrected <= self.alpha

    @property
    def perhaps(self) -> bool:
        """Whether it might be used after all: alone it would count as used, or no random subspace does as much."""
        return self.beyond <= max(self.alpha, 1.0 / (1.0 + self.draws))

    @property
    def remaining(self) -> FactorLayer | None:
        """A layer off which it can be read and surely still can once it should be gone: few examples for the width."""
        for layer in self.erased:
            usual = float(layer.majority.mean()) + layer.settings.decodable
            if layer.left.low is not None and layer.left.low > usual:
                return layer
        return None

    @property
    def draws(self) -> int:
        """Random subspaces that it is held against."""
        return len(self.layers[0].drawn)

    @property
    def reachable(self) -> bool:
        """Whether it would count as used if no random subspace did as much."""
        return (1 + len(self.rivals)) / (1.0 + self.draws) <= self.alpha * (1.0 + 1e-9)

    @cached_property
    def moves(self) -> bool:
        """Whether the outputs surely move more than the margin without it, in some layer where it can be read.

        So may be what they do without random subspaces, where a layer is narrow and all of it is used. By Bonferroni's
        rule over layers and factors.
        """
        level = 1.0 - self.alpha / max(len(self.decodable), 1) / (len(self.rivals) + 1)
        margin = self.layers[0].settings.margin
        return any(layer.surely("erased", margin, level=level) for layer in self.erased)

    @cached_property
    def held(self) -> tuple["DecodedFactor", ...]:
        """The same factor, had each of the held-out random subspaces been its own: nulls, judged as it is."""
        count = len(self.layers[0]["held"])
        return tuple(replace(self, layers=tuple(layer.in_place(at) for layer in self.layers)) for at in range(count))

    @property
    def chance(self) -> float:
        """Probability that all of them come out as used, at most: then all are among the largest of all draws."""
        # A rounding's breadth more, as in the test itself.
        largest = floor(self.alpha * (1 + self.draws) + 1e-9) - 1 + len(self.held)
        return comb(largest, len(self.held)) / comb(self.draws + len(self.held), len(self.held))

    @property
    def wide(self) -> tuple[FactorLayer, ...]:
        """Layers where random subspaces should move the outputs hardly at all, to first order."""
        return tuple(layer for layer in self.erased if float(layer["expected"]) <= layer.settings.null_expected)

    @property
    def correlation(self) -> Estimate:
        """Share of the targets' variance that goes with the factor."""
        return _explained(*self.explained, name="variance_of_targets")

    @property
    def nearest(self) -> tuple[str, Estimate] | None:
        """The other factor that goes with it most, and the share of that one's variance that does."""
        found: list[tuple[str, Estimate]] = []
        classes, member = np.unique(self.labels, return_inverse=True)
        for name, other in self.others.items():
            # Squared distances of its class indicators from their mean, and from that of each class of this factor.
            wanted = (other[:, None] == np.unique(other)).astype(float)
            means = np.stack([wanted[self.labels == label].mean(0) for label in classes])
            total, within = np.square(wanted - wanted.mean(0)).sum(1), np.square(wanted - means[member]).sum(1)
            found.append((name, _explained(total, within, name=name)))
        return max(found, key=lambda one: one[1].value or 0.0, default=None)


def together(factors: Iterable[DecodedFactor]) -> dict[str, DecodedFactor]:
    """Factors of one subject, each knowing how many others are held against random subspaces, and with what result."""
    known = {factor.name: factor for factor in factors}
    tested = {name: factor.beyond for name, factor in known.items() if factor.measured and factor.erased}
    return {
        name: replace(factor, rivals=tuple(p for other, p in tested.items() if other != name))
        for name, factor in known.items()
    }


def _explained(total: Values, within: Values, *, name: str) -> Estimate:
    """One minus what is left within classes, as a share of all variance."""
    left = share_of(within, total, name=name, unit="share")
    value, low, high = (None if end is None else max(1.0 - end, 0.0) for end in (left.value, left.high, left.low))
    return msgspec.structs.replace(left, value=value, low=low, high=high, p=None)
