"""Whether other weights compute the same: shown by what blocks give, or by weights that cannot change alone."""

from collections.abc import Sequence
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.inputs import Inputs, chosen
from wheeltap.core.typed import to_tensor
from wheeltap.seal.looked import Looked
from wheeltap.seal.record import Seal
from wheeltap.seal.sketch import DIRECTIONS, projected, scores
from wheeltap.seal.tensors import Compared
from wheeltap.seal.values import Matched

_LOOSE: Final = 4.0
"""Tolerances that a moment may be off, for it was not measured how far harmless variation moves it."""

_MOVED: Final = 1e-2
"""Share of its size that a block's output moves at least where its units are in another order."""

_SEEN: Final = 100.0
"""Tolerances by which a changed weight would move the outputs if nothing made up for it."""

_READ: Final = 0.5
"""Share of a tensor's numbers that the inputs read at least; of a table of tokens they read few rows."""

_FEW: Final = 4
"""Inputs that this is asked on."""


def rewritten(seal: Seal, looked: Looked, compared: Compared, about: tuple[Matched, nn.Module, Inputs]) -> bool:
    """Whether a model with other weights, whose outputs agree, is shown to compute the same in another way.

    Args:
        seal: Of the model.
        looked: What was seen: outputs agree.
        compared: What changed.
        about: Its tensors in their places, the model, and the sealed inputs.
    """
    return compared.another or _reordered(seal, looked) or _made_up_for(seal, looked, compared, about)


def _reordered(seal: Seal, looked: Looked) -> bool:
    """Whether each block gives the same numbers as when it was sealed, and one of them in quite another order."""
    sealed, seen, moved = looked.stored.seen, looked.seen, 0.0
    blocks, moments = sealed.blocks.floats(), sealed.moments.floats()
    for at, (name, loose) in enumerate(zip(seal.body.blocks, seal.body.tolerances.blocks, strict=True)):
        if name not in seen.order:
            continue
        own = seen.order.index(name)
        if np.abs(seen.moments[own] - moments[at]).max() > _LOOSE * loose * _size(moments[at]):
            return False
        moved = max(moved, float(np.abs(seen.blocks[own] - blocks[at]).max()) / _size(blocks[at]))
    return moved > _MOVED


def _size(numbers: np.ndarray) -> float:
    return max(float(np.sqrt(np.mean(np.square(numbers)))), 1e-30)


def _made_up_for(seal: Seal, looked: Looked, compared: Compared, about: tuple[Matched, nn.Module, Inputs]) -> bool:
    """Whether two tensors or more changed, each of which would move the outputs by far, to first order, if alone.

    So are gains folded into the next layer, or heads in another order, where no block departs. Damage in what the
    inputs do not read is not: slopes are 0 there.
    """
    found, model, inputs = about
    held = [found.held[name] for name in compared.changed]
    parameters = {id(part) for part in model.parameters()}
    if len(held) == 1 or compared.others or not all(id(part) in parameters for part in held):
        return False
    unit = seal.body.tolerances.output * _size(looked.stored.seen.output.floats())
    try:
        slopes = _slopes(model, inputs, held, seed=seal.body.seed)
    except RuntimeError:  # a kernel without slopes, or weights that were made in inference mode
        return False
    return all(
        float((slope != 0.0).double().mean()) > _READ
        and float(slope.double().square().sum().sqrt()) * compared.relative[name] * _rms(part) > _SEEN * unit
        for name, slope, part in zip(compared.changed, slopes, held, strict=True)
    )


def _rms(part: Tensor) -> float:
    return float(part.detach().double().square().mean().sqrt())


def _slopes(model: nn.Module, inputs: Inputs, held: Sequence[Tensor], *, seed: int) -> list[Tensor]:
    """Slopes of a sum of the sealed numbers, as large as one of them, by some weights; 0 where none reads them."""
    wanted = [part.requires_grad for part in held]
    try:
        for part in held:
            part.requires_grad_(True)
        with torch.enable_grad():
            numbers = projected(scores(model, chosen(inputs, slice(_FEW))), seed, DIRECTIONS)
            signs = seeds.generator(seed, "slopes").choice([-1.0, 1.0], size=tuple(numbers.shape))
            total = (numbers * to_tensor(signs, like=numbers)).sum() / numbers.numel() ** 0.5
            slopes = cast("Sequence[Tensor | None]", torch.autograd.grad(total, held, allow_unused=True))
    finally:
        for part, before in zip(held, wanted, strict=True):
            part.requires_grad_(before)
    return [torch.zeros_like(part) if slope is None else slope for slope, part in zip(slopes, held, strict=True)]
