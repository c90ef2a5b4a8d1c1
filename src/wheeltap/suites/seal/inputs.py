"""Which inputs a seal keeps: those under which most weights, if changed, change the output beyond its tolerance."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, FileFormatError, ModelError
from wheeltap.core.inputs import Inputs, chosen, count, longest, tensors
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_tensor
from wheeltap.engine.apply import differentiable
from wheeltap.suites.seal.record import UniformInputs
from wheeltap.suites.seal.sketch import DIRECTIONS, projected, scores

LONGEST: Final = 32
"""Tokens of an input, at most."""

BYTES: Final = 24 * 1024
"""Of all inputs of a seal, at most."""

WEIGHTS: Final = 4096
"""Weights whose effect is looked at, spread over all layers."""

ENOUGH: Final = 8.0
"""Effect of a weight's sign, in tolerances, beyond which more of it is no better."""

Watch = Callable[[str, int, int], None]
"""Called with what is under way, how much of it is done, and of how much."""


@final
@dataclass(frozen=True)
class Choice:
    """Inputs of a seal.

    Attributes:
        inputs: The most sensitive first.
        drawn: How these are drawn again, where they are too large to be kept.
        own: How many are examples of the task.
        reached: Share of the weights looked at whose sign, flipped, moves the output beyond the tolerance.
        first: The same with the first five inputs.
        unknown: Share of them that no output has a gradient of: counted as not moving any.
    """

    inputs: Inputs
    drawn: UniformInputs | None
    own: int
    reached: float
    first: float
    unknown: float


