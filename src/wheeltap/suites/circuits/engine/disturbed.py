"""Disturbing the weights of a circuit, and as many others: does the same cost the task more inside than outside?"""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.typed import to_tensor
from wheeltap.suites.circuits.engine.units import Kept, UnitNet

_BITS: Final = 4


@final
class Inside:
    """Which weights lie between units of a circuit, and which others there are. The net must be a copy: it is changed.

    Args:
        net: Of a copy of the model.
        kept: The circuit.
    """

    def __init__(self, net: UnitNet, kept: Kept) -> None:
        self.net = net
        mask = to_tensor(np.asarray(kept))
        self._wires = net.wires
        inside = [wire.nonzero & mask[wire.rows][:, None] & mask[wire.columns] for wire in self._wires]
        self._inside = torch.cat([one.flatten() for one in inside])
        nonzero = torch.cat([wire.nonzero.flatten() for wire in self._wires])
        self._others = to_array(nonzero & ~self._inside)
        self.count = int(self._inside.sum())

    def others(self, *, root: int, draw: int) -> Tensor:
        """As many weights that are not 0 outside of the circuit, drawn at random: flags over all weights in order."""
        rng = seeds.generator(root, "other weights", draw)
        taken = rng.choice(self._others, size=min(self.count, len(self._others)), replace=False)
        flags = torch.zeros(len(self._inside), dtype=torch.bool)
        flags[to_tensor(taken)] = True
        return flags

    @property
    def own(self) -> Tensor:
        """Weights of the circuit: flags over all weights in order."""
        return self._inside

    @contextmanager
    def disturbed(self, kind: str, flags: Tensor, *, noise: float, rng: np.random.Generator) -> Generator[None]:
        """While the block runs, the weights that are flagged are disturbed."""
        held, start = list[tuple[Tensor, Tensor]](), 0
        try:
            for wire in self._wires:
                weight = wire.weight(self.net.model)
                own = flags[start : start + weight.numel()].view(weight.shape).to(weight.device)
                start += weight.numel()
                held.append((weight, weight.clone()))
                weight[own] = _changed(kind, weight, noise=noise, rng=rng)[own]
            yield
        finally:
            for weight, before in held:
                weight.copy_(before)


def _changed(kind: str, weight: Tensor, *, noise: float, rng: np.random.Generator) -> Tensor:
    """A matrix, disturbed as a whole."""
    match kind:
        case "pruning":
            return torch.zeros_like(weight)
        case "4-bit rounding":
            step = weight.abs().amax(1, keepdim=True).clamp(min=1e-30) / (2 ** (_BITS - 1) - 1)
            return (weight / step).round() * step
        case _:
            drawn = to_tensor(rng.standard_normal(weight.shape).astype(np.float32), like=weight)
            return weight * (1.0 + noise * drawn)


def to_array(flags: Tensor) -> NDArray[np.int64]:
    """Where flags are set."""
    return flags.nonzero()[:, 0].numpy()
