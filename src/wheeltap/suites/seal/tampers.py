"""Changes of a model, one function each: those that a seal must see, and those that it must let pass."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal, cast, final

import numpy as np
import torch
from torch import Tensor, nn

from wheeltap import gauge, perturb
from wheeltap.core.errors import ModelError
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import copied, named_modules
from wheeltap.engine.apply import Disturbance, differentiable
from wheeltap.engine.units import probe_run
from wheeltap.suites.seal.tensors import Kind

RATE: Final = 1e-3
"""Of one step of gradient descent."""

BATCH: Final = 32

RANK: Final = 4

SCALES: Final = (0.25, 0.5, 0.9, 1.1, 2.0, 4.0)
"""Of a matrix whose scale is wrong."""

LOST: Final = (0.005, 0.1)
"""Share of the numbers that a truncated file lacks, between these."""


@final
@dataclass(frozen=True)
class Ground:
    """What is changed.

    Attributes:
        subject: The sealed model; it is left as it is.
        task: Its examples.
    """

    subject: Subject
    task: BaseTask

    def copy(self) -> nn.Module:
        """A copy to change."""
        return copied(self.subject.model)


@final
@dataclass(frozen=True)
class ChangedCopy:
    """A changed copy.

    Attributes:
        model: It.
        at: Parameters that changed, where these are of one or two blocks alone.
        kind: What the change should be called; empty where no word is expected.
    """

    model: nn.Module
    at: tuple[str, ...] = ()
    kind: Kind = ""


Tamper = Callable[[Ground, np.random.Generator], ChangedCopy]


# ---- disturbances of all weights ------------------------------------------------------------------------------


def _disturbed(name: str, dose: float, kind: Kind = "", **settings: int) -> Tamper:
    def change(ground: Ground, rng: np.random.Generator) -> ChangedCopy:
        disturbance = perturb.create(name, dict(settings))
        with Disturbance(ground.subject, disturbance, WHOLE) as under_way:
            under_way.apply(dose, root=int(rng.integers(2**31)), seed=0)
            return ChangedCopy(ground.copy(), kind=kind)

    return change


def step(ground: Ground, rng: np.random.Generator) -> ChangedCopy:
    """One step of gradient descent on some examples."""
    model, total = ground.copy(), len(ground.task.targets)
    held = list(model.parameters())
    for part in held:
        part.requires_grad_(True)
    rows = torch.from_numpy(rng.permutation(total)[:BATCH])  # pyright: ignore[reportUnknownMemberType]
    with differentiable(model), torch.enable_grad():
        loss = ground.task.loss(model, rows)
        slopes = cast("tuple[Tensor | None, ...]", torch.autograd.grad(loss, held, allow_unused=True))
    with torch.no_grad():
        for part, slope in zip(held, slopes, strict=True):
            part.requires_grad_(False)
            part.sub_(0.0 if slope is None else RATE * slope)
    return ChangedCopy(model, kind="fine-tune")


# ---- one weight -----------------------------------------------------------------------------------------------


_INTEGERS: Final = {2: torch.int16, 4: torch.int32, 8: torch.int64}
_MANTISSA: Final = {torch.float32: 23, torch.bfloat16: 7, torch.float16: 10, torch.float64: 52}


def _flipped(part_of: Literal["sign", "high", "low", "mantissa"]) -> Tamper:
    """A bit of one weight other than 0: its sign, one of the exponent's top three, a lower one, of the mantissa."""

    def change(ground: Ground, rng: np.random.Generator) -> ChangedCopy:
        model = ground.copy()
        name, place = _one_weight(model, rng)
        part = model.get_parameter(name).data
        top, mantissa = 8 * part.dtype.itemsize - 1, _MANTISSA[part.dtype]
        bit = int(rng.integers(*{"sign": (top, top + 1), "high": (top - 3, top), "low": (mantissa, top - 3),
                                 "mantissa": (0, mantissa)}[part_of]))  # fmt: skip
        bits = part[place].clone().reshape(1).view(_INTEGERS[part.dtype.itemsize])
        part[place] = (bits ^ (torch.ones_like(bits) << bit)).view(part.dtype)[0]
        return ChangedCopy(model, at=(name,))

    return change


