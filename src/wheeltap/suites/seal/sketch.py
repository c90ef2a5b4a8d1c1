"""Sketches: a few numbers of a large output, by random projections."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.errors import ModelError
from wheeltap.core.inputs import Inputs, answered, as_scores, by_name, chosen, count
from wheeltap.core.typed import named_modules, to_tensor

Floats = NDArray[np.float64]

DIRECTIONS: Final = 16
"""Projections of an output."""

BLOCK_DIRECTIONS: Final = 4
"""Projections of a block's output."""

MAX_BLOCKS: Final = 48
"""Blocks whose outputs a seal keeps: of more, evenly spread ones, the last among them."""


@final
@dataclass(frozen=True)
class Projections:
    """What one pass gave.

    Attributes:
        output: ``[input, direction]``.
        blocks: ``[block, input, direction]``, of the first inputs.
        order: Blocks in the order in which they were first called.
    """

    output: Floats
    blocks: Floats
    order: tuple[str, ...]

    def of(self, name: str) -> Floats:
        """What one block gave, ``[input, direction]``."""
        return self.blocks[self.order.index(name)]

    def only(self, names: Sequence[str]) -> "Projections":
        """The same of some blocks alone."""
        at = [self.order.index(name) for name in names]
        return Projections(self.output, self.blocks[at], tuple(names))


@final
@dataclass(frozen=True)
class PassOutputs:
    """What is looked at in a pass.

    Attributes:
        seed: Of the projections.
        blocks: Module paths.
        few: Inputs of which blocks are looked at.
        batch: Inputs in one call of the model.
    """

    seed: int
    blocks: tuple[str, ...] = ()
    few: int = 0
    batch: int = 16


def look(model: nn.Module, inputs: Inputs, how: PassOutputs) -> Projections:
    """One pass over the inputs, without gradients.

    Raises:
        ModelError: If the model does not give scores for each input, or they are not finite.
    """
    outputs, found = list[Floats](), _Found()
    with torch.no_grad(), ExitStack() as undo:
        for name, module in _places(model, how.blocks):
            undo.callback(module.register_forward_hook(partial(found.take, name)).remove)
        for start in range(0, count(inputs), how.batch):
            part = chosen(inputs, slice(start, start + how.batch))
            found.begin(count(part), wanted=how.few - start)
            outputs.append(sketched(scores(model, part), how.seed, DIRECTIONS))
    return found.seen(np.concatenate(outputs), how)


def scores(model: nn.Module, inputs: Inputs) -> Tensor:
    """What a model gives for some inputs, ``[input, number]`` or ``[input, place, number]``: all that it gives.

    Raises:
        ModelError: If it cannot read them, does not give one row for each, or what it gives is not finite.
    """
    try:
        if next(model.parameters(), None) is not None:
            output = answered(model, inputs)
        else:  # a runtime without weights of its own
            output = model(inputs) if isinstance(inputs, Tensor) else model(**inputs)
    except Exception as error:
        raise ModelError("The model cannot read the sealed inputs.", expected="inputs of the model that was sealed",
                         got=f"{type(error).__name__}: {error}"[:160],
                         do="Verify a copy of the model that was sealed.") from error  # fmt: skip
    named = by_name(output)
    held: Any = output if named is None else tuple(named.values())
    several = cast("tuple[Any, ...]", held if isinstance(held, tuple) else ())
    others = [part for part in several if isinstance(part, Tensor) and part.is_floating_point()]
    try:
        first = as_scores(output)
    except ModelError:  # of several parts any may be the scores: all are compared
        if not others:
            raise
        first = others[0]
    given = [first, *(part for part in others if part is not first)]
    rows = [part for part in given if part.ndim and len(part) == count(inputs)]
    if not rows or rows[0] is not first:
        raise ModelError("The model does not answer each input.", expected=f"{count(inputs)} rows of output",
                         got=str(list(first.shape)))  # fmt: skip
    if not first.is_floating_point() or not all(bool(torch.isfinite(part).all()) for part in rows):
        raise ModelError("The model's output is no finite score.", expected="finite floating-point numbers",
                         got="NaN, infinity or whole numbers")  # fmt: skip
    if len(rows) == 1:
        return first
    return torch.cat([part.reshape(len(part), -1).to(first.dtype) for part in rows], 1)


