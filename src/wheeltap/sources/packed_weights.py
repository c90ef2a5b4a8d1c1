"""Folders whose weights are packed: codes of a few bits, with scales and zero points that make numbers of them.

They are read without the libraries that wrote them. Layouts: AutoGPTQ ``nn_modules/qlinear/qlinear_cuda.py`` and
GPTQModel ``utils/model.py``; AutoAWQ ``awq/utils/packing_utils.py``; compressed-tensors ``compressors``; bitsandbytes
``functional.py``; torchao ``prototype/safetensors``.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast, final

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import bounded
from wheeltap.core.errors import FileFormatError, ModelError
from wheeltap.core.typed import named_modules, to_array, to_tensor
from wheeltap.sources.hf import weight_files
from wheeltap.sources.shipped import Array, Piece

_AWQ_PLACES: Final = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in a word AWQ keeps each of eight columns: it packs them in the order 0, 2, 4, 6, 1, 3, 5, 7."""

_BITS: Final = (2, 4, 8)
_FLOATS: Final = ("F64", "F32", "F16", "BF16")
_FLOAT8: Final = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}

_STATE: Final = 2**12
"""Bytes of what bitsandbytes says of one tensor, at most."""

_GPTQ: Final = 3.0
"""Error of a sound GPTQ matrix, in those of nearest rounding: it moves weights to make up for others, which costs 1.1
to 2.6 (SmolLM2-135M, 2 to 8 bits). Zero points that are off by one cost 3.5 and more. llm-compressor rounds so too,
and does not say it."""

_WORSE, _POOR = 3.0, 0.5
"""Error of a grid, in that of an even one and in the weights, from which it is a wrong one: one with as many steps on
both sides of zero makes up to 2; weights that were on a grid before are, by chance, exact on an even one."""

_FLOAT_CODES: Final = 32
"""Codes of an even grid that rounds about as 8-bit floats do."""

Rows = Callable[[slice], Array]
"""From rows of a matrix to what is stored of them."""


@final
@dataclass(frozen=True, kw_only=True)
class Levels:
    """Rows of a matrix as they are stored: a number is ``(code - zero) * scale``.

    Attributes:
        codes: ``[row, column]``.
        scale: ``[row, column]``.
        zero: ``[row, column]``.
        nearest: From numbers in units of the scale to the nearest codes.
        block: Columns that share a scale.
        count: How many codes there are.
    """

    codes: Array
    scale: Array
    zero: Array
    nearest: Callable[[Array], Array]
    block: int
    count: int

    @np.errstate(over="ignore", invalid="ignore")
    def values(self) -> Array:
        """The numbers."""
        return (self.codes - self.zero) * self.scale

    @np.errstate(over="ignore", invalid="ignore")  # what is not finite is named
    def rounded(self, rows: Array) -> Array:
        """The nearest numbers on this grid to others ``[row, column]``.

        A grid that is far worse than an even one over the range of a block cannot be meant: then it is that one's.
        """
        units = np.divide(rows, self.scale, out=np.zeros_like(rows), where=self.scale != 0.0)
        near = ((self.nearest(units + self.zero) - self.zero) * self.scale).reshape(-1, self.block)
        blocks = rows.reshape(-1, self.block)
        low, high = blocks.min(1, keepdims=True, initial=0.0), blocks.max(1, keepdims=True, initial=0.0)
        step = np.maximum((high - low) / (self.count - 1), np.finfo(np.float32).tiny)
        even = np.rint((blocks - low) / step) * step + low
        off, least, size = (np.square(one).sum(1) for one in (near - blocks, even - blocks, blocks))
        worse = (off > _WORSE**2 * least) & (off > _POOR**2 * size)
        return np.where(worse[:, None], even, near).reshape(rows.shape)


class _QuantizationConfig(msgspec.Struct):
    """Kinds of what a config may say of quantization."""

    quant_method: str | None = None
    bits: int | None = None
    group_size: int | None = None
    config_groups: dict[str, dict[str, Any] | list[Any]] | None = None


