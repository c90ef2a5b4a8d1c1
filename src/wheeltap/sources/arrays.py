"""Tasks from ``.npz`` files: ``inputs`` (by name: ``input_ids`` ...), ``targets``, perhaps more; never pickles."""

import difflib
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core.errors import DataError, FileFormatError, MissingFile, WheeltapError
from wheeltap.core.symmetry import Symmetry
from wheeltap.core.task import Task

MAX_BYTES = 4_000_000_000
"""Of one array, unpacked: a small file can unpack to more than the memory holds."""

NAMED = ("input_ids", "attention_mask", "token_type_ids", "pixel_values")
"""Inputs that stand by their name in the file, for a model that is called by name."""

GROUPS, BEHAVIORS, SYMMETRY, VOTES, ORDINAL_VOTES = "groups", "behaviors", "symmetry", "votes", "ordinal_votes"
OPTIONAL = (GROUPS, BEHAVIORS, SYMMETRY, VOTES, ORDINAL_VOTES)

FACTOR = "factor_"
"""What the names of arrays that are labels of a factor begin with."""

MAX_FACTORS = 64
"""Factors of one file; each is looked at on every layer."""


def load_arrays(path: Path, *, max_bytes: int = MAX_BYTES) -> Task:
    """A task of the arrays ``inputs`` ``[example, ...]`` and ``targets`` ``[example]`` or ``[example, output]``.

    In place of ``inputs`` there may be ``input_ids`` (with ``attention_mask`` and ``token_type_ids``) or
    ``pixel_values``: the model is then called as ``model(input_ids=..., attention_mask=...)``.

    An array ``groups`` of whole numbers or names, ``[example]`` or ``[example, level]``, if there is one, tells which
    examples come together; ``behaviors`` ``[example]`` of whole numbers, which behavior each is one of, if not these;
    arrays ``factor_NAME`` ``[example]`` of whole numbers are labels of factors, for the audit ``decodable``; an array
    ``symmetry`` ``[element, example]`` tells where each element of a group moves the examples (the first row moves
    nothing), for the audit ``symmetry``; an array ``votes`` ``[example, option]`` of counts (``ordinal_votes``, where
    the options are in an order) says what people chose, for the audit ``disagreement``.

    Args:
        path: The ``.npz`` file, as ``numpy.savez(path, inputs=..., targets=...)`` writes it.
        max_bytes: Most bytes that an array may unpack to.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If it is not an ``.npz`` file, lacks an array, or holds objects.
        DataError: If an array is too large, there are too many factors, or the arrays do not make a task (lengths,
            shapes, values).
    """
    if not path.is_file():
        raise MissingFile("The data file is not there.", where=str(path), do="Check the path given with --data.")
    try:
        with zipfile.ZipFile(path) as archive:
            _require_meant([name.removesuffix(".npy") for name in archive.namelist()], path)
            factors = _factors(archive, path)
            known = [name for name in OPTIONAL if f"{name}.npy" in archive.namelist()]
            inputs = _inputs(archive, path)
            names = (*inputs, "targets", *known, *factors)
            shapes = {name: _described(archive, name, path) for name in names}
            for name, (shape, dtype) in shapes.items():
                _require_plain(path, name, shape, dtype, max_bytes=max_bytes)
        with np.load(path, allow_pickle=False) as arrays:
            read = {name: _tensor(np.asarray(arrays[name])) for name in shapes if name != GROUPS}
            groups = np.asarray(arrays[GROUPS]) if GROUPS in shapes else None
    except WheeltapError:
        raise
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise _not_npz(path, error) from error
    named = {name: read[name] for name in inputs}
    task = Task(named.get("inputs", named), read["targets"], name=path.stem)
    if groups is not None:
        task = task.with_groups(groups if groups.dtype.kind == "U" else _tensor(groups))
    if BEHAVIORS in read:
        task = task.with_behaviors(read[BEHAVIORS])
    if SYMMETRY in read:
        task = task.with_symmetry(_symmetry(read[SYMMETRY], path))
    for name in (VOTES, ORDINAL_VOTES):
        if name in read:
            task = task.with_votes(read[name], ordinal=name == ORDINAL_VOTES)
    return task.with_factors({name.removeprefix(FACTOR): read[name] for name in factors}) if factors else task


def load_sequences(path: Path, *, max_bytes: int = MAX_BYTES) -> torch.Tensor:
    """The array ``tokens`` ``[sequence, place]`` of whole numbers in an ``.npz`` file.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If it is not an ``.npz`` file, or has no such array.
        DataError: If the array is too large.
    """
    if not path.is_file():
        raise MissingFile("The data file is not there.", where=str(path), do="Check the path given with --data.")
    try:
        with zipfile.ZipFile(path) as archive:
            shape, dtype = _described(archive, "tokens", path)
            _require_plain(path, "tokens", shape, dtype, max_bytes=max_bytes)
            if len(shape) != 2 or dtype.kind not in "iu":
                raise FileFormatError(
                    "The file has no sequences of tokens.",
                    where=str(path),
                    expected="an array tokens [sequence, place] of whole numbers",
                    got=f"{dtype} {list(shape)}",
                    do="Write it with numpy.savez(path, tokens=...).",
                )
            with archive.open("tokens.npy") as member:
                return _tensor(np.lib.format.read_array(member, allow_pickle=False))
    except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
        raise _not_npz(path, error) from error