def sketched(values: Tensor, seed: int, directions: int) -> Floats:
    """Random projections of each row, ``[row, direction]``: of the size of a row's root mean square.

    First along the last axis (units), then over everything that is left, so that few random numbers are needed.
    """
    wide = values if values.dtype == torch.float64 else values.float()
    wide = wide.reshape(len(wide), -1, wide.shape[-1] if wide.ndim > 1 else 1)
    narrow = wide @ _signs(seed, "units", (wide.shape[2], directions), wide) / wide.shape[2] ** 0.5
    if narrow.shape[1] == 1:
        rows = narrow[:, 0]
    else:
        flat = narrow.reshape(len(narrow), -1)
        rows = flat @ _signs(seed, "places", (flat.shape[1], directions), flat) / flat.shape[1] ** 0.5
    return rows.cpu().numpy().astype(np.float64)


def _signs(seed: int, name: str, shape: tuple[int, int], like: Tensor) -> Tensor:
    rng = seeds.generator(seed, "signs", name, *shape)
    return to_tensor(2.0 * rng.integers(2, size=shape).astype(np.float32) - np.float32(1.0), like=like)


def blocks_of(model: nn.Module, names: tuple[str, ...]) -> tuple[str, ...]:
    """Module paths of at most ``MAX_BLOCKS`` blocks: of what is no module of its own, the module that holds it."""
    known = {path for path, _ in named_modules(model)}
    paths = dict.fromkeys(name if name in known else name.rpartition(".")[0] for name in names)
    blocks = [path for path in paths if path and path in known]
    count = min(len(blocks), MAX_BLOCKS)
    return tuple(blocks[index * (len(blocks) - 1) // max(count - 1, 1)] for index in range(count))


class _Found:
    """What blocks gave in this pass."""

    def __init__(self) -> None:
        self.rows, self.wanted = 0, 0
        self.held: dict[str, list[Tensor]] = {}
        self._called: set[str] = set()

    def begin(self, rows: int, *, wanted: int) -> None:
        """Another call of the model, with so many inputs, of which the first ``wanted`` are looked at."""
        self.rows, self.wanted = rows, max(wanted, 0)
        self._called.clear()

    def take(self, name: str, _module: nn.Module, _args: Any, output: Any) -> None:
        """A block's output, the first time that it is called for some inputs."""
        first = cast("Any", output[0] if isinstance(output, tuple) and output else output)
        if name in self._called or not self.wanted or not isinstance(first, Tensor):
            return
        self._called.add(name)
        if first.ndim and len(first) == self.rows:
            self.held.setdefault(name, []).append(first[: self.wanted].detach().clone())

    def seen(self, output: Floats, how: PassOutputs) -> Projections:
        """The sketches of all of them."""
        few = min(len(output), how.few)
        whole = {name: torch.cat(parts) for name, parts in self.held.items() if sum(map(len, parts)) == few}
        blocks = [sketched(held, how.seed, BLOCK_DIRECTIONS) for held in whole.values()]
        return Projections(output, np.array(blocks).reshape(len(blocks), few, BLOCK_DIRECTIONS), tuple(whole))


def _places(model: nn.Module, names: tuple[str, ...]) -> list[tuple[str, nn.Module]]:
    """The modules at some paths; also where the model is in a wrapper, under a path that only begins in another way."""
    known = dict(named_modules(model))
    found = list[tuple[str, nn.Module]]()
    for name in names:
        paths = [name] if name in known else [path for path in known if path.endswith(f".{name}")]
        if len(paths) == 1:
            found.append((name, known[paths[0]]))
    return found
