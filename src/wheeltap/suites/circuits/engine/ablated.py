"""What is left of a task when units or edges are ablated: by several definitions, on the same pairs.

Source: Gao et al. 2025, arXiv:2511.13653, section 2.3 and appendix E (mean ablation of what is outside, and of the
circuit); Miller, Chughtai and Saunders 2024, arXiv:2407.08734 (other ablations, other verdicts); Chan et al. 2022,
"Causal scrubbing" (values of other prompts).
"""

from dataclasses import dataclass
from typing import Final, final

import torch
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.typed import to_tensor
from wheeltap.suites.circuits.engine.asking import Asking, other_sides
from wheeltap.suites.circuits.engine.units import Kept, two_sided

ROUNDS: Final = 4
"""Of the search for the most harmful subset: each takes one gradient and flips every unit that it says to."""


@final
@dataclass(frozen=True)
class Ablated:
    """A circuit, held against pairs on which it was not searched.

    Attributes:
        searched: Pairs on which the most harmful subset is searched.
        held: Pairs on which everything is measured; values are means.
        kept: The circuit, ``[part]``.
        root: Of what is drawn.
        by: What random circuits, and the pairs searched, are measured under: ``mean``, ``zero`` or ``patch``.
    """

    searched: Asking
    held: Asking
    kept: Kept
    root: int
    by: str = "mean"

    @property
    def mask(self) -> Tensor:
        """1 for parts of the circuit, ``[part]``."""
        return to_tensor(self.kept.astype("float32")).to(self.held.device)

    def gaps(self, definition: str) -> Tensor:
        """How much higher the right answer's score is under one definition, ``[side, pair]``."""
        if definition == "whole":
            return self.held.gaps(None)
        if definition == "empty":
            return self.held.gaps(torch.zeros_like(self.mask))
        what, _, how = definition.partition(" ")
        if how == "adversarial":
            return self.held.gaps(self.worst())
        return _gaps(self.held, self.mask if what == "keep" else 1.0 - self.mask, how)

    def fitted(self) -> Tensor:
        """With the circuit alone on the pairs searched, ``[side, pair]``."""
        return _gaps(self.searched, self.mask, self.by)

    def subset(self, draw: int) -> Tensor:
        """With a random half of what is outside at its mean, ``[side, pair]``."""
        drawn = seeds.generator(self.root, "subset", draw).random(len(self.kept)) < 0.5
        return self.held.gaps(to_tensor((drawn | self.kept).astype("float32")).to(self.held.device))

    def worst(self) -> Tensor:
        """The circuit and that part of what is outside which does it most harm, ``[part]``; the rest at its mean."""
        fixed, best = self.mask > 0, (-1.0, self.mask)
        mask = self.mask
        for _ in range(ROUNDS):
            loss, slope = self.searched.slope(mask)
            best = max(best, (loss, mask), key=lambda one: one[0])
            changed = torch.where(fixed, self.mask, (slope > 0).to(mask.dtype))
            if torch.equal(changed, mask):
                break
            mask = changed
        return max(best, (mean_loss(self.searched.gaps(mask)), mask), key=lambda one: one[0])[1]

    def random(self, draw: int, *, remove: bool) -> float:
        """Loss with as many parts of each kind as the circuit has, drawn at random, kept (or ablated); nats."""
        rng, drawn = seeds.generator(self.root, "random circuit", draw), self.mask.clone()
        for held in self.held.slices.values():
            drawn[held] = drawn[held][to_tensor(rng.permutation(held.stop - held.start)).to(drawn.device)]
        return mean_loss(_gaps(self.held, 1.0 - drawn if remove else drawn, self.by))


def _gaps(asked: Asking, mask: Tensor, how: str) -> Tensor:
    """With what is not kept at its mean, at zero, or patched from the counterfactual."""
    match how:
        case "zero":
            return asked.zeroed(mask)
        case "patch":
            return asked.patched(mask, other_sides(asked.pairs))
        case _:
            return asked.gaps(mask)


def mean_loss(gaps: Tensor) -> float:
    """Mean cross-entropy of the right one of two answers, nats."""
    return float(two_sided(gaps).mean())
