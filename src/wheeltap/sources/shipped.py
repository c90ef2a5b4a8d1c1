"""Models as they are shipped, beside the one that they were made from: their answers, and their tensors by name."""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from msgspec import structs
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import canon
from wheeltap.core.bounded import opened
from wheeltap.core.errors import UsageError
from wheeltap.core.fingerprint import identify
from wheeltap.core.subject import Subject
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.plans.shipped import UNKNOWN, Fault, ShippedFile, TensorRow

Array = NDArray[np.float32]

VERSION: Final = 5
"""Of the readers and of the rules for tensors: part of each fingerprint, so of the keys of what is found."""

_TOGETHER: Final = 2**22
"""Values that are looked at together."""

_TIMES: Final = 2.0
"""Error allowed, in that of our own rounding: other ways of rounding to nearest, such as imatrix, make up to 1.5."""

_PASSED: Final = 2.0**-9
"""Error allowed in any format: that of numbers kept in bfloat16 on their way."""

_LOOSE: Final = 0.5
"""Error above which a tensor of an unknown format is no rounding of the original: that to two bits is below .35."""


def same(values: Tensor) -> Tensor:
    """The values themselves."""
    return values


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A tensor of a file, and the part of the original that it was made from.

    Attributes:
        parameter: The original's.
        rows: Of that parameter; all where it is a tensor by itself.
        format: As which it is stored.
        read: Its values in single precision ``[row, column]``, from one row to another.
        shape: ``(rows, columns)`` as stored; a vector is one row.
        laid: From the original's part to the layout of the file.
        placed: The other way.
        ours: Our own rounding to the format, of ``[row, column]`` and the number of the first of these rows; ``None``
            where there is none.
        most: Error that no sound rounding makes, in that of our own, where it is known to be no rounding to nearest.
        usual: Error of the format on normal weights, where there is no rounding of our own; ``UNKNOWN`` where that is
            not known either.
    """

    name: str
    parameter: str
    format: str
    shape: tuple[int, int]
    read: Callable[[int, int], Array]
    rows: slice = field(default_factory=lambda: slice(None))
    laid: Callable[[Tensor], Tensor] = same
    placed: Callable[[Tensor], Tensor] = same
    ours: Callable[[Array, int], Array] | None = None
    most: float = 0.0
    usual: float = UNKNOWN

    def beside(self, weight: Tensor) -> Array:
        """The original's part in the layout of the file, ``[row, column]``."""
        return _matrix(self.laid(weight.detach().float().cpu()[self.rows]))


@dataclass(frozen=True)
class StoredWeights:
    """The tensors of a file by the names of the original.

    Attributes:
        others: What cannot be compared: parameters that the file lacks or holds in a way that cannot be read, and
            tensors that belong to none.
    """

    pieces: Sequence[Piece]
    others: Sequence[TensorRow] = ()


def unpaired(fault: Fault, formats: Mapping[str, str]) -> list[TensorRow]:
    """Rows for tensors that stand alone, by their names."""
    return [TensorRow(name=name, format=kind, fault=fault) for name, kind in formats.items()]


class ShippedModel(ABC):
    """One model as it is shipped; it is opened for one original."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A digest of all that decides its answers."""

    @abstractmethod
    def model(self) -> nn.Module:
        """The model, in eval mode: the caller holds it alone.

        Raises:
            WheeltapError: If it cannot be loaded.
        """

    @abstractmethod
    def weights(self) -> StoredWeights:
        """Its tensors; they are read one by one."""

    def differences(self) -> tuple[str, ...]:
        """Settings that are not the original's, each in a sentence.

        Raises:
            UsageError: If it is of another architecture: its answers are not to the same questions.
        """
        return ()

    def record(self, spec: str) -> ShippedFile:
        """What a plan knows of it."""
        return ShippedFile(spec=spec, differs=self.differences(), fingerprint=self.fingerprint())


