"""Inputs of a seal: drawn at random from the task, with a seed."""

import math
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.core.inputs import Inputs, chosen, count, longest, tensors
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_tensor
from wheeltap.suites.seal.record import UniformInputs

LONGEST: Final = 32
"""Tokens of an input, at most."""

MAX_BYTES: Final = 24 * 1024
"""Size of all inputs that a seal keeps, at most; larger ones are drawn again from a seed."""

_MIN_INPUTS: Final = 8
"""Inputs of the task of which a seal has room, or else all are drawn again from a seed."""

_MAX_EXAMPLES: Final = 4096
"""Examples that inputs are drawn from: a task may be too large to be read as a whole."""

_MAX_NUMBERS: Final = 2**26
_MAX_AXES: Final = 16
_MAX_SIZE: Final = 1e38


def draw(subject: Subject, task: BaseTask, *, total: int, seed: int) -> tuple[Inputs, UniformInputs | None]:
    """Inputs at random from the task, as many as wanted and as a seal has room for; how they are drawn if too large.

    Tokens are cut to sequences of equal length. Inputs too large to keep are not those of the task, but numbers evenly
    spread over their range.

    Raises:
        DataError: If the task has no inputs that can be kept.
    """
    rng = seeds.generator(seed, "sealed inputs")
    first = next(iter(task.moments())).inputs
    is_tokens = isinstance(first, Tensor) and first.ndim == 2 and not first.is_floating_point()
    if is_tokens and any(layer.kind == "embedding" for layer in subject.layers):
        inputs: Inputs = _sequences(subject, task, total=total, rng=rng)
    elif isinstance(first, Tensor | dict):
        every = _examples(task, cast("Inputs", first))
        inputs = chosen(every, torch.from_numpy(rng.permutation(count(every))[:total]))  # pyright: ignore[reportUnknownMemberType]
    else:
        raise DataError("The task's inputs cannot be kept in a seal.", where=task.name,
                        expected="a tensor, or tensors by name", got=type(first).__name__)  # fmt: skip
    each = sum(part[:1].numel() * 4 for part in tensors(inputs).values())
    if isinstance(inputs, Tensor) and inputs.is_floating_point() and each * _MIN_INPUTS > MAX_BYTES:
        shape = (total, *inputs.shape[1:])
        uniform = UniformInputs(seeds.derive(seed, "uniform"), shape, float(inputs.min()), float(inputs.max()))
        return drawn_again(uniform), uniform
    return chosen(inputs, slice(max(MAX_BYTES // max(each, 1), 1))), None


def _examples(task: BaseTask, first: Inputs) -> Inputs:
    """Inputs of the task's first examples, without those of another shape, as longer batches of texts have."""
    shape = {name: part.shape[1:] for name, part in tensors(first).items()}
    batches = list[dict[str, Tensor]]()
    for batch in task.moments():
        parts = tensors(cast("Inputs", batch.inputs))
        if {name: part.shape[1:] for name, part in parts.items()} == shape:
            batches.append(parts)
        if sum(map(count, batches)) >= _MAX_EXAMPLES:
            break
    joined = {name: torch.cat([batch[name] for batch in batches]) for name in shape}
    return joined[""] if isinstance(first, Tensor) else joined


def drawn_again(how: UniformInputs) -> Tensor:
    """These inputs, ``[input, ...]``: the same numbers each time.

    Raises:
        FileFormatError: If they would be too many or too large, or are no numbers between two.
    """
    lengths = 0 < len(how.shape) <= _MAX_AXES and all(0 < length <= _MAX_NUMBERS for length in how.shape)
    if not lengths or math.prod(how.shape) > _MAX_NUMBERS or not -_MAX_SIZE <= how.low <= how.high <= _MAX_SIZE:
        raise FileFormatError(
            "The seal's inputs cannot be drawn.", expected=f"at most {_MAX_NUMBERS:,} numbers between two",
            got=f"{how.shape} between {how.low:g} and {how.high:g}"[:80],
        )  # fmt: skip
    numbers = seeds.generator(how.seed, "input").uniform(how.low, how.high, size=how.shape)
    return to_tensor(numbers.astype(np.float32))


def _sequences(subject: Subject, task: BaseTask, *, total: int, rng: np.random.Generator) -> Tensor:
    """Tokens of the task's examples, one after another, cut into sequences of equal length, ``[sequence, token]``."""
    limit = longest(subject.model)
    length = LONGEST if limit is None else min(LONGEST, limit[0])
    flat, wanted = list[Tensor](), total * length
    for batch in task.moments():
        if not isinstance(batch.inputs, Tensor) or sum(map(len, flat)) >= wanted:
            break
        flat.append(batch.inputs[torch.from_numpy(rng.permutation(len(batch.inputs)))].flatten())  # pyright: ignore[reportUnknownMemberType]
    tokens = torch.cat(flat)
    if len(tokens) < length:
        tokens = tokens.repeat(-(-length // len(tokens)))
    return tokens[: len(tokens) // length * length].reshape(-1, length)[:total]