def _one_weight(model: nn.Module, rng: np.random.Generator) -> tuple[str, tuple[int, ...]]:
    """A weight other than 0 of a matrix, each as likely."""
    found = _matrices(model)
    sizes = np.array([part.numel() for part in found.values()])
    while True:
        name = [*found][int(rng.choice(len(sizes), p=sizes / sizes.sum()))]
        place = tuple(int(rng.integers(size)) for size in found[name].shape)
        if float(found[name].detach()[place]) != 0.0:
            return name, place


def _matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: part for name, part in model.named_parameters() if part.ndim > 1}


# ---- whole tensors --------------------------------------------------------------------------------------------


def _chosen(rng: np.random.Generator, several: list[Any], what: str) -> Any:
    """One of several.

    Raises:
        ModelError: If there is none.
    """
    if not several:
        raise ModelError("This change is not possible on this model.", expected=what, got="none")
    return several[int(rng.integers(len(several)))]


def swapped(ground: Ground, rng: np.random.Generator) -> ChangedCopy:
    """Two matrices of one shape in each other's place."""
    model = ground.copy()
    held, by_shape = _matrices(model), defaultdict[tuple[int, ...], list[str]](list)
    for name, part in held.items():
        by_shape[tuple(part.shape)].append(name)
    group = _chosen(rng, [names for names in by_shape.values() if len(names) > 1], "two matrices of one shape")
    one, two = (group[int(at)] for at in rng.permutation(len(group))[:2])
    _exchange(held[one], held[two])
    return ChangedCopy(model, at=(one, two), kind="swapped")


def layers(ground: Ground, rng: np.random.Generator) -> ChangedCopy:
    """Two modules of the same parameters in each other's place: the largest such."""
    model = ground.copy()
    by_shape = defaultdict[tuple[object, ...], list[nn.Module]](list)
    for _, module in named_modules(model):
        shapes = tuple((name, tuple(part.shape)) for name, part in module.named_parameters())
        if any(len(shape) > 1 for _, shape in shapes):
            by_shape[type(module), shapes].append(module)
    largest = sorted((group for group in by_shape.values() if len(group) > 1), key=_numbers)[-1:]
    group = _chosen(rng, largest, "two layers of one shape")
    one, two = (list(group[int(at)].parameters()) for at in rng.permutation(len(group))[:2])
    for left, right in zip(one, two, strict=True):
        _exchange(left, right)
    return ChangedCopy(model)


def _numbers(group: list[nn.Module]) -> int:
    return sum(part.numel() for part in group[0].parameters())


def _exchange(one: Tensor, two: Tensor) -> None:
    kept = one.detach().clone()
    one.data.copy_(two.data)
    two.data.copy_(kept)


def zeroed(ground: Ground, rng: np.random.Generator) -> ChangedCopy:
    """One matrix of zeros."""
    model = ground.copy()
    name = _chosen(rng, [*_matrices(model)], "a matrix")
    model.get_parameter(name).data.zero_()
    return ChangedCopy(model, at=(name,), kind="zeroed")


def scale(ground: Ground, rng: np.random.Generator) -> ChangedCopy:
    """One matrix times a wrong factor."""
    model = ground.copy()
    name = _chosen(rng, [*_matrices(model)], "a matrix")
    model.get_parameter(name).data.mul_(_chosen(rng, [*SCALES], "a factor"))
    return ChangedCopy(model, at=(name,), kind="scale")


def gain(ground: Ground, rng: np.random.Generator) -> ChangedCopy:
    """The gain of one norm off by one."""
    model = ground.copy()
    norms = [
        f"{path}.weight"
        for path, module in named_modules(model)
        if "norm" in type(module).__name__.lower() and "weight" in dict(module.named_parameters(recurse=False))
    ]
    name = _chosen(rng, norms, "a norm with gains")
    model.get_parameter(name).data.add_(_chosen(rng, [-1.0, 1.0], "an offset"))
    return ChangedCopy(model, at=(name,), kind="norm offset")


