"""What the audit ``decodable`` says of one factor."""

from dataclasses import dataclass
from typing import final

import msgspec

from wheeltap.core.records import Estimate
from wheeltap.stats.effect import mean_effect
from wheeltap.suites.decodable.audits.factors import DecodableAuditSettings, Factor, Layer

_SIZES = ("the factor's subspace", "the probe's directions", "the steepest subspace", "random subspaces")


@final
@dataclass(frozen=True)
class Words:
    """Sentences about one factor of one subject."""

    subject: str
    factor: Factor
    settings: DecodableAuditSettings

    def too_narrow(self) -> str:
        """No layer has as many directions as the factor needs."""
        return (
            f"Every layer has too few directions for the {self.factor.classes} classes of {self.factor.name}: ablating "
            "its subspace would ablate everything."
        )

    def not_decodable(self, least: float | None, *, surely: bool) -> str:
        """As far as could be seen."""
        name, best = self.factor.name, self.factor.best
        start = f"{name} is not linearly decodable in {self.subject}; other codes are not tested"
        start = start if surely else f"There are too few examples to tell whether {name} is decodable"
        could = least is not None and least < 1.0
        seen = f"{least:.2f} would have been seen (4 times out of 5)" if could else "hardly anything could be seen"
        return (
            f"{start}. {self._probe(best)}, which is {best.gain} more than what is known without the layer: not shown "
            f"to be more than {self.settings.decodable:g} in any of {len(self.factor.layers)} layers; {seen}."
        )

    def unused(self) -> str:
        """Decodable, and the outputs do not depend on it."""
        return (
            f"{self.factor.name} is decodable, but the outputs of {self.subject} hardly depend on it. "
            f"{self._without()}, shown to be less than {self.settings.margin:g} of that. {self._decodable()} "
            f"{self._afterwards()} {self._beside()} {self._limits()}"
        )

    def used(self) -> str:
        """Decodable, and used."""
        return (
            f"{self.factor.name} is decodable in {self.subject}, and used. {self._without()}, more than without random "
            f"subspaces ({self._p()}). {self._decodable()} {self._beside()} {self._correlated()}"
        )

    def moves(self) -> str:
        """Decodable, and surely not unused; but random subspaces do as much."""
        return (
            f"{self.factor.name} is decodable in {self.subject}, and not unused. {self._without()}, shown to be "
            "more than "
            f"{self.settings.margin:g} of that, but not shown to be more than without random subspaces ({self._p()}): "
            f"{self._why()}. {self._decodable()} {self._beside()} {self._correlated()}"
        )

    def open(self, seen: float | None) -> str:
        """Decodable; used or not stays open."""
        start = f"{self.factor.name} is decodable; whether {self.subject} uses it is undecided."
        if not self.factor.most_used.erased:
            return f"{start} The outputs have no slope there, so what they depend on is not known. {self._decodable()}"
        few = f": {self._too_few()}" if self._too_few() else ""
        rest = f"{self._decodable()} {self._beside()}"
        if self.factor.perhaps and self.factor.unused <= self.factor.alpha:
            return (
                f"{start} {self._without()}, surely less than {self.settings.margin:g} of that, but perhaps more than "
                f"without random subspaces (alone p {self.factor.beyond:.2g}; {self._p()}){few}. {rest}"
            )
        least = 0.0 if seen is None else self.settings.margin - seen
        could = f"a share of {least:.2g} or less would have counted as unused"
        could = could if least > 0.0 else "even one that nothing depends on could have stayed undecided"
        return (
            f"{start} {self._without()}, not shown to be less than {self.settings.margin:g} of that nor more, and not "
            f"surely more than without random subspaces ({self._p()}){few}. With so many examples {could}. {rest}"
        )

    def _without(self) -> str:
        """What the outputs do without it."""
        layer = self.factor.most_used
        return (
            f"Without the subspace that encodes it the outputs move {layer.use} of what they move without the steepest "
            f"subspace to first order (at {layer.place})"
        )

    def _afterwards(self) -> str:
        """How much of the factor was left, and what that means for its use."""
        layer = self.factor.remaining or self.factor.most_used
        said = (
            f"Afterwards a new probe at {layer.place} is right in {layer.left} of them (most frequent class "
            f"{layer.majority.mean():.2f})"
        )
        if self.factor.remaining is None:
            return f"{said}."
        return f"{said}: with these examples the subspace is known only in part, and what was left of it may be used."

    def _probe(self, layer: Layer) -> str:
        copies = self.factor.copies
        left_out = f" ({copies} were left out, as others have the same inputs)" if copies else ""
        return f"A linear probe at {layer.place} is right in {layer.accuracy} of the examples it has not seen{left_out}"

    def _p(self) -> str:
        factors = len(self.factor.rivals) + 1
        corrected = "" if factors == 1 else f", corrected for {factors} factors"
        return f"p {self.factor.corrected:.2g}{corrected}; {self.factor.draws} draws"

    def _why(self) -> str:
        """Why a factor that surely moves the outputs does not do so more than random subspaces."""
        narrow = "the layer is narrow, and they depend on much of it"
        return self._too_few() or (f"alone p {self.factor.beyond:.2g}" if self.factor.perhaps else narrow)

    def _too_few(self) -> str:
        """That the comparison with random subspaces could not have come out; nothing where it could."""
        if self.factor.reachable:
            return ""
        return (
            f"so few draws cannot show more, whatever the factor does (set draws to {self.factor.enough} or more; "
            "more than the margin still counts)"
        )

    def _decodable(self) -> str:
        best, where = self.factor.best, self.factor.decodable
        return (
            f"{self._probe(best)} ({best['control'].mean():.2f} for random labels, {best.majority.mean():.2f} for the "
            f"most frequent class); it is shown to be decodable from {len(where)} of {len(self.factor.layers)} layers."
        )

    def _beside(self) -> str:
        """Random subspaces, sizes and the projection, at the same layer."""
        layer = self.factor.most_used
        random, matched = (layer.share(which, name="").value or 0.0 for which in ("random", "matched"))
        sizes = layer["sizes"]
        return (
            f"Random subspaces of rank {int(layer['rank'])} move them {random:.3f} of that, and {matched:.3f} once "
            f"their change is as large (the change is {sizes[0]:.2f} of the layer's spread, {sizes[3]:.2f} for random "
            f"ones, {sizes[2]:.2f} for the steepest)."
        )

    def _correlated(self) -> str:
        return f"{self._explains()}; the use of a correlated factor counts here too."

    def _explains(self) -> str:
        """What the factor goes with."""
        nearest = self.factor.nearest
        other = "" if nearest is None else f", and {nearest[1]} of that of {nearest[0]}, more than of other factors"
        return f"The factor explains {self.factor.correlation} of the variance of the targets{other}"

    def _limits(self) -> str:
        return (
            "This does not prove that the network never uses it: a linear code was ablated at one layer at a time; "
            f"what later layers compute again, and nonlinear codes, are not tested. {self._explains()}."
        )