@final
@dataclass(frozen=True)
class Pool:
    """Inputs to choose from.

    Attributes:
        inputs: All of them.
        own: Which are examples of the task, ``[input]``.
        drawn: How they are drawn again, where they are too large to be kept.
        ranked: Whether those under which most weights are seen are taken first; else they are taken as they come.
    """

    inputs: Inputs
    own: NDArray[np.bool_]
    drawn: UniformInputs | None = None
    ranked: bool = True

    @property
    def each(self) -> int:
        """Bytes that an input takes in a seal."""
        return size_of(chosen(self.inputs, slice(1))) if self.drawn is None else _SEEDED

    def fitting(self, keep: int) -> int:
        """How many of so many inputs a seal takes, by their own size."""
        return min(keep, count(self.inputs), max(BYTES // max(self.each, 1), 1))

    def at_random(self, keep: int, *, seed: int) -> "Pool":
        """Some of them in an order at random: what chosen ones are compared with."""
        rows = seeds.generator(seed, "at random").permutation(len(self.own))[:keep]
        some = chosen(self.inputs, torch.from_numpy(rows))  # pyright: ignore[reportUnknownMemberType]
        return Pool(some, self.own[rows], _some(self.drawn, [int(row) for row in rows]), ranked=False)


def candidates(subject: Subject, task: BaseTask, *, most: int, seed: int) -> Pool:
    """Examples of the task and as many drawn inputs of their kind.

    Raises:
        DataError: If the task has no inputs that can be kept.
    """
    rng = seeds.generator(seed, "candidates")
    first = next(iter(task.moments())).inputs
    if isinstance(first, Tensor) and first.ndim == 2 and not first.is_floating_point() and _tokens(subject):
        own = _sequences(subject, task, most=most, rng=rng)
    elif isinstance(first, Tensor | dict):
        whole = cast("Inputs", first)
        own = chosen(whole, torch.from_numpy(rng.permutation(count(whole))[:most]))  # pyright: ignore[reportUnknownMemberType]
    else:
        raise DataError("The task's inputs cannot be kept in a seal.", where=task.name,
                        expected="a tensor, or tensors by name", got=type(first).__name__)  # fmt: skip
    if not isinstance(own, Tensor):
        return Pool(own, np.ones(count(own), dtype=np.bool_))
    if own.is_floating_point() and own[0].numel() * 4 * _FEWEST > BYTES:
        how = drawing(own, seed=seed)
        return Pool(drawn_again(how), np.zeros(len(how.seed), dtype=np.bool_), how)
    drawn = _drawn(subject, own, rng)
    return Pool(torch.cat([own, drawn]), np.arange(len(own) + len(drawn)) < len(own))


_FEWEST: Final = 8
"""Inputs that a seal has room for; of larger ones, those are taken that can be drawn again."""

_POOL: Final = 24

_SEEDED: Final = 80
"""Bytes of an input that is drawn again: its seed and its range."""


def drawing(like: Tensor, *, seed: int) -> UniformInputs:
    """How inputs are drawn that are too large to be kept: over the range of examples, half of them over three times."""
    least, most = float(like.min()), float(like.max())
    far = [at % 2 * (most - least) for at in range(_POOL)]
    numbers = tuple(seeds.derive(seed, "drawn", at) for at in range(_POOL))
    return UniformInputs(
        numbers, tuple(like.shape[1:]), tuple(least - one for one in far), tuple(most + one for one in far)
    )


def drawn_again(how: UniformInputs) -> Tensor:
    """These inputs, ``[input, ...]``: the same numbers each time.

    Raises:
        FileFormatError: If they would be too many or too large, or are no numbers between two.
    """
    lengths = 0 < len(how.shape) <= _AXES and all(0 < one <= _LARGEST for one in how.shape)
    size = math.prod(how.shape) * len(how.seed) if lengths else 0
    between = all(-_FAR <= low <= high <= _FAR for low, high in zip(how.least, how.most, strict=False))
    if not 0 < size <= _LARGEST or not between or not len(how.seed) == len(how.least) == len(how.most):
        raise FileFormatError(
            "The seal's inputs cannot be drawn.",
            expected=f"at most {_LARGEST:,} numbers, of each input between two",
            got=f"{len(how.seed)} of {how.shape}"[:80],
        )
    rows = [
        seeds.generator(seed, "input").uniform(least, most, size=how.shape).astype(np.float32)
        for seed, least, most in zip(how.seed, how.least, how.most, strict=True)
    ]
    return to_tensor(np.stack(rows))


_LARGEST: Final = 2**26
_AXES: Final = 16
_FAR: Final = 1e38


def _tokens(subject: Subject) -> bool:
    """Whether it reads tokens, as far as its layers say."""
    return any(layer.kind == "embedding" for layer in subject.layers)


def _sequences(subject: Subject, task: BaseTask, *, most: int, rng: np.random.Generator) -> Tensor:
    """Tokens of the task's examples, one after another, cut into sequences of equal length, ``[sequence, token]``."""
    limit = longest(subject.model)
    length = LONGEST if limit is None else min(LONGEST, limit[0])
    flat, wanted = list[Tensor](), most * length
    for batch in task.moments():
        if not isinstance(batch.inputs, Tensor) or sum(map(len, flat)) >= wanted:
            break
        flat.append(batch.inputs[torch.from_numpy(rng.permutation(len(batch.inputs)))].flatten())  # pyright: ignore[reportUnknownMemberType]
    tokens = torch.cat(flat)
    if len(tokens) < length:
        tokens = tokens.repeat(-(-length // len(tokens)))
    return tokens[: len(tokens) // length * length].reshape(-1, length)[:most]


def _drawn(subject: Subject, like: Tensor, rng: np.random.Generator) -> Tensor:
    """Inputs that no task has: spread evenly over the range of numbers, half of them over three times it; or tokens.

    Some units are silent on every example: only what no example is makes them answer.
    """
    if like.is_floating_point():
        least, most = float(like.min()), float(like.max())
        far = (np.arange(len(like)) % 2 * (most - least)).reshape(-1, *[1] * (like.ndim - 1))
        values = rng.uniform(least - far, most + far, size=tuple(like.shape))
        return to_tensor(values.astype(np.float32)).to(like.dtype)
    tokens = [layer.shape[0] for layer in subject.layers if layer.kind == "embedding"]
    highest = max([int(like.max()) + 1, *tokens[:1]])
    return torch.from_numpy(rng.integers(highest, size=tuple(like.shape))).to(like.dtype)  # pyright: ignore[reportUnknownMemberType]


def size_of(inputs: Inputs) -> int:
    """Bytes that inputs take in a seal."""
    return sum(part.numel() * 4 for part in tensors(inputs).values())


def choose(
    subject: Subject, pool: Pool, *, keep: int, unit: float, seed: int,
    watch: Watch = lambda what, done, total: None,
) -> Choice:  # fmt: skip
    """The inputs under which most weights are seen.

    A weight is seen by an input if flipping its sign would, to first order, move the sealed projections by more than
    their tolerance. Inputs are taken one by one, each the one that adds most; without gradients, as they come.

    Args:
        subject: In single precision.
        pool: See ``candidates``.
        keep: How many.
        unit: Tolerance of a projection.
        seed: Of the projections.
        watch: Called with progress.
    """
    inputs, own = pool.inputs, pool.own
    found = _reach(subject, inputs, seed=seed, watch=watch)
    reach = np.minimum(np.nan_to_num(found) / unit, ENOUGH)
    best, taken, first = np.zeros(reach.shape[1]), list[int](), 0.0
    for at in range(keep):
        gain = np.maximum(reach, best).sum(1)
        gain[taken] = -1.0
        taken.append(int(gain.argmax()) if pool.ranked else at)
        best = np.maximum(best, reach[taken[-1]])
        if at < _FIRST:
            first = float((best > 1.0).mean())
    rows = torch.tensor(taken)
    return Choice(
        chosen(inputs, rows), _some(pool.drawn, taken), int(own[taken].sum()), float((best > 1.0).mean()), first,
        float(np.isnan(found).all(0).mean()),
    )  # fmt: skip


def _some(how: UniformInputs | None, rows: list[int]) -> UniformInputs | None:
    if how is None:
        return None
    seed, least, most = (tuple(part[at] for at in rows) for part in (how.seed, how.least, how.most))
    return UniformInputs(cast("tuple[int, ...]", seed), how.shape, least, most)


_FIRST: Final = 5


def _reach(subject: Subject, inputs: Inputs, *, seed: int, watch: Watch) -> NDArray[np.float64]:
    """First-order change of a projection if each of some weights changes its sign, ``[input, weight]``.

    NaN where the output has no gradient of a weight: nothing depends on it, or a part of the forward gives none.
    """
    held = [subject.parameter(layer.weight) for layer in subject.layers]
    places = _places([part.numel() for part in held], seed)
    mix = to_tensor(2.0 * seeds.generator(seed, "mix").integers(2, size=DIRECTIONS).astype(np.float32) - 1.0)
    found = list[NDArray[np.float64]]()
    before = [part.requires_grad for part in held]
    try:
        for part in held:
            part.requires_grad_(True)
        with differentiable(subject.model), torch.enable_grad():
            for at in range(count(inputs)):
                watch("choosing inputs", at, count(inputs))
                found.append(_effects(subject.model, chosen(inputs, slice(at, at + 1)), held, places, (mix, seed)))
    finally:
        for part, needed in zip(held, before, strict=True):
            part.requires_grad_(needed)
    return np.array(found)


def _effects(
    model: nn.Module, one: Inputs, held: list[Tensor], places: list[Tensor], how: tuple[Tensor, int]
) -> NDArray[np.float64]:
    mix, seed = how
    try:
        along = projected(scores(model, one), seed, DIRECTIONS)
        total = (along @ mix.to(along)).sum()
        slopes = cast("tuple[Tensor | None, ...]", torch.autograd.grad(total, held, allow_unused=True))
    except (ModelError, RuntimeError):  # a forward without gradients, or one that refuses them
        with torch.no_grad():
            scores(model, one)
        slopes = (None,) * len(held)
    effects = [
        torch.full((len(place),), torch.nan)
        if slope is None
        else 2.0 * (slope.flatten()[place] * part.detach().flatten()[place]).abs()
        for slope, part, place in zip(slopes, held, places, strict=True)
    ]
    # Of one direction; all of them together have this many times its square.
    return torch.cat([effect.cpu().float() for effect in effects]).numpy().astype(np.float64) / DIRECTIONS**0.5


def _places(sizes: list[int], seed: int) -> list[Tensor]:
    rng = seeds.generator(seed, "places")
    return [torch.from_numpy(rng.integers(size, size=max(WEIGHTS // len(sizes), 1))) for size in sizes]  # pyright: ignore[reportUnknownMemberType]
