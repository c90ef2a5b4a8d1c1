"""Tasks from ``.npz`` files: ``inputs`` (by name: ``input_ids`` ...), ``targets``, perhaps more; never pickles."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray

from wheeltap.core.bounded import Npz
from wheeltap.core.errors import DataError, FileFormatError
from wheeltap.core.repeats import is_id, shared_ids
from wheeltap.core.symmetry import Symmetry
from wheeltap.core.task import Kind, Task
from wheeltap.core.typed import to_tensor
from wheeltap.sources.base import DataSource, ExampleReader
from wheeltap.sources.hf import suited
from wheeltap.sources.jsonl import MAX_FACTORS

_WRITE = "Write it with numpy.savez(path, inputs=..., targets=...)."

NAMED = ("input_ids", "attention_mask", "token_type_ids", "pixel_values")
"""Inputs that stand by their name in the file, for a model that is called by name."""

GROUPS, BEHAVIORS, SYMMETRY, VOTES, ORDINAL_VOTES = "groups", "behaviors", "symmetry", "votes", "ordinal_votes"
MASK = "mask"
"""In the shape of the targets: 0 where a pixel or token does not count."""

OPTIONAL = (GROUPS, BEHAVIORS, SYMMETRY, VOTES, ORDINAL_VOTES)

ARGUMENT = "inputs_"
"""What the names of arrays begin with that are arguments of the model, by the rest of the name."""

FACTOR = "factor_"
"""What the names of arrays that are labels of a factor begin with."""


@final
class ArrayFiles(DataSource):
    """See ``load_arrays``."""

    form = "FILE.npz"
    title = "Arrays inputs (or input_ids, attention_mask, pixel_values) and targets, perhaps more."
    takes_groups = True

    def load(self, rest: str, reader: ExampleReader) -> Task:
        """See ``DataSource.load``."""
        task = load_arrays(Path(rest), groups=reader.groups)
        return task if reader.classifier is None else suited(task, reader.classifier)


def load_arrays(path: Path, *, groups: str = GROUPS) -> Task:
    """A task of the arrays ``inputs`` ``[example, ...]`` and ``targets`` ``[example]`` or ``[example, output]``.

    In place of ``inputs`` there may be ``input_ids`` (with ``attention_mask`` and ``token_type_ids``) or
    ``pixel_values``: the model is then called as ``model(input_ids=..., attention_mask=...)``. Arrays ``inputs_NAME``
    are arguments of any other name: ``model(NAME=...)``. Targets of tokens or pixels may have a ``mask``.

    An array ``groups`` of whole numbers or names, ``[example]`` or ``[example, level]``, if there is one, tells which
    examples come together; ``behaviors`` ``[example]`` of whole numbers, which behavior each is one of, if not these;
    arrays ``factor_NAME`` ``[example]`` of whole numbers are labels of factors, for the audit ``decodable``; an array
    ``symmetry`` ``[element, example]`` tells where each element of a group moves the examples (the first row moves
    nothing), for the audit ``symmetry``; an array ``votes`` ``[example, option]`` of counts (``ordinal_votes``, where
    the options are in an order) says what people chose, for the audit ``disagreement``. Without ``groups``, an array
    that by its name is an id (``patient``, ``document_id``) and whose values repeat gives the groups.

    Args:
        path: Of the file.
        groups: Name of the array that tells which examples come together.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If it is not an ``.npz`` file, lacks an array, or holds objects.
        DataError: If the arrays are too large, there are too many factors, or the arrays do not make a task (lengths,
            shapes, values).
    """
    with Npz(path, "data file", do=_WRITE) as archive:
        _require_meant(archive, groups)
        inputs = _inputs(archive)
        names = (*inputs, "targets", *({MASK} & {*archive.names}))
        _require_plain(archive, names)
        read = {name: torch.as_tensor(_numbers(archive, name)) for name in names}
    named = {name.removeprefix(ARGUMENT): read[name] for name in inputs}
    targets = read["targets"] if MASK not in read else _counting(read["targets"], read[MASK], path)
    return annotated(Task(named.get("inputs", named), targets, name=path.stem), path, groups=groups)


def annotated(task: Kind, path: Path, *, groups: str = GROUPS) -> Kind:
    """A task, with what else a file knows of its examples: see ``load_arrays``."""
    with Npz(path, "data file", do=_WRITE) as archive:
        factors = _factors(archive)
        names = (*(name for name in OPTIONAL if name in archive.names and name != GROUPS), *factors)
        _require_plain(archive, names)
        read = {name: torch.as_tensor(_numbers(archive, name)) for name in names}
        given, ids = None, None
        if groups in archive.names or groups != GROUPS:
            _require_plain(archive, (groups,), texts=True)
            given = _numbers(archive, groups)
        else:
            ids = _ids(archive, len(task.targets))
    if given is not None:
        task = task.with_groups(given if given.dtype.kind == "U" else torch.as_tensor(given))
    elif ids is not None:
        task = task.with_noticed(to_tensor(ids[1]), f"have the same {ids[0]}")
    if BEHAVIORS in read:
        task = task.with_behaviors(read[BEHAVIORS])
    if SYMMETRY in read:
        task = task.with_symmetry(_symmetry(read[SYMMETRY], path))
    for name in (VOTES, ORDINAL_VOTES):
        if name in read:
            task = task.with_votes(read[name], ordinal=name == ORDINAL_VOTES)
    return task.with_factors({name.removeprefix(FACTOR): read[name] for name in factors}) if factors else task


def load_sequences(path: Path, name: str = "tokens") -> torch.Tensor:
    """The array ``tokens``, or of another name, ``[sequence, place]`` of whole numbers in an ``.npz`` file.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If it is not an ``.npz`` file, or has no such array.
        DataError: If the array is too large.
    """
    with Npz(path, "data file", do=_WRITE) as archive:
        _require_plain(archive, (name,))
        shape, dtype, _ = archive.header(name)
        if len(shape) != 2 or dtype.kind not in "iu":
            raise FileFormatError(
                "The file has no sequences of tokens.",
                where=str(path),
                expected=f"an array {name} [sequence, place] of whole numbers",
                got=f"{dtype} {list(shape)}",
                do=f"Write it with numpy.savez(path, {name}=...).",
            )
        return torch.as_tensor(_numbers(archive, name))


def _counting(targets: torch.Tensor, mask: torch.Tensor, path: Path) -> torch.Tensor:
    """The targets, those left out that the mask does not count."""
    if mask.shape != targets.shape or targets.is_floating_point() or targets.ndim < 2:
        raise DataError(
            "The mask does not fit the targets.",
            where=f"{path}: the array {MASK}",
            expected="the shape of targets that are whole numbers, [example, token] or [example, row, column]",
            got=f"{list(mask.shape)}; targets {list(targets.shape)} of {str(targets.dtype).removeprefix('torch.')}",
            do="Give 1 where a token or pixel counts and 0 elsewhere; an attention mask is called attention_mask.",
        )
    return torch.where(mask != 0, targets.long(), -100)


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


def _require_meant(archive: Npz, groups: str) -> None:
    """Npz that nothing reads are let be; but one that is nearly called like one that is read was meant to be."""
    known = ("inputs", "targets", MASK, *NAMED, *OPTIONAL, groups)
    for name in archive.names:
        if name in known or re.fullmatch(rf"({FACTOR}|{ARGUMENT}).+", name):
            continue
        factor = FACTOR if difflib.get_close_matches(name[: len(FACTOR)], [FACTOR], cutoff=0.8) else ""
        near = [f"{FACTOR}NAME"] if factor else difflib.get_close_matches(name, known, n=1, cutoff=0.8)
        if near:
            raise DataError(
                "The data file has an array that nothing reads.",
                where=str(archive.path),
                expected=f"{', '.join(known)} and {FACTOR}NAME",
                got=name,
                do=f"Call it {near[0]}, if that is what it is; or leave it out.",
            )


def _inputs(archive: Npz) -> tuple[str, ...]:
    """Names of the arrays that the model is called with."""
    held = archive.names
    own = tuple(name for name in held if re.fullmatch(rf"{ARGUMENT}.+", name))
    named = (*(name for name in NAMED if name in held), *own)
    if not named:
        return ("inputs",)
    if "inputs" in held or not {"input_ids", "pixel_values", *own} & set(named):
        raise DataError(
            "The data file does not say what the model is called with.",
            where=str(archive.path),
            expected="inputs alone, or input_ids (with attention_mask, token_type_ids), pixel_values, or inputs_NAME",
            got=", ".join(name for name in ("inputs", *NAMED, *own) if name in held),
            do="Name each array as the argument of the model that it is.",
        )
    return named


def _factors(archive: Npz) -> tuple[str, ...]:
    """Names of the arrays that are labels of a factor."""
    names = tuple(sorted(name for name in archive.names if re.fullmatch(rf"{FACTOR}.+", name)))
    if len(names) > MAX_FACTORS:
        raise DataError(
            "The data file has too many factors.",
            where=str(archive.path),
            expected=f"at most {MAX_FACTORS} arrays {FACTOR}NAME",
            got=str(len(names)),
            do="Keep those you want to ask about.",
        )
    return names


def _ids(archive: Npz, examples: int) -> tuple[str, NDArray[np.intp]] | None:
    """Arrays that by their name are ids of what examples share: see ``shared_ids``."""
    held = dict[str, Sequence[object]]()
    for name in archive.names:
        shape, dtype, _ = archive.header(name)
        if is_id(name.removeprefix(FACTOR)) and shape == (examples,) and dtype.kind in "iuU":
            held[name] = archive.array(name, dtype).tolist()
    return shared_ids(held)


def _require_plain(archive: Npz, names: Sequence[str], *, texts: bool = False) -> None:
    """Checks that arrays are there, hold numbers (or ``texts``), and fit in memory; from their headers alone."""
    for name in names:
        if name not in archive.names:
            raise FileFormatError(
                f"The data file has no array {name!r}.",
                where=str(archive.path),
                expected=name if texts else "arrays inputs (or input_ids, pixel_values) and targets",
                got=", ".join(sorted(archive.names)[:8]) or "no arrays",
                do="Give --groups (groups=) the name of one of these." if texts else _WRITE,
            )
        shape, dtype, _ = archive.header(name)
        if dtype.kind not in ("biufU" if texts else "biuf"):
            raise FileFormatError(
                f"The array {name!r} does not hold numbers.",
                where=str(archive.path),
                expected="whole or floating-point numbers",
                got="Python objects (a pickle, which can run code when loaded)" if dtype.hasobject else str(dtype),
                do="Convert it first, for instance with numpy.asarray(..., dtype='float32').",
            )
        if not shape:
            raise DataError(
                f"The array {name!r} has no axes.",
                where=str(archive.path),
                expected="one row per example",
                got="a single number",
            )
    kept = {name: _kept(archive.header(name)[1]) for name in names}
    archive.require_small(
        kept, do="Use fewer examples (a few thousand are enough for every audit), or smaller numbers."
    )


def _kept(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """As torch knows it: native byte order, float64 to float32 (the models' type), whole numbers to int64."""
    if dtype.kind == "f":  # a number beyond single precision becomes infinite, and is refused as such
        return np.dtype(np.float16 if dtype.itemsize == 2 else np.float32)
    return np.dtype(np.int64) if dtype.kind in "ui" else dtype.newbyteorder("=")


def _numbers(archive: Npz, name: str) -> NDArray[Any]:
    return archive.array(name, _kept(archive.header(name)[1]))