def numbers_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters by all of their names, and buffers of floating point that checkpoints hold, as running statistics."""
    kept = model.state_dict().keys()
    buffers = {name: one for name, one in model.named_buffers(remove_duplicate=False) if name in kept}
    floats = {name: one for name, one in buffers.items() if one.is_floating_point()}
    return {**dict(model.named_parameters(remove_duplicate=False)), **floats}


def digest_of_files(paths: Sequence[Path]) -> str:
    """A digest of files and their names, in the order given."""
    found: list[str] = []
    for path in paths:
        with opened(path, "file") as file:
            found += [path.name, hashlib.file_digest(file, "sha256").hexdigest()]
    return canon.key("shipped", [VERSION, *found])


@final
class ShippedModule(ShippedModel):
    """A model that code gives: its parameters are compared by their names."""

    def __init__(self, make: Callable[[], nn.Module], *, reference: Subject, where: str) -> None:
        self._make, self._reference, self._where = make, reference, where

    def fingerprint(self) -> str:
        """See ``ShippedModel.fingerprint``."""
        return canon.key("shipped", [VERSION, identify(self.model()).digest()])

    def model(self) -> nn.Module:
        """See ``ShippedModel.model``."""
        made: Any = self._make()
        if not isinstance(made, nn.Module) or made.training:
            raise UsageError(
                "This gives no model as it is shipped.", where=self._where, expected="a torch.nn.Module in eval mode",
                got="a module in training mode" if isinstance(made, nn.Module) else type(made).__name__,
                do="Return the converted module in eval mode: def shipped(): ...; return quantize_dynamic(net).eval()",
            )  # fmt: skip
        return made

    def weights(self) -> StoredWeights:
        """See ``ShippedModel.weights``: what is packed in another way is not compared."""
        held, own = numbers_of(self.model()), numbers_of(self._reference.model)
        pieces = [
            of_tensor(name, held[name].detach(), str(held[name].dtype).removeprefix("torch."))
            for name, weight in own.items()
            if name in held and held[name].is_floating_point() and held[name].shape == weight.shape
        ]
        compared = {piece.name for piece in pieces}
        return StoredWeights(pieces, unpaired("uncompared", {name: "" for name in own if name not in compared}))


def of_tensor(name: str, held: Tensor, kind: str) -> Piece:
    """A tensor at hand, of the parameter with its name; how it was rounded is not known."""
    values = _matrix(held)
    return Piece(
        name=name, parameter=name, format=kind, shape=(values.shape[0], values.shape[1]),
        read=lambda start, stop: values[start:stop],
    )  # fmt: skip


def _matrix(values: Tensor) -> Array:
    return to_array(values.reshape(-1, values.shape[-1]) if values.ndim > 1 else values.reshape(1, -1))


def filled(model: nn.Module, weights: StoredWeights) -> nn.Module:
    """The model with the numbers of a file in place of its own, in its own dtype.

    Raises:
        UsageError: If the file lacks one, or one has another shape.
    """
    if missing := [one.name for one in weights.others if one.fault == "missing"]:
        raise UsageError(
            "The file does not hold all of the model's weights.", where=missing[0],
            expected="a tensor for every parameter of the original", got=f"{len(missing)} without one",
            do="Convert the model again.",
        )  # fmt: skip
    named, tied = dict(model.named_parameters(remove_duplicate=False)), dict[int, str]()
    for piece in weights.pieces:
        held = named[piece.parameter]
        if tied.setdefault(id(held), piece.parameter) != piece.parameter:  # the file holds both parts of a tied pair
            held = nn.Parameter(held.detach().clone(), requires_grad=False)
            path, _, name = piece.parameter.rpartition(".")
            setattr(model.get_submodule(path), name, held)
            tied[id(held)], named[piece.parameter] = piece.parameter, held
        part = held.data[piece.rows]
        values = to_tensor(np.ascontiguousarray(piece.read(0, piece.shape[0])))
        like = piece.laid(part)
        if values.numel() != part.numel() or values.shape != _shape(like):
            raise UsageError(
                "A tensor of the file has another shape than the original's.", where=piece.name,
                expected=" x ".join(map(str, _shape(like))), got=" x ".join(map(str, piece.shape)),
                do="Convert the model again.",
            )  # fmt: skip
        part.copy_(piece.placed(values.reshape(like.shape)))
    return model


def _shape(values: Tensor) -> tuple[int, int]:
    return (math.prod(values.shape[:-1]), values.shape[-1])


# ---- tensor by tensor ------------------------------------------------------------------------------------------


def compared(weights: StoredWeights, reference: nn.Module) -> list[TensorRow]:
    """Compare every tensor of a file with the original's, by parameter; then missing and extra ones."""
    own = numbers_of(reference)
    rows = [row_of(piece, piece.beside(own[piece.parameter])) for piece in weights.pieces]
    sizes = {id(tensor): tensor.numel() for tensor in own.values()}
    fractions = {name: tensor.numel() / sum(sizes.values()) for name, tensor in own.items()}
    return [*rows, *(structs.replace(row, fraction=fractions.get(row.name, UNKNOWN)) for row in weights.others)]


def row_of(piece: Piece, original: Array) -> TensorRow:
    """Compare a tensor with the original's part in the layout of the file."""
    if original.shape != piece.shape:
        return TensorRow(name=piece.name, format=piece.format, fault="shape")
    squares = np.zeros(3)  # sums: of the original, of the stored error, of the error of our own rounding
    step = max(_TOGETHER // max(piece.shape[1], 1), 1)
    for start in range(0, piece.shape[0], step):
        part = original[start : start + step]
        stored = piece.read(start, start + len(part))
        if not np.isfinite(stored).all():
            return TensorRow(name=piece.name, format=piece.format, fault="not finite")
        base = part.astype(np.float64)
        rounded = base if piece.ours is None else piece.ours(part, start)
        squares += [np.square(values).sum() for values in (base, stored - base, rounded - base)]
    error, rounding = (float(part / squares[0] if squares[0] > 0.0 else part > 0.0) ** 0.5 for part in squares[1:])
    expected = piece.usual if piece.ours is None else rounding
    unknown = expected == UNKNOWN
    allowed = _LOOSE if unknown else max(max(piece.most, _TIMES) * expected, _PASSED)
    fault = "error" if error > allowed else "unknown" if unknown else "sound"
    return TensorRow(name=piece.name, format=piece.format, fault=fault, error=error, expected=expected)