@final
@dataclass(frozen=True)
class PackedFolder:
    """A folder of packed weights.

    Attributes:
        how: What its config says of quantization.
    """

    folder: Path
    how: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path, config: Mapping[str, Any]) -> "PackedFolder":
        """The folder with this config; ``how`` is empty where it says nothing of quantization.

        Raises:
            FileFormatError: If it says what cannot be meant.
        """
        how: Any = config.get("quantization_config") or {}
        expected = "an object: quant_method a name, bits and group_size numbers, config_groups objects"
        with bounded.parsing(folder / "config.json", "Its quantization_config cannot be read.", expected=expected):
            msgspec.convert(how, _QuantizationConfig)
        return cls(folder, how)

    @cached_property
    def method(self) -> "Method":
        """How it is packed.

        Raises:
            ModelError: If that is not known here.
        """
        if (name := method_of(self.how)) not in METHODS:
            raise ModelError(
                "It is not known how the weights of this folder are packed.", where=str(self.folder),
                expected=f"quant_method in config.json: {', '.join(METHODS)}", got=name or "none",
            )  # fmt: skip
        return METHODS[name]

    @property
    def packages(self) -> tuple[str, ...]:
        """What it runs with; nothing where its weights are numbers like any other once they are unpacked."""
        # Whether more is done than to round weights when it runs; what torchao does is in no config.
        groups = cast("Mapping[str, Any]", self.how.get("config_groups") or {}).values()
        inputs = [one[side] for one in groups for side in ("input_activations", "output_activations") if side in one]
        more = (self.how.get("kv_cache_scheme"), self.how.get("transform_config"), self.how.get("load_in_8bit"))
        return self.method.packages if any((*inputs, *more, method_of(self.how) == "torchao")) else ()

    @cached_property
    def entries(self) -> dict[str, tuple[Path, bounded.Tensor]]:
        """Where each tensor is, and what the header of that file says of it."""
        found = dict[str, tuple[Path, bounded.Tensor]]()
        for path in weight_files(self.folder):
            held = bounded.tensors(path, "file of weights")[0]
            twice = next(iter(held.keys() & found.keys()), "")
            if twice:
                raise FileFormatError(
                    "Two files of the folder hold the same tensor.", where=f"{self.folder}: {twice}",
                    expected="each tensor once", got=f"one in {found[twice][0].name}, one in {path.name}",
                    do="Keep the files of one conversion alone.",
                )  # fmt: skip
            found |= {name: (path, one) for name, one in held.items()}
        return found

    @cached_property
    def stems(self) -> tuple[str, ...]:
        """Names of the modules whose matrices are packed."""
        marks = self.method.marks
        return tuple(sorted({name.removesuffix(one) for name in self.entries for one in marks if name.endswith(one)}))

    def plain(self) -> list[str]:
        """Names of the tensors that are no part of a packed matrix."""
        parts = {f"{stem}{part}" for stem in self.stems for part in self.method.parts}
        parts -= {f"{stem}.weight" for stem in self.stems if f"{stem}.weight_packed" in self.entries}
        return [name for name in self.entries if name not in parts and not name.endswith(_ACTIVATIONS)]

    def beside(self) -> list[str]:
        """Names of the scales of activations and of caches."""
        return [name for name in self.entries if name.endswith(_ACTIVATIONS) and name.endswith("scale")]

    def positive(self, name: str) -> bool:
        """Whether all numbers of a tensor are positive and finite."""
        held = self.held(name).float()
        return bool(((held > 0.0) & held.isfinite()).all())

    def shape(self, name: str, *dtypes: str, dimensions: int = 2) -> tuple[int, ...]:
        """Lengths of a tensor that must be there, of one of these kinds.

        Raises:
            FileFormatError: If it is not.
        """
        one = self.entries[name][1] if name in self.entries else None
        got = "no such tensor" if one is None else f"{one.dtype} {list(one.shape)}"
        fits = one is not None and one.dtype in dtypes and len(one.shape) == dimensions
        self.require(fits, name, f"{' or '.join(dtypes)}, of {dimensions} dimensions", got)
        return () if one is None else one.shape

    def require(self, right: object, name: str, expected: object, got: object) -> None:
        """Raises ``FileFormatError`` where a tensor is not right: parts of a matrix do not fit each other, say."""
        if not right:
            raise FileFormatError(
                "Packed weights are not as their format has them.", where=f"{self.folder}: {name}",
                expected=str(expected), got=str(got),
                do="Check quantization_config in config.json, or quantize the model again.",
            )  # fmt: skip

    def held(self, name: str) -> Tensor:
        """A tensor, read."""
        from safetensors import safe_open

        with (
            bounded.parsing(self.entries[name][0], "A tensor cannot be read.", expected="numbers that torch knows"),
            safe_open(self.entries[name][0], "pt") as file,  # pyright: ignore[reportUnknownVariableType]
        ):
            return cast("Tensor", file.get_tensor(name))  # pyright: ignore[reportUnknownMemberType]

    def words(self, name: str) -> NDArray[np.uint32]:
        """A tensor of words of 32 bits."""
        return self.held(name).numpy().view(np.uint32)

    def pieces(self, model: nn.Module) -> list[Piece]:
        """The packed matrices, of the modules of a model.

        Raises:
            FileFormatError: If parts of one are missing or do not fit each other.
            ModelError: If it is not known how they are packed.
        """
        expected = f"tensors whose names end in {', '.join(self.method.marks)}"
        self.require(self.stems, "", expected, f"{len(self.entries)} tensors, and none of these")
        most = _GPTQ if method_of(self.how) in ("gptq", "compressed-tensors") else 0.0
        found = [replace(self.method.matrix(self, stem), most=most) for stem in self.stems]
        modules = dict(named_modules(model))
        # ``Conv1D`` of transformers keeps its weight the other way round.
        return [
            _placed(one, torch.t, torch.t) if type(modules.get(stem)).__name__ == "Conv1D" else one
            for stem, one in zip(self.stems, found, strict=True)
        ]

    def dense(self, model: nn.Module) -> dict[str, Tensor]:
        """All weights as numbers, by the names of a model: see ``pieces``."""
        pieces = self.pieces(model)
        numbers = {one.parameter: one.placed(to_tensor(one.read(0, one.shape[0]))).contiguous() for one in pieces}
        return numbers | {name: self.held(name) for name in self.plain()}


