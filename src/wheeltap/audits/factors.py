"""What the audit ``decodable`` knows of a factor: layer by layer, is it told, and do the outputs hang on it?"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, final

import msgspec
import numpy as np

from wheeltap.audits.base import AuditSettings, Values
from wheeltap.audits.limits import Count, Margin, Share
from wheeltap.records import Estimate
from wheeltap.stats.among import above_draws, share_of
from wheeltap.stats.effect import mean_effect, score_interval


class DecodableSettings(AuditSettings, frozen=True, kw_only=True):
    """What is looked at, and thresholds; the first seven are the reading's own.

    Attributes:
        factors: Names of factors, separated by commas; all that the probe knows where empty.
        layers: Module paths whose outputs are looked at, separated by commas; chosen by the model where empty.
        most: Layers at most, evenly spaced.
        draws: Random subspaces for each factor and layer.
        matched: How many of them are tried once more, at the size of the factor's change.
        controls: Random labellings.
        per_class: Fewest examples of each class in either half.
        decodable: A factor counts as decodable if its probe is right more often than this above what is known without
            the layer (the most frequent class; a probe for random labels), as a share of the examples.
        sight: A factor is called not decodable only if so much could have been seen; else it stays open.
        margin: Without the factor's subspace the outputs must move less than this share of what they move without the
            subspace they hang on most: then the factor counts as unused.
        null_margin: The null control fails if random labels are told by more than this with ``null_level``.
        null_level: Confidence with which a control must fail before the audit is void.
    """

    factors: str = ""
    layers: str = ""
    most: Count = 12
    draws: Annotated[int, msgspec.Meta(ge=8)] = 32
    matched: Count = 8
    controls: Annotated[int, msgspec.Meta(ge=2)] = 16
    per_class: Annotated[int, msgspec.Meta(ge=2)] = 5
    decodable: Margin = 0.1
    sight: Margin = 0.3
    margin: Share = 0.1
    null_margin: Margin = 0.05
    null_level: Share = 0.999


@final
@dataclass(frozen=True)
class Layer:
    """What was read of one factor on one layer."""

    name: str
    arrays: dict[str, Values]
    majority: Values
    settings: DecodableSettings

    def __getitem__(self, name: str) -> Values:
        return self.arrays[name]

    @property
    def erased(self) -> bool:
        """Whether anything was taken away."""
        return float(self["rank"]) > 0.0

    @cached_property
    def told(self) -> Estimate:
        """How much more often the probe is right than without the layer: the lesser of two margins."""
        right, margin = self["correct"], self.settings.decodable
        gains = (
            mean_effect(
                (right - self.majority)[None], margin=margin, bounded=True, name="above_majority", unit="share"
            ),
            mean_effect(right[None] - self["control"], margin=margin, name="selectivity", unit="share"),
        )
        return max((_upwards(gain, margin) for gain in gains), key=lambda gain: (gain.p or 0.0, -(gain.value or 0.0)))

    @cached_property
    def use(self) -> Estimate:
        """How far the outputs move without the factor, as a share of how far without what they hang on most."""
        return self.share("erased", name="use", below=self.settings.margin)

    def share(self, which: str, *, name: str, below: float = 0.0, level: float = 0.95) -> Estimate:
        """An effect as a share of that of the steepest subspace; of draws, their mean."""
        effect = self[which].mean(0) if self[which].ndim > 1 else self[which]
        label, unit = f"{name}: {self.name}", "share of the most"
        return share_of(effect, self["steepest"], below=below, level=level, name=label, unit=unit)

    @property
    def accuracy(self) -> Estimate:
        """Share of right answers of the probe."""
        return score_interval(self["correct"], bounded=True, name=f"accuracy: {self.name}", unit="share")


def _upwards(test: Estimate, margin: float) -> Estimate:
    """The test of "more than the margin": far below it is no evidence."""
    return test if (test.value or 0.0) > margin else msgspec.structs.replace(test, p=1.0)


@final
@dataclass(frozen=True)
class Factor:
    """What was read of one factor.

    Attributes:
        status: 0 if it was measured.
        explained: ``[2, example]``: squared distances of the targets from their mean, and from their class's.
        layers: All that were looked at.
        alpha: Of the plan.
        labels: ``[example]``, from 0.
        others: Labels of the other factors.
    """

    name: str
    status: int
    classes: int
    explained: Values
    layers: tuple[Layer, ...]
    alpha: float
    labels: Values
    others: dict[str, Values]

    @property
    def best(self) -> Layer:
        """Where it is told best."""
        return min(self.layers, key=lambda layer: (layer.told.p or 0.0, -float(layer["correct"].mean())))

    @cached_property
    def decodable(self) -> tuple[Layer, ...]:
        """Layers off which it can be read, by Bonferroni's rule over the layers."""
        return tuple(layer for layer in self.layers if self._p(layer) <= self.alpha)

    def _p(self, layer: Layer) -> float:
        return min(1.0, len(self.layers) * (1.0 if layer.told.p is None else layer.told.p))

    @property
    def most_used(self) -> Layer:
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
    def beyond(self) -> float:
        """P-value of "in no layer where it is decodable do the outputs hang on it more than on random subspaces"."""
        erased = [layer for layer in self.decodable if layer.erased]
        if not erased:
            return 1.0
        one = np.array([layer["erased"].mean() for layer in erased])
        return above_draws(one, np.stack([layer["random"].mean(1) for layer in erased]))

    @property
    def used(self) -> bool:
        """Whether the outputs surely hang on it, more than on random subspaces."""
        return self.beyond <= self.alpha

    @cached_property
    def moves(self) -> bool:
        """Whether the outputs surely move more than the margin without it, in some layer where it can be read.

        So may be what they do without random subspaces, where a layer is narrow and all of it is used.
        """
        level = 1.0 - self.alpha / max(len(self.decodable), 1)
        lows = [layer.share("erased", name="use", level=level).low for layer in self.decodable if layer.erased]
        margin = self.layers[0].settings.margin
        return any(low is not None and low > margin for low in lows)

    @property
    def correlation(self) -> Estimate:
        """Share of the targets' variance that goes with the factor."""
        return _explained(*self.explained, name="variance_of_targets")

    @property
    def nearest(self) -> tuple[str, Estimate] | None:
        """The other factor that goes with it most, and the share of that one's variance that does."""
        told = [(name, _explained(*_distances(self.labels, other), name=name)) for name, other in self.others.items()]
        return max(told, key=lambda one: one[1].value or 0.0) if told else None


def _distances(labels: Values, other: Values) -> tuple[Values, Values]:
    """Squared distances of another factor's class indicators from their mean, and from that of each label."""
    wanted = (other[:, None] == np.unique(other)).astype(float)
    means = np.stack([wanted[labels == label].mean(0) for label in np.unique(labels)])
    own = means[np.searchsorted(np.unique(labels), labels)]
    return np.square(wanted - wanted.mean(0)).sum(1), np.square(wanted - own).sum(1)


def _explained(total: Values, within: Values, *, name: str) -> Estimate:
    """One minus what is left within classes, as a share of all variance."""
    left = share_of(within, total, name=name, unit="share")
    value, low, high = (None if end is None else max(1.0 - end, 0.0) for end in (left.value, left.high, left.low))
    return msgspec.structs.replace(left, value=value, low=low, high=high, p=None)