def of_null(
    settings: DecodableAuditSettings, worst: Estimate, *, used: list[int], ranked: list[Factor], wide: list[Layer]
) -> str:
    """What random subspaces in the place of the factor's did.

    Args:
        settings: Of the audit.
        worst: Mean use of those that moved the outputs most.
        used: How many of each factor's came out as used.
        ranked: Factors whose random subspaces would prove a fault if all of them came out as used.
        wide: Layers where they would if all of them moved the outputs much.
    """
    said = [
        f"For each factor {settings.held} random subspaces took the place of its own: they move the outputs by "
        f"{worst} of the most, where they move them most"
    ]
    if ranked:
        chance = sum(factor.chance for factor in ranked)
        said.append(
            f"{sum(used)} of {settings.held * len(used)} came out as used; the audit is void if all of one factor's do "
            f"(chance {chance:.1g} where nothing is wrong)"
        )
    if wide:
        most = max(float(layer["expected"]) for layer in wide)
        said.append(
            f"To first order they should move the outputs {most:.2g} of the most at most; the audit is void if they "
            f"and all other random ones are shown to move them more than {settings.null_use:g} of it"
        )
    return f"{'. '.join(said)}."


def estimates(factor: Factor) -> tuple[Estimate, ...]:
    """Numbers of one factor, layer by layer, and all of the layer where it is used most.

    Only the first estimate of a finding is tested.
    """
    found: list[Estimate] = [factor.best.gain, factor.correlation]
    found += [] if factor.nearest is None else [_named(factor.nearest[1], f"variance of {factor.nearest[0]}")]
    for layer in factor.layers:
        found.append(layer.accuracy)
        if layer.erased:
            found += [layer.share("erased", name="use"), layer.share("random", name="use of random subspaces")]
    return (*found, *_erased(factor.most_used)) if factor.most_used.erased else tuple(found)


def _erased(layer: Layer) -> list[Estimate]:
    """What was measured where the subspace was ablated."""
    unit = "nats of KL, or share of the outputs' variance"
    shares = [
        layer.share("matched", name="use of random subspaces as large"),
        layer.share("projected", name="use without the probe's directions"),
    ]
    effects = [
        mean_effect(
            layer[which].reshape(-1, layer[which].shape[-1]), name=f"moved by {which}: {layer.place}", unit=unit
        )
        for which in ("erased", "steepest", "random")
    ]
    lost = mean_effect(layer["lost"][None], name=f"score lost: {layer.place}", unit="score")
    sizes = [
        _plain(f"size of the change, {what}: {layer.place}", float(size), unit="share of the layer's spread")
        for what, size in zip(_SIZES, layer["sizes"], strict=True)
    ]
    angles = [
        _plain(f"angle to the steepest subspace, {what}: {layer.place}", float(angle), unit="degrees")
        for what, angle in zip(("the factor's", "mean of random ones"), layer["angles"], strict=True)
    ]
    return [*shares, *effects, lost, layer.left, *sizes, *angles]


def _named(estimate: Estimate, name: str) -> Estimate:
    return msgspec.structs.replace(estimate, name=name)


def _plain(name: str, value: float, *, unit: str) -> Estimate:
    return Estimate(
        name=name, value=value, low=None, high=None, level=0.95, n=1, unit=unit,
        method="of the ablated subspaces; no interval",
    )  # fmt: skip