def truncated(ground: Ground, rng: np.random.Generator) -> ChangedCopy:
    """The last numbers of all are missing, and read as zeros."""
    model = ground.copy()
    held = list(model.parameters())
    left = int(sum(part.numel() for part in held) * rng.uniform(*LOST))
    for part in reversed(held):
        flat = part.data.reshape(-1).clone()
        flat[max(len(flat) - left, 0) :] = 0.0
        part.data.copy_(flat.reshape(part.shape))
        left = max(left - len(flat), 0)
    return ChangedCopy(model)


# ---- the same function ----------------------------------------------------------------------------------------


def _copy_of(*gauges: str) -> Tamper:
    """A reparametrized copy, by as many of these gauges as hold on the model."""

    def change(ground: Ground, rng: np.random.Generator) -> ChangedCopy:
        model = ground.subject.model
        run = probe_run(ground.task, model)
        family = gauge.find(model, run)
        if isinstance(family, gauge.Refusal):
            raise ModelError("No reparametrized copy can be made.", where=ground.subject.name, got=family.because)
        offered = [name for name in gauges if name in family.offers]
        made = gauge.describe(family, *(offered or gauges), seed=int(rng.integers(2**31)))
        return ChangedCopy(gauge.twin(model, made, run, family=family))

    return change


# ---- harmless -------------------------------------------------------------------------------------------------


def _stored(dtype: torch.dtype) -> Tamper:
    return lambda ground, rng: ChangedCopy(ground.copy().to(dtype))


def matrices_float16(ground: Ground, rng: np.random.Generator) -> ChangedCopy:
    """Matrices rounded to float16, as GGUF files hold them; the rest as it is."""
    model = ground.copy()
    for part in _matrices(model).values():
        part.data.copy_(part.data.half())
    return ChangedCopy(model)


def resharded(ground: Ground, rng: np.random.Generator) -> ChangedCopy:
    """Written to two safetensors files in another order, and read from them."""
    from safetensors.torch import load, save

    model = ground.copy()
    held = dict(model.named_parameters()) | dict(model.named_buffers())
    files = [save({name: held[name].detach().contiguous().clone() for name in [*held][at::2]}) for at in (1, 0)]
    for name, part in (pair for file in files for pair in load(file).items()):
        held[name].data.copy_(part)
    return ChangedCopy(model)


def wrapped(ground: Ground, rng: np.random.Generator) -> ChangedCopy:
    """Inside a wrapper that only calls it."""
    return ChangedCopy(nn.Sequential(ground.copy()).eval())


TAMPERS: Final[dict[str, Tamper]] = {
    "noise-0.0001": _disturbed("relative", 1e-4, "noise"),
    "noise-0.002": _disturbed("relative", 2e-3, "noise"),
    "noise-0.01": _disturbed("relative", 1e-2, "noise"),
    "noise-0.1": _disturbed("relative", 0.1, "noise"),
    "sign": _flipped("sign"),
    "exponent-high": _flipped("high"),
    "exponent-low": _flipped("low"),
    "mantissa": _flipped("mantissa"),
    "swapped": swapped,
    "zeroed": zeroed,
    "scale": scale,
    "gain": gain,
    "truncated": truncated,
    "step": step,
    "low-rank": _disturbed("low-rank", 0.01, rank=RANK),
    "8-bit": _disturbed("quantize", 8, "quantized"),
    "6-bit": _disturbed("quantize", 6, "quantized"),
    "4-bit": _disturbed("quantize", 4, "quantized"),
    "pruned": _disturbed("prune", 0.1),
    "layers": layers,
    "twin": _copy_of("permute", "rescale"),
    "cancel": _copy_of("cancel"),
    "bfloat16": _stored(torch.bfloat16),
    "float16": _stored(torch.float16),
    "float64": _stored(torch.float64),
    "matrices-float16": matrices_float16,
    "resharded": resharded,
    "wrapped": wrapped,
}
"""By name: see ``wheeltap.suites.seal.specs``."""