def _symmetry(moved: torch.Tensor, path: Path) -> Symmetry:
    if moved.is_floating_point() or moved.dtype is torch.bool:
        raise DataError(
            "The symmetry does not say where examples go.",
            where=str(path),
            expected="whole numbers [element, example]",
            got=str(moved.dtype).removeprefix("torch."),
        )
    try:
        return Symmetry("symmetry of the data", moved.long())
    except DataError as error:
        raise error.at(f"{path}: the array {SYMMETRY}") from error


def _require_meant(names: Sequence[str], path: Path) -> None:
    """Arrays that nothing reads are let be; but one that is nearly called like one that is read was meant to be."""
    known = ("inputs", "targets", *NAMED, *OPTIONAL)
    for name in names:
        if name in known or re.fullmatch(rf"{FACTOR}.+", name):
            continue
        factor = FACTOR if difflib.get_close_matches(name[: len(FACTOR)], [FACTOR], cutoff=0.8) else ""
        near = [f"{FACTOR}NAME"] if factor else difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if near:
            raise DataError(
                "The data file has an array that nothing reads.",
                where=str(path),
                expected=f"{', '.join(known)} and {FACTOR}NAME",
                got=name,
                do=f"Call it {near[0]}, if that is what it is; or leave it out.",
            )


def _inputs(archive: zipfile.ZipFile, path: Path) -> tuple[str, ...]:
    """Names of the arrays that the model is called with."""
    held = archive.namelist()
    named = tuple(name for name in NAMED if f"{name}.npy" in held)
    if not named:
        return ("inputs",)
    if "inputs.npy" in held or not {"input_ids", "pixel_values"} & set(named):
        raise DataError(
            "The data file does not say what the model is called with.",
            where=str(path),
            expected="inputs alone, or input_ids (with attention_mask, token_type_ids), or pixel_values",
            got=", ".join(name for name in ("inputs", *NAMED) if f"{name}.npy" in held),
            do="Name each array as the argument of the model that it is.",
        )
    return named


def _factors(archive: zipfile.ZipFile, path: Path) -> tuple[str, ...]:
    """Names of the arrays that are labels of a factor."""
    names = tuple(
        sorted(name.removesuffix(".npy") for name in archive.namelist() if re.fullmatch(rf"{FACTOR}.+\.npy", name))
    )
    if len(names) > MAX_FACTORS:
        raise DataError(
            "The data file has too many factors.",
            where=str(path),
            expected=f"at most {MAX_FACTORS} arrays {FACTOR}NAME",
            got=str(len(names)),
            do="Keep those you want to ask about.",
        )
    return names


def _not_npz(path: Path, error: Exception) -> FileFormatError:
    return FileFormatError(
        "The data file cannot be read.",
        where=str(path),
        expected="an .npz file",
        got=f"{path.stat().st_size} bytes: {error}",
        do="Write it with numpy.savez(path, inputs=..., targets=...).",
    )


def _described(archive: zipfile.ZipFile, name: str, path: Path) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of one array, from its header alone."""
    if f"{name}.npy" not in archive.namelist():
        raise FileFormatError(
            f"The data file has no array {name!r}.",
            where=str(path),
            expected="arrays inputs (or input_ids, pixel_values) and targets",
            got=", ".join(sorted(n.removesuffix(".npy") for n in archive.namelist())[:8]) or "no arrays",
            do="Write it with numpy.savez(path, inputs=..., targets=...).",
        )
    with archive.open(f"{name}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    return shape, dtype


def _require_plain(path: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], *, max_bytes: int) -> None:
    if dtype.kind not in "biuf" and (name, dtype.kind) != (GROUPS, "U"):
        raise FileFormatError(
            f"The array {name!r} does not hold numbers.",
            where=str(path),
            expected="whole or floating-point numbers",
            got="Python objects (a pickle, which can run code when loaded)" if dtype.hasobject else str(dtype),
            do="Convert it first, for instance with numpy.asarray(..., dtype='float32').",
        )
    if not shape:
        raise DataError(
            f"The array {name!r} has no axes.",
            where=str(path),
            expected="one row per example",
            got="a single number",
        )
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size > max_bytes:
        raise DataError(
            f"The array {name!r} is too large.",
            where=str(path),
            expected=f"at most {max_bytes} bytes",
            got=f"{size} bytes: {list(shape)} of {dtype}",
            do="Use fewer examples; a few thousand are enough for every audit.",
        )


def _tensor(array: NDArray[Any]) -> torch.Tensor:
    """As torch knows it: native byte order, float64 to float32 (the models' type), unsigned to int64."""
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):  # a number beyond single precision becomes infinite, and is refused as such
            return torch.as_tensor(array.astype(np.float32 if array.dtype.itemsize != 2 else np.float16))
    return torch.as_tensor(array.astype(np.int64) if array.dtype.kind in "ui" else array)