def method_of(how: Mapping[str, Any]) -> str:
    """The name that a config has for how weights are packed."""
    older = "bitsandbytes" if how.get("load_in_4bit") or how.get("load_in_8bit") else ""
    return str(how.get("quant_method") or older).lower()


def _placed(piece: Piece, there: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor]) -> Piece:
    """A piece that is laid in yet another way."""

    def laid(weight: Tensor) -> Tensor:
        return piece.laid(there(weight))

    def placed(stored: Tensor) -> Tensor:
        return back(piece.placed(stored))

    return replace(piece, laid=laid, placed=placed)


def _piece(stem: str, label: str, shape: tuple[int, int], block: int, levels: Callable[[int, int], Levels]) -> Piece:
    """The matrix of a module, from a function that gives its rows from one to another."""
    return Piece(
        name=f"{stem}.weight", parameter=f"{stem}.weight", format=label, shape=shape,
        read=lambda start, stop: levels(start, stop).values(),
        ours=lambda rows, start: levels(start, start + len(rows)).rounded(rows),
    )  # fmt: skip


# ---- integers in words ------------------------------------------------------------------------------------------


def unpacked(words: NDArray[np.uint32], bits: int) -> Array:
    """Codes ``[row, column]`` of words ``[row, word]``, the first in the lowest bits."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    codes = (np.ascontiguousarray(words)[..., None] >> shifts) & np.uint32(2**bits - 1)
    return codes.astype(np.float32).reshape(len(words), -1)


@final
@dataclass(frozen=True, kw_only=True)
class Groups:
    """A matrix whose columns are in groups that share a scale.

    Attributes:
        shape: ``(rows, columns)``.
        index: Group of each column.
        codes: ``[row, column]``.
        scale: ``[row, group]``.
        zero: ``[row, group]``.
    """

    stem: str
    bits: int
    shape: tuple[int, int]
    index: NDArray[np.int64]
    codes: Rows
    scale: Rows
    zero: Rows

    def piece(self, label: str) -> Piece:
        """It, with its columns group by group."""
        order, sizes = np.argsort(self.index, kind="stable"), np.bincount(self.index)
        groups, block = self.index[order], math.gcd(*sizes.tolist())

        def levels(start: int, stop: int) -> Levels:
            rows = slice(start, stop)
            return Levels(
                codes=self.codes(rows)[:, order], scale=self.scale(rows)[:, groups], zero=self.zero(rows)[:, groups],
                nearest=lambda units: np.clip(np.rint(units), 0, 2**self.bits - 1), block=block, count=2**self.bits,
            )  # fmt: skip

        label = f"{label}int{self.bits}-g{sizes.max()}"
        piece = _piece(self.stem, label, self.shape, block, levels)
        there, back = torch.from_numpy(order), torch.from_numpy(np.argsort(order))  # pyright: ignore[reportUnknownMemberType]
        in_order = bool((groups == self.index).all())
        return piece if in_order else _placed(piece, lambda one: one[:, there], lambda one: one[:, back])


def _index(folder: PackedFolder, name: str, columns: int, groups: int) -> NDArray[np.int64]:
    """The group of each column: as the tensor of this name has it, or one group after another."""
    if name in folder.entries:
        folder.require(
            folder.shape(name, "I32", "I64", dimensions=1) == (columns,), name, f"{columns} columns", "others"
        )
        index = folder.held(name).numpy().astype(np.int64)
        inside = index.min(initial=0) >= 0 and index.max(initial=0) < groups
        folder.require(inside, name, f"groups from 0 to {groups - 1}", f"{index.min()} to {index.max()}")
        used = len(np.unique(index))
        folder.require(used == groups, name, f"columns in each of {groups} groups", f"columns in {used} of them")
        return index
    said = int(folder.how.get("group_size") or 0)
    size = said if said > 0 else -(-columns // max(groups, 1))
    folder.require(-(-columns // size) == groups, name, f"{columns} columns in groups of {size}", f"{groups} groups")
    return np.arange(columns) // size


def _gptq(folder: PackedFolder, stem: str) -> Piece:
    """GPTQ: columns are packed. Version 1 keeps zero points less one, version 2 (``gptq_v2``) as they are.

    One is added to each in a word at once, as GPTQModel does: what version 1 has borrowed from a neighbor comes back.
    """
    packed, scales, zeros, index = (f"{stem}.{part}" for part in ("qweight", "scales", "qzeros", "g_idx"))
    words, (groups, rows) = folder.shape(packed, "I32"), folder.shape(scales, *_FLOATS)
    kept, how = folder.shape(zeros, "I32"), folder.how
    version, said = how.get("checkpoint_format") or "gptq", how.get("bits")
    right = version in ("gptq", "gptq_v2") and said in _BITS
    folder.require(right, packed, f"checkpoint_format gptq or gptq_v2, bits in {_BITS}", f"{version}, bits {said}")
    # ``dynamic`` says other bits for some modules.
    bits = 32 * kept[1] // max(rows, 1) if how.get("dynamic") else int(said or 0)
    fits = bits in _BITS and words[1] == rows and kept == (groups, rows * bits // 32) and rows * bits % 32 == 0
    folder.require(fits, packed, f"{rows} rows of {bits} bits in {groups} groups", f"{list(words)}, zeros {list(kept)}")
    if how.get("desc_act"):
        folder.shape(index, "I32", "I64", dimensions=1)
    columns = words[0] * 32 // bits
    one = np.uint32(0 if version == "gptq_v2" else sum(1 << at for at in range(0, 32, bits)))
    return Groups(
        stem=stem, bits=bits, shape=(rows, columns), index=_index(folder, index, columns, groups),
        codes=lambda part: unpacked(folder.words(packed)[:, part].T, bits),
        scale=lambda part: to_array(folder.held(scales))[:, part].T,
        zero=lambda part: unpacked(folder.words(zeros) + one, bits)[:, part].T,
    ).piece("GPTQ ")  # fmt: skip


def _awq(folder: PackedFolder, stem: str) -> Piece:
    """AWQ as its matrix product reads it (``gemm``): rows are packed, eight in a word, in an order of their own."""
    packed, scales, zeros = (f"{stem}.{part}" for part in ("qweight", "scales", "qzeros"))
    (columns, words), (groups, rows) = folder.shape(packed, "I32"), folder.shape(scales, *_FLOATS)
    kept, how = folder.shape(zeros, "I32"), folder.how
    said = (str(how.get("version") or how.get("format") or "gemm").lower(), how.get("bits") or how.get("w_bit"))
    folder.require(said == ("gemm", 4), packed, "version gemm, bits 4", f"version {said[0]}, bits {said[1]}")
    folder.require(
        rows == 8 * words and kept == (groups, words), packed, f"{rows} rows of 4 bits in {groups} groups",
        f"[{columns}, {words}], zeros {list(kept)}",
    )  # fmt: skip

    def codes(name: str, part: slice) -> Array:
        first, last = part.start // 8, -(-part.stop // 8)
        held = unpacked(folder.words(name)[:, first:last], 4).reshape(-1, last - first, 8)[:, :, _AWQ_PLACES]
        return held.reshape(len(held), -1)[:, part.start - 8 * first : part.stop - 8 * first].T

    return Groups(
        stem=stem, bits=4, shape=(rows, columns), index=_index(folder, f"{stem}.g_idx", columns, groups),
        codes=lambda part: codes(packed, part), scale=lambda part: to_array(folder.held(scales))[:, part].T,
        zero=lambda part: codes(zeros, part),
    ).piece("AWQ ")  # fmt: skip


def _compressed(folder: PackedFolder, stem: str) -> Piece:
    """compressed-tensors: packed along rows, signed codes plus an offset; or integers and 8-bit floats as they are."""
    packed, scale, zero, size = (f"{stem}.weight_{part}" for part in ("packed", "scale", "zero_point", "shape"))
    if packed not in folder.entries:
        return _stored(folder, stem, (f"{stem}.weight", scale, zero))
    (rows, words), (held, groups) = folder.shape(packed, "I32"), folder.shape(scale, *_FLOATS)
    folder.require(folder.shape(size, "I64", "I32", dimensions=1) == (2,), size, "rows and columns", "others")
    shape = (int(folder.held(size)[0]), int(folder.held(size)[1]))
    bits = words * 32 // max(shape[1], 1)
    kept = folder.shape(zero, "I32") if zero in folder.entries else (-(-rows * bits // 32), groups)
    fits = bits in _BITS and shape[0] == rows == held and kept == (-(-rows * bits // 32), groups)
    folder.require(fits, packed, f"{rows} rows of bits in {_BITS}", f"{list(shape)}, {held} scales, bits {bits}")
    none = np.full((1, groups), 2.0 ** (bits - 1), np.float32)
    return Groups(
        stem=stem, bits=bits, shape=shape, index=_index(folder, f"{stem}.weight_g_idx", shape[1], groups),
        codes=lambda part: unpacked(folder.words(packed)[part], bits)[:, : shape[1]],
        scale=lambda part: to_array(folder.held(scale)[part]),
        zero=lambda part: unpacked(folder.words(zero).T, bits).T[part] if zero in folder.entries else none,
    ).piece("")  # fmt: skip


# ---- codes of 8 bits as they are, and of 4 bits in a table ------------------------------------------------------


def _stored(folder: PackedFolder, stem: str, names: tuple[str, str, str], unit: float = 1.0) -> Piece:
    """A matrix of integers or floats of 8 bits, with one scale, or one for each row or block of it.

    ``names`` are of codes, scales and zero points, which may be missing; scales are multiplied by ``unit``.
    """
    name, scale, zero = names
    rows, columns = folder.shape(name, "I8", *_FLOAT8)
    dimensions = len(folder.entries[scale][1].shape) if scale in folder.entries else 2
    many = folder.shape(scale, *_FLOATS, dimensions=dimensions)
    high, wide = many if len(many) == 2 else (math.prod(many), 1)
    fits = high > 0 and wide > 0 and rows % high == 0 and columns % wide == 0
    fits = fits and (zero not in folder.entries or math.prod(folder.entries[zero][1].shape) == high * wide)
    folder.require(fits, scale, f"scales that divide {rows} x {columns}", f"{high} x {wide}")
    kind = _FLOAT8.get(folder.entries[name][1].dtype)

    def spread(part: str, start: int, stop: int) -> Array:
        held = to_array(folder.held(part)).reshape(high, wide)
        return held[np.arange(start, stop) // (rows // high)].repeat(columns // wide, axis=1)

    def nearest(units: Array) -> Array:
        if kind is None:
            return np.clip(np.rint(units), -128, 127)
        most = torch.finfo(kind).max
        return to_array(to_tensor(units).clamp(-most, most).to(kind))

    def levels(start: int, stop: int) -> Levels:
        scales = unit * spread(scale, start, stop)
        zeros = spread(zero, start, stop) if zero in folder.entries else np.zeros_like(scales)
        return Levels(
            codes=to_array(folder.held(name)[start:stop]), scale=scales, zero=zeros, nearest=nearest,
            block=columns // wide, count=256 if kind is None else _FLOAT_CODES,
        )  # fmt: skip

    label = "int8" if kind is None else str(kind).removeprefix("torch.")
    return _piece(stem, label, (rows, columns), columns // wide, levels)


class TensorState(msgspec.Struct):
    """What bitsandbytes says of a matrix of 4 bits, in JSON."""

    shape: tuple[int, int]
    blocksize: int
    nested_blocksize: int = 1
    nested_offset: float = 0.0


def _bitsandbytes(folder: PackedFolder, stem: str) -> Piece:
    """bitsandbytes: 8 bits with a scale a row, or 4 bits of a table, in blocks along the whole matrix."""
    name, absmax = f"{stem}.weight", f"{stem}.weight.absmax"
    if absmax not in folder.entries:
        return _stored(folder, stem, (name, f"{stem}.SCB", ""), 1.0 / 127.0)
    kind = "fp4" if f"{name}.quant_state.bitsandbytes__fp4" in folder.entries else "nf4"
    state, table = f"{name}.quant_state.bitsandbytes__{kind}", f"{name}.quant_map"
    length = folder.shape(state, "U8", dimensions=1)[0]
    folder.require(length <= _STATE, state, f"{_STATE:,} bytes at most", f"{length:,}")
    with bounded.parsing(folder.entries[state][0], "What is said of a tensor cannot be read.", expected="JSON"):
        said = msgspec.json.decode(folder.held(state).numpy().tobytes(), type=TensorState)
    (rows, columns), size = said.shape, said.blocksize
    blocks, values = folder.shape(absmax, "F32", "U8", dimensions=1), folder.shape(table, "F32", dimensions=1)

    def pairs() -> NDArray[np.uint8]:
        return folder.held(name).contiguous().view(torch.uint8).reshape(-1).numpy()

    fits = min(rows, columns, size, said.nested_blocksize) > 0 and len(pairs()) == -(-rows * columns // 2)
    fits = fits and values == (16,) and blocks == (-(-rows * columns // max(size, 1)),)
    folder.require(
        fits, name, f"{rows} x {columns} codes in blocks of {size}", f"{len(pairs())} bytes, {blocks} blocks"
    )
    held = to_array(folder.held(table))
    ordered = np.sort(held)

    def scales() -> Array:
        kept = to_array(folder.held(absmax))
        if folder.entries[absmax][1].dtype == "F32":
            return kept
        nested = to_array(folder.held(f"{name}.nested_absmax"))[np.arange(len(kept)) // said.nested_blocksize]
        return to_array(folder.held(f"{name}.nested_quant_map"))[kept.astype(int)] * nested + said.nested_offset

    def levels(start: int, stop: int) -> Levels:
        first, last = start * columns, stop * columns
        part = pairs()[first // 2 : -(-last // 2)]
        codes = np.stack([part >> 4, part & 15], 1).reshape(-1)[first % 2 : first % 2 + last - first]
        scale = scales()[np.arange(first, last) // size].reshape(-1, columns)
        return Levels(
            codes=held[codes].reshape(-1, columns), scale=scale, zero=np.zeros_like(scale),
            nearest=lambda units: ordered[np.searchsorted((ordered[1:] + ordered[:-1]) / 2.0, units)],
            block=math.gcd(columns, size), count=len(ordered),
        )  # fmt: skip

    return _piece(stem, f"{kind}-g{size}", (rows, columns), math.gcd(columns, size), levels)


def _torchao(folder: PackedFolder, stem: str) -> Piece:
    """torchao: tensors of 8 bits, and integers of fewer bits that are kept in 8."""
    qdata, scale, zero = (f"{stem}._weight_{part}" for part in ("qdata", "scale", "zero_point"))
    return _stored(folder, stem, (qdata, scale, zero))


# ---- methods ----------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True, kw_only=True)
class Method:
    """A way in which folders are packed.

    Attributes:
        extra: That installs what it runs with.
        marks: Endings of tensors that say that a matrix is packed.
        parts: Endings of all tensors that belong to it.
        matrix: Reads the matrix of a module.
    """

    extra: str = ""
    packages: tuple[str, ...] = ()
    marks: tuple[str, ...]
    parts: tuple[str, ...]
    matrix: Callable[[PackedFolder, str], Piece]


_ACTIVATIONS: Final = (".input_scale", ".input_zero_point", ".output_scale", ".output_zero_point", ".q_scale",
                       ".k_scale", ".v_scale")  # fmt: skip
"""Endings of what belongs to caches, and to inputs and outputs of modules."""

_WORDS: Final = (".qweight", ".qzeros", ".scales")

METHODS: Final[Mapping[str, Method]] = {
    "gptq": Method(marks=_WORDS, parts=(*_WORDS, ".g_idx"), matrix=_gptq),
    "awq": Method(marks=_WORDS, parts=(*_WORDS, ".g_idx"), matrix=_awq),
    "compressed-tensors": Method(
        extra="ct", packages=("compressed_tensors",), matrix=_compressed, marks=(".weight_packed", ".weight_scale"),
        parts=(".weight", ".weight_packed", ".weight_scale", ".weight_zero_point", ".weight_shape", ".weight_g_idx"),
    ),
    "bitsandbytes": Method(
        extra="bnb", packages=("bitsandbytes", "accelerate"), matrix=_bitsandbytes, marks=(".weight.absmax", ".SCB"),
        parts=(".weight", ".SCB", ".weight_format", ".weight.absmax", ".weight.quant_map", ".weight.nested_absmax",
               ".weight.nested_quant_map", ".weight.quant_state.bitsandbytes__nf4",
               ".weight.quant_state.bitsandbytes__fp4"),
    ),
    "torchao": Method(
        extra="torchao", packages=("torchao",), matrix=_torchao, marks=("._weight_qdata",),
        parts=("._weight_qdata", "._weight_scale", "._weight_zero_point"),
    ),
}  # fmt: skip
"""By their names in ``config.json``."""
