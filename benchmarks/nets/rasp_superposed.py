"""A compiled net whose directions are squeezed into fewer dimensions than there are, so that they overlap.

What components write is mapped by one matrix; what they read is mapped back by its pseudo-inverse, fitted to the states
of each layer. The fit takes expressions to be independent: else a reader would learn to guess one from another, and the
true circuit would no longer be that of the program.

Source: Lindner et al. 2023, "Tracr: compiled transformers as a laboratory for interpretability", section 5 (compressed
nets; there the matrix is learned); Elhage et al. 2022, "Toy models of superposition".
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from benchmarks.nets.bare_transformer import BareTransformer
from benchmarks.nets.rasp_compile import Compiled
from benchmarks.nets.rasp_programs import examples
from wheeltap.core import seeds
from wheeltap.core.errors import UsageError
from wheeltap.core.typed import to_tensor

ACCURATE: Final = 0.97
"""Share of right classes, over the examples that reads are fitted to, that a chosen width keeps."""

FITTED: Final = 300
"""Examples that reads are fitted to."""

_EVENED: Final = 20
"""Times that directions are made more equal in length and in angle."""

_FLAT: Final = 1e-9
"""Eigenvalues below this share of the largest one are 0."""


def superposed(given: Compiled, *, seed: int = 0, width: int | None = None) -> Compiled:
    """The same net in a residual stream of fewer dimensions; it has the same true circuit, and cross-talk everywhere.

    Args:
        given: As ``compiled`` made it.
        seed: Of the map and of the examples.
        width: Dimensions; if not given, the smallest that keep ``ACCURATE``, all larger ones keeping it too.

    Raises:
        UsageError: If the net's stream is that narrow already, or has been compressed before.
    """
    whole = given.net.shape.width
    if given.lines[-1].stop != whole or (width is not None and not 0 < width < whole):
        raise UsageError(
            "A net can be compressed once, to fewer dimensions than it has.",
            where="benchmarks.nets.rasp_superposed",
            expected=f"a width from 1 to {given.lines[-1].stop - 1}, and a net as compiled",
            got=f"width {width}, a net of width {whole}",
        )
    inputs, classes = examples(given.program, seed=seed, count=FITTED)
    moments = _independent(given, inputs)
    if width is not None:
        return _squeezed(given, moments, seed, width)
    kept = given
    for narrower in range(whole - 1, 0, -1):
        tried = _squeezed(given, moments, seed, narrower)
        if tried.accuracy(inputs, classes) < ACCURATE:
            break
        kept = tried
    return kept


def _independent(given: Compiled, inputs: Tensor) -> list[Tensor]:
    """Of the states that each attention, each MLP and the logits read: second moments ``[line, line]``.

    As they would be if the expressions were independent of each other.
    """
    found = list[Tensor]()
    with torch.no_grad():
        streams = [stream.flatten(0, 1).double() for stream in given.net.streams(inputs)]
    for stream in streams:
        mean, true = stream.mean(0), stream.T @ stream / len(stream)
        moments = torch.outer(mean, mean)
        for lines in given.lines:
            own = slice(lines.start, lines.stop)
            moments[own, own] = true[own, own]
        found.append(moments)
    return found


def _squeezed(given: Compiled, moments: Sequence[Tensor], seed: int, width: int) -> Compiled:
    """With the reads that have the least square error for such moments."""
    old, down = given.net, _spread(seed, given.net.shape.width, width)
    reads = [_inverse(down.T @ held @ down) @ down.T @ held for held in moments]
    new = BareTransformer(replace(old.shape, width=width))
    weights = {name: weight.double() for name, weight in old.state_dict().items()}
    for name in ("embed", "position"):
        weights[f"{name}.weight"] = weights[f"{name}.weight"] @ down
    for layer in range(old.shape.layers):
        block = f"blocks.{layer}"
        for name in ("attention.output", "mlp.fall"):
            weights[f"{block}.{name}.weight"] = down.T @ weights[f"{block}.{name}.weight"]
            weights[f"{block}.{name}.bias"] = weights[f"{block}.{name}.bias"] @ down
        for name in ("query", "key", "value"):
            weights[f"{block}.attention.{name}.weight"] @= reads[2 * layer].T
        weights[f"{block}.mlp.rise.weight"] @= reads[2 * layer + 1].T
    weights["unembed.weight"] @= reads[-1].T
    new.load_state_dict({name: weight.float() for name, weight in weights.items()})
    return replace(given, net=new.eval())


def _inverse(moments: Tensor) -> Tensor:
    return torch.linalg.pinv(moments, rtol=_FLAT, hermitian=True)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


def _spread(seed: int, lines: int, width: int) -> Tensor:
    """Random unit vectors ``[line, dimension]`` that are nearly orthogonal.

    Source: Tropp et al. 2005, "Designing structured tight frames via an alternating projection method", section 3.
    """
    drawn = seeds.generator(seed, "rasp", "superposed", lines, width).standard_normal((lines, width))
    for _ in range(_EVENED):
        left, _, right = np.linalg.svd(drawn / np.linalg.norm(drawn, axis=1, keepdims=True), full_matrices=False)
        drawn = left @ right
    return to_tensor(drawn / np.linalg.norm(drawn, axis=1, keepdims=True))
