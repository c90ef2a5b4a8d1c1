"""Pruning: weights set to zero, by size, at random, in a pattern, or by what they add to the layer's outputs."""

import math
from typing import Annotated, ClassVar, final

import torch
from jaxtyping import Bool, Shaped
from msgspec import Meta
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.layer import Layer
from wheeltap.core.settings import Settings
from wheeltap.perturb.base import (
    EVERY_GAUGE,
    Draw,
    HeadMoments,
    InputScale,
    Perturbation,
    Weights,
    at_least_single,
    from_rows,
    grouped,
    to_rows,
    ungrouped,
)
from wheeltap.perturb.ties import Marks, by_place, least, least_by_row


class WeightMask(Perturbation):
    """What all prunings share: the dose is the share of each layer's weights that is removed; biases are kept.

    The share is exact up to rounding to whole weights (inputs, heads), whatever the sizes of the weights: which of
    equally small ones go is said in ``ties``. Weights that are zero already count as removed, and are the first to go
    but in random pruning, so that the share of zeros afterwards is the dose, or what it was where that is more.
    """

    unit = "share of weights removed"
    lowest, highest = 0.0, 1.0


@final
class MagnitudeMask(WeightMask):
    """Sets the given share of each layer's weights, those of smallest magnitude, to zero; biases kept.

    Copies with permuted units lose the same weights; in distribution only where a layer has repeated rows or columns.
    """

    name = "prune"
    version = 2  # since 2 exactly the share is removed where weights are of equal size
    title = "pruning the smallest weights"
    random = False
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "heads", "experts"})

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights with the smallest ones zeroed."""
        weight = weights.weight
        count = round(dose * weight.numel())
        if count == 0:
            return Weights(weight.clone(), None)
        zero = weight.numel() - int(weight.count_nonzero())
        gone = least(weight.abs(), max(count, zero), Marks(weight.reshape(len(weight), -1)).at)
        return Weights(weight.masked_fill(gone, 0.0), None)


@final
class RandomMask(WeightMask):
    """Sets the given share of each layer's weights, drawn at random, to zero; biases kept.

    Each weight is as likely to go as any other, those that are zero already included. What a draw removes at one dose
    it also removes at every larger one. The reference for every other pruning: what does not lose less than this has
    no useful rule. A copy with units added loses the same share of the old ones on average, not in every draw.
    """

    name = "prune-random"
    version = 2  # since 2 exactly the share is removed; before, each weight was with the dose as probability
    title = "pruning weights at random"
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "rescale", "dead", "heads", "experts", "fold"})

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights with the drawn ones zeroed."""
        weight = weights.weight
        seed = seeds.derive(draw.root, "prune", draw.seed, layer.weight)
        level = torch.rand(
            weight.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float32, device="cpu"
        )
        gone = least(level, round(dose * weight.numel()), by_place)
        return Weights(weight.masked_fill(gone.to(weight.device), 0.0), None)


class PatternSettings(Settings, frozen=True, kw_only=True):
    """Settings of pruning in a pattern.

    Attributes:
        m: Of how many consecutive inputs the largest weights are kept.
    """

    m: Annotated[int, Meta(ge=2, le=64)] = 4


@final
class PatternMask(WeightMask):
    """N:M sparsity: of every m consecutive inputs of a unit the n largest weights are kept; biases kept.

    Dose .5 at m = 4 is the 2:4 pattern that sparse tensor cores run. Inputs of a convolution are counted through
    channels and taps, those of an embedding along each token's vector. Of equal weights the first are kept; fewer than
    m inputs at the end keep the same share, rounded up.
    """

    name = "prune-nm"
    version = 2  # since 2 a short group at the end loses its share; before, it kept n of fewer than m
    title = "pruning in a pattern (N:M)"
    random = False
    settings_type: ClassVar[type[Settings]] = PatternSettings

    def require_dose(self, dose: float) -> None:
        """Raises ``UsageError`` if ``dose`` does not remove a whole number of every m weights."""
        super().require_dose(dose)
        m = self.settings.m
        if abs(dose * m - round(dose * m)) > 1e-6:
            raise UsageError(
                "This share of a group cannot be removed.",
                expected=f"a multiple of 1/{m} (m={m})",
                got=f"{dose:g}",
                do=f"Choose 1/{m}, 2/{m}, ... or another m.",
            )

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights with the smallest of each group zeroed."""
        m = self.settings.m
        rows = to_rows(layer, weights.weight)
        groups = grouped(rows.abs(), m)
        kept = torch.full((len(rows), len(groups) // len(rows)), m - round(dose * m), device=rows.device)
        rest = rows.shape[1] % m
        if rest:
            kept[:, -1] = math.ceil(rest - dose * rest - 1e-6)
        kept = kept.reshape(-1, 1)
        gone = _ranks(groups) >= kept
        pruned = rows.masked_fill(ungrouped(gone, like=rows), 0.0)
        return Weights(from_rows(layer, pruned), None)


def _ranks(groups: Shaped[Tensor, "group m"]) -> Shaped[Tensor, "group m"]:
    """How many numbers of its group each number comes after, in falling order; of equal ones the first comes first."""
    places = groups.T.contiguous()
    ranks = torch.zeros(places.shape, dtype=torch.uint8, device=groups.device)
    for later in range(1, len(places)):
        first: Bool[Tensor, "earlier group"] = places[:later] >= places[later]
        ranks[later] += first.sum(0, dtype=torch.uint8)
        ranks[:later] += ~first
    return ranks.T


class InputMask(WeightMask):
    """Pruning by the size of a layer's inputs on the task."""

    random = False
    needs = "inputs"
    invariant_to: ClassVar[frozenset[str]] = frozenset({"permute", "rescale", "heads", "experts", "fold"})

    def accepts(self, layer: Layer) -> bool:
        """All but embeddings: their inputs are tokens, and each alone in its row."""
        return layer.kind != "embedding"


