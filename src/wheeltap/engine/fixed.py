"""What a forward multiplies activations by that is no parameter: weights that no disturbance reaches.

A frozen backbone in buffers, weights in a list or in a closure, a copy that a module keeps of its own weights: all of
them decide the answers as parameters do. They are seen where they are used, below torch's own functions: as the one
factor of a linear product, convolution or lookup whose other factor comes from the inputs.

What is only added (positions), multiplied number by number and not summed (masks, rotary tables, gains, running
statistics), or has no two signs (adjacency, averages, filter banks) is a table and no weight.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, final

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from wheeltap.core.coverage import packs
from wheeltap.core.typed import named_modules

_FACTORS: Final[dict[str, tuple[int, ...]]] = {
    "linear": (0, 1), "mm": (0, 1), "bmm": (0, 1), "mv": (0, 1), "matmul": (0, 1), "_int_mm": (0, 1),
    "addmm": (1, 2), "baddbmm": (1, 2), "addbmm": (1, 2), "addmv": (1, 2), "_addmm_activation": (1, 2),
    "convolution": (0, 1), "_convolution": (0, 1), "embedding": (0, 1), "_embedding_bag": (0, 1),
    "_embedding_bag_forward_only": (0, 1), "_trilinear": (0, 1, 2), "bilinear": (0, 1, 2),
    "mkldnn_rnn_layer": (0, 1, 2), "einsum": (1,), "_cudnn_rnn": (0, 1),
}  # fmt: skip
"""Functions of torch that multiply and sum, with the places of what they multiply; lists of tensors count too."""

_ATTENTION: Final = "_scaled_dot_product"
"""How the names of those begin that multiply their first three."""

_ADDING: Final = frozenset(
    {
        "add", "add_", "sub", "sub_", "rsub", "cat", "stack", "where", "lerp", "lerp_", "copy_", "index_put",
        "index_put_", "scatter", "scatter_", "slice_scatter", "select_scatter", "masked_scatter", "masked_scatter_",
        "index_copy", "index_copy_", "index_add", "index_add_", "addmm", "addmm_", "baddbmm", "addcmul", "addcmul_",
    }
)  # fmt: skip
"""Functions whose result is a sum, or holds each of what goes in: a disturbed part hides no undisturbed one."""

_PLACES: Final = (torch.int64, torch.bool)
"""Types of indices and masks."""

_MOST_BYTES: Final = 2**28
"""Of activations that are kept alive; of later ones the key may be that of an earlier one, which is one as well."""

_DEPTH: Final = 3
"""Containers inside of containers among whose contents a tensor's name is looked for."""


@final
@dataclass(frozen=True)
class _Origin:
    """What a tensor was computed from.

    Attributes:
        inputs: Whether from the inputs.
        parameters: Whether from parameters.
        fixed: From which tensors that are neither: their keys.
    """

    inputs: bool = False
    parameters: bool = False
    fixed: frozenset[int] = frozenset()


