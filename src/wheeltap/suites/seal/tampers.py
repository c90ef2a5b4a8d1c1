"""Changes of a copy of a model, one function each: those that a seal must detect, and those that it must let pass."""

from collections.abc import Callable
from typing import Final, cast

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap import gauge, perturb
from wheeltap.core.errors import ModelError
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import copied
from wheeltap.engine.apply import Disturbance, differentiable
from wheeltap.engine.units import probe_run

RATE: Final = 1e-3
"""Learning rate of one step of gradient descent."""

BATCH: Final = 32
"""Examples of that step."""

SCALES: Final = (0.25, 0.5, 0.9, 1.1, 2.0, 4.0)
"""Wrong factors of a matrix."""

Tamper = Callable[[Subject, BaseTask, np.random.Generator], nn.Module]
"""Returns a changed copy of the subject's model, and leaves the model as it is."""


def _perturbed(name: str, dose: float) -> Tamper:
    """All weights perturbed."""

    def change(subject: Subject, task: BaseTask, rng: np.random.Generator) -> nn.Module:
        with Disturbance(subject, perturb.create(name), WHOLE) as under_way:
            under_way.apply(dose, root=int(rng.integers(2**31)), seed=0)
            return copied(subject.model)

    return change


def step(subject: Subject, task: BaseTask, rng: np.random.Generator) -> nn.Module:
    """One step of gradient descent on some examples."""
    model = copied(subject.model)
    weights = list(model.requires_grad_(True).parameters())
    rows = torch.from_numpy(rng.permutation(len(task.targets))[:BATCH])  # pyright: ignore[reportUnknownMemberType]
    with differentiable(model), torch.enable_grad():
        loss = task.loss(model, rows)
        slopes = cast("tuple[Tensor | None, ...]", torch.autograd.grad(loss, weights, allow_unused=True))
    model.requires_grad_(False)
    for part, slope in zip(weights, slopes, strict=True):
        part.sub_(0.0 if slope is None else RATE * slope)
    return model


_INTEGERS: Final = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_MANTISSA: Final = {torch.float32: 23, torch.bfloat16: 7, torch.float16: 10, torch.float64: 52}


def _bit_flipped(*, sign: bool) -> Tamper:
    """One bit of one weight other than 0 flipped: its sign, or one of its mantissa."""

    def change(subject: Subject, task: BaseTask, rng: np.random.Generator) -> nn.Module:
        model = copied(subject.model)
        matrices = _matrices(model)
        sizes = np.array([part.numel() for part in matrices])
        while True:
            matrix = matrices[int(rng.choice(len(sizes), p=sizes / sizes.sum()))].data
            flat = matrix.reshape(-1)  # a copy, where the matrix is not contiguous
            index = int(rng.integers(len(flat)))
            if float(flat[index]) != 0.0:
                break
        bit = 8 * flat.dtype.itemsize - 1 if sign else int(rng.integers(_MANTISSA[flat.dtype]))
        bits = flat[index : index + 1].clone().view(_INTEGERS[flat.dtype.itemsize])
        flat[index] = (bits ^ (torch.ones_like(bits) << bit)).view(flat.dtype)[0]
        matrix.copy_(flat.view(matrix.shape))
        return model

    return change


def _matrices(model: nn.Module) -> list[nn.Parameter]:
    return [part for part in model.parameters() if part.ndim > 1]


def scale(subject: Subject, task: BaseTask, rng: np.random.Generator) -> nn.Module:
    """One matrix times a wrong factor."""
    model = copied(subject.model)
    matrices = _matrices(model)
    matrices[int(rng.integers(len(matrices)))].data.mul_(SCALES[int(rng.integers(len(SCALES)))])
    return model


def zeroed(subject: Subject, task: BaseTask, rng: np.random.Generator) -> nn.Module:
    """One matrix of zeros."""
    model = copied(subject.model)
    matrices = _matrices(model)
    matrices[int(rng.integers(len(matrices)))].data.zero_()
    return model


def _reparametrized(*gauges: str) -> Tamper:
    """A copy with the same function, by as many of these gauges as the model has."""

    def change(subject: Subject, task: BaseTask, rng: np.random.Generator) -> nn.Module:
        run = probe_run(task, subject.model)
        family = gauge.find(subject.model, run)
        if isinstance(family, gauge.Refusal):
            raise ModelError("No reparametrized copy can be made.", where=subject.name, got=family.because)
        offered = [name for name in gauges if name in family.offers]
        made = gauge.describe(family, *(offered or gauges), seed=int(rng.integers(2**31)))
        return gauge.twin(subject.model, made, run, family=family)

    return change


def _stored(dtype: torch.dtype) -> Tamper:
    """All weights stored in another kind of number."""
    return lambda subject, task, rng: copied(subject.model).to(dtype)


def matrices_float16(subject: Subject, task: BaseTask, rng: np.random.Generator) -> nn.Module:
    """Matrices rounded to float16, as GGUF files hold them; the rest unchanged."""
    model = copied(subject.model)
    for part in _matrices(model):
        part.data.copy_(part.data.half())
    return model


def resharded(subject: Subject, task: BaseTask, rng: np.random.Generator) -> nn.Module:
    """Written to two safetensors files in another order, and read from them."""
    from safetensors.torch import load, save

    model = copied(subject.model)
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    for start in (1, 0):
        names = [*tensors][start::2]
        file = save({name: tensors[name].detach().contiguous().clone() for name in names})
        for name, part in load(file).items():
            tensors[name].data.copy_(part)
    return model


def wrapped(subject: Subject, task: BaseTask, rng: np.random.Generator) -> nn.Module:
    """Inside a wrapper that only calls it."""
    return nn.Sequential(copied(subject.model)).eval()


TAMPERS: Final[dict[str, Tamper]] = {
    "noise-0.002": _perturbed("relative", 2e-3),
    "sign": _bit_flipped(sign=True),
    "mantissa": _bit_flipped(sign=False),
    "zeroed": zeroed,
    "scale": scale,
    "step": step,
    "8-bit": _perturbed("quantize", 8),
    "pruned": _perturbed("prune", 0.1),
    "twin": _reparametrized("permute", "rescale"),
    "cancel": _reparametrized("cancel"),
    "bfloat16": _stored(torch.bfloat16),
    "float16": _stored(torch.float16),
    "matrices-float16": matrices_float16,
    "resharded": resharded,
    "wrapped": wrapped,
}
"""By name: see ``wheeltap.suites.seal.specs``."""