@final
class OutputMask(InputMask):
    """Sets the weights of each unit that add least to its output, by |weight| x rms(input), to zero; biases kept.

    What Wanda does: inputs that are large on the task keep small weights, and each unit loses the same share, rounded
    to whole weights so that the layer loses exactly its share: one weight more in the units where the next one adds
    least, next to the unit's largest. Inputs that are always 0 on the task go first. Embeddings are left as they are,
    and so are layers whose inputs are not known (tied ones, grouped convolutions).

    Source: Sun et al. (2023), "A Simple and Effective Pruning Approach for Large Language Models", arXiv 2306.11695,
    eq. 1.
    """

    name = "prune-wanda"
    version = 2  # since 2 exactly the share is removed, of each unit and of the layer
    title = "pruning the weights that add least"

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights with the least of each unit zeroed."""
        if not isinstance(draw.known, InputScale):
            raise ModelError("Pruning by output needs the size of the layer's inputs.", where=layer.name)
        rows = to_rows(layer, weights.weight)
        share = at_least_single(rows).abs()
        share *= draw.known.rms.to(share)
        gone = least_by_row(share, round(dose * rows.numel()), Marks(rows))
        return Weights(from_rows(layer, rows.masked_fill(gone, 0.0)), None)


@final
class UnitMask(InputMask):
    """Sets all weights with which a layer reads an input to zero, for the inputs that add least to its outputs.

    An input is a unit of the layer before (a channel, for a convolution), so the layer computes as if that unit were
    gone, whatever bias, norm or activation it has; outputs of the network are never removed. What an input adds is its
    share of each output's power on the task, (weight x rms(input))^2, taken over all outputs of the layer. The first
    layer loses inputs of the network, and layers that read a residual stream lose directions of it for themselves
    alone: choose a site to leave them out. Biases are kept; embeddings and layers whose inputs are not known are left
    as they are.

    Source: An et al. (2024), "Fluctuation-based Adaptive Structured Pruning", arXiv 2312.11983, section 4 (Wanda's
    score taken over each column); weighting each output by its own power is ours.
    """

    name = "prune-units"
    version = 2  # since 2 exactly the share is removed where inputs add equally much
    title = "pruning whole units as the next layer reads them"
    unit = "share of each layer's inputs removed"

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights with the columns of the least inputs zeroed."""
        if not isinstance(draw.known, InputScale):
            raise ModelError("Pruning of units needs the size of the layer's inputs.", where=layer.name)
        rows = to_rows(layer, weights.weight)
        inputs = layer.shape[1] if layer.kind == "conv" else layer.fan_in
        count = round(dose * inputs)
        if count == 0:
            return Weights(weights.weight.clone(), None)
        power = at_least_single(rows).square() * draw.known.rms.to(rows.device).square()
        # Of each output's own power, so that the scale on which an output is written does not matter.
        shares = power / power.sum(1, keepdim=True).clamp_min(torch.finfo(power.dtype).tiny)
        added = shares.sum(0).reshape(inputs, -1).sum(1)  # the taps of a convolution are parts of one input
        taps = layer.fan_in // inputs
        # In single precision, so that of what adds equally much not the rounding of the sums decides.
        columns = least(added.float(), count, Marks(rows).columns(taps)).repeat_interleave(taps)
        return Weights(from_rows(layer, rows.masked_fill(columns, 0.0)), None)


@final
class HeadMask(WeightMask):
    """Sets all weights with which an attention layer reads its own heads to zero, for the heads that add least.

    These weights are the output projection's, so the layer computes as if the heads were gone. What head h adds is the
    power of what it writes, the mean square of W_h z_h over the task's places, summed over all outputs: exact, and the
    same in whatever basis the head's values and the residual stream are written. Biases are kept; heads that write
    nothing go first. Layers other than the output projections of attention layers of a known class are left as they
    are.

    Source: Michel, Levy & Neubig (2019), "Are Sixteen Heads Really Better than One?", arXiv 1905.10650 (pruning whole
    heads; their score is the first-order effect on the loss). The power a head adds, as for units, is ours.
    """

    name = "prune-heads"
    version = 2  # since 2 exactly the share is removed where heads add equally much
    title = "pruning whole attention heads"
    unit = "share of each layer's heads removed, rounded to whole heads"
    random = False
    needs = "heads"
    invariant_to: ClassVar[frozenset[str]] = EVERY_GAUGE - {"regroup"}  # heads are then no longer known

    def replace(self, layer: Layer, weights: Weights, dose: float, draw: Draw) -> Weights:
        """The weights with the columns of the least heads zeroed."""
        if not isinstance(draw.known, HeadMoments):
            raise ModelError("Pruning of heads needs the moments of what each head hands on.", where=layer.name)
        rows = to_rows(layer, weights.weight)
        second = draw.known.second.to(rows.device)
        heads, width, _ = second.shape
        count = round(dose * heads)
        if count == 0:
            return Weights(weights.weight.clone(), None)
        by_head = rows.to(second.dtype).reshape(len(rows), heads, width).transpose(0, 1)
        power = ((by_head @ second) * by_head).sum((1, 2))  # the trace of W M W^T
        gone = least(power.float(), count, Marks(rows).columns(width))
        return Weights(from_rows(layer, rows.masked_fill(gone.repeat_interleave(width), 0.0)), None)