@final
class Fixed(TorchDispatchMode):
    """Notes, while a forward runs, what activations are multiplied by that no parameter goes into.

    Args:
        model: Whose forward runs.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # pyright: ignore[reportUnknownMemberType]
        self._model = model
        self._held: list[Tensor] = []  # as long as one lives, no other has its key
        self._bytes = 0
        self._origins: dict[int, _Origin] = {}
        self._tensors: dict[int, Tensor] = {}
        self._found: dict[int, None] = {}
        self._scaled: dict[int, frozenset[int]] = {}
        for parameter in model.parameters():
            self._know(parameter, _Origin(parameters=True))
        self._packed = {key for buffer in model.buffers() if packs(buffer) and (key := _key(buffer)) is not None}

    def inputs(self, given: Any) -> None:
        """Takes what the model is called with."""
        for tensor in _tensors(given):
            self._know(tensor, _Origin(inputs=True))

    @property
    def sizes(self) -> dict[str, int]:
        """How many numbers each of them has, by its name."""
        names = dict(_named(self._model))
        found: dict[str, int] = {}
        for key in self._found:
            tensor = self._tensors[key]
            name = names.get(key) or f"a constant {list(tensor.shape)} of the forward"
            found[name] = found.get(name, 0) + tensor.numel()
        return found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        name = str(func.overloadpacket.__name__)
        read = [self._origin(tensor) for tensor in _tensors((args, given))]
        self._note(name, args)
        result = func(*args, **given)
        origin = _merged(name, read)
        self._note_sum(name, args, result)
        for tensor in _tensors(result):
            self._know(tensor, origin)
        if name.endswith("_"):  # written in place, under whatever name it has
            for tensor in _tensors(args[:1]):
                self._know(tensor, origin)
        return result

    def _note(self, name: str, args: tuple[Any, ...]) -> None:
        places = (0, 1, 2) if name.startswith(_ATTENTION) else _FACTORS.get(name, ())
        self._found |= dict.fromkeys(sorted(self._weights([args[at] for at in places if at < len(args)])))

    def _weights(self, factors: Any) -> frozenset[int]:
        """Those among factors of one product that no parameter goes into, where another factor is of the inputs."""
        known = [(factor, self._origin(factor)) for factor in _tensors(factors)]
        if not any(origin.inputs for _, origin in known):
            return frozenset()
        some = (origin.fixed for factor, origin in known if not origin.inputs and origin.fixed and _is_weight(factor))
        return frozenset[int]().union(*(fixed for fixed in some if not fixed & self._packed))

    def _note_sum(self, name: str, args: tuple[Any, ...], result: Any) -> None:
        """A product that is written as one number by number, and then summed."""
        if name in ("mul", "mul_") and isinstance(result, Tensor):
            weights, key = self._weights(args[:2]), _key(result)
            if weights and key is not None:
                self._scaled[key] = weights
        elif name in ("sum", "mean"):
            for tensor in _tensors(args[:1]):
                self._found |= dict.fromkeys(sorted(self._scaled.get(_key(tensor) or 0, ())))

    def _know(self, tensor: Tensor, origin: _Origin) -> None:
        key = _key(tensor)
        if key is not None:
            if not origin.inputs or self._bytes < _MOST_BYTES:
                self._held.append(tensor)
                self._bytes += tensor.nbytes if origin.inputs else 0
            self._origins[key] = origin

    def _origin(self, tensor: Tensor) -> _Origin:
        """What is known of a tensor; one that was never seen is no parameter, and of no input."""
        key = _key(tensor)
        if key is None:
            return _Origin()
        if key not in self._origins:
            self._know(tensor, _Origin(fixed=frozenset() if tensor.dtype in _PLACES else frozenset([key])))
            self._tensors[key] = tensor
        return self._origins[key]


def _merged(name: str, read: Iterable[_Origin]) -> _Origin:
    """The origin of what is computed from some tensors."""
    origins = list(read)
    if any(origin.inputs for origin in origins):
        return _Origin(inputs=True)
    disturbed = [origin for origin in origins if origin.parameters]
    # A mask that a weight is multiplied by is no weight of its own; what is added to one is.
    some = disturbed if disturbed and name not in _ADDING else origins
    return _Origin(parameters=bool(disturbed), fixed=frozenset[int]().union(*(origin.fixed for origin in some)))


def _key(tensor: Tensor) -> int | None:
    """The same for all views of one storage; nothing where there is none."""
    try:
        return tensor.untyped_storage().data_ptr() or None
    except (NotImplementedError, RuntimeError):  # sparse, say
        return None


def _is_weight(factor: Tensor) -> bool:
    """Whether it varies along two axes, and has both signs."""
    axes = sum(size > 1 and stride != 0 for size, stride in zip(factor.shape, factor.stride(), strict=True))
    if axes < 2 or factor.is_quantized or factor.is_complex():
        return axes >= 2
    return bool((factor < 0).any()) and bool((factor > 0).any())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for part in cast("Iterable[Any]", value):
            yield from _tensors(part)
    elif isinstance(value, Mapping):
        for part in cast("Mapping[Any, Any]", value).values():
            yield from _tensors(part)


def _named(model: nn.Module) -> Iterator[tuple[int, str]]:
    """Every tensor that modules hold, by key: buffers last, for their names are the known ones."""
    for path, module in named_modules(model):
        for name, value in vars(module).items():
            if not name.startswith(("_parameters", "_buffers", "_modules")):
                yield from _within(f"{path}.{name}".removeprefix("."), value, _DEPTH)
    for name, buffer in model.named_buffers():
        key = _key(buffer)
        if key is not None:
            yield key, name


def _within(name: str, value: Any, depth: int) -> Iterator[tuple[int, str]]:
    if isinstance(value, Tensor):
        key = _key(value)
        if key is not None:
            yield key, name
    elif depth and isinstance(value, list | tuple):
        for at, part in enumerate(cast("Iterable[Any]", value)):
            yield from _within(f"{name}[{at}]", part, depth - 1)
    elif depth and isinstance(value, dict):
        for at, part in cast("dict[Any, Any]", value).items():
            yield from _within(f"{name}[{at!r}]", part, depth - 1)
