"""Undisturbed weights while a model is disturbed: in the file that they came from, else in a scratch file or a copy."""

import os
from collections.abc import Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Final, final

import torch
from torch import Tensor

from wheeltap.core import bounded
from wheeltap.core.errors import RestorationError, WheeltapError
from wheeltap.core.layer import Layer
from wheeltap.core.settings import LARGE
from wheeltap.core.subject import Subject
from wheeltap.perturb.base import Weights

_TYPES: Final = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""What safetensors calls the numbers of weights."""

_SAME_SIZE: Final = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@final
class CleanWeights:
    """The weights that some layers had when this was made.

    A tensor that equals, to the bit, what the subject's file holds under its name is read from there each time: so no
    second copy of a large model is in memory. Others are copied: of models without such a file, computed weights, and
    weights that were changed since they were loaded. Copies of a large model are in a scratch file, where the folder
    for temporary files has room.

    Args:
        subject: Whose weights.
        layers: Which.

    Attributes:
        from_file: Whether any are read from a file.
    """

    def __init__(self, subject: Subject, layers: Sequence[Layer]) -> None:
        self._subject = subject
        self._copies: dict[str, Tensor] = {}
        self._stored: dict[str, tuple[Path, bounded.Tensor]] = {}
        self._scratch: Any = None
        if sum(subject.parameter(layer.weight).numel() for layer in layers) >= LARGE:
            with suppress(OSError):
                self._scratch = TemporaryFile(buffering=0)  # noqa: SIM115 (closed by close)
        self._spilled: dict[str, tuple[int, torch.Size]] = {}
        self._files: dict[Path, tuple[FileIO, tuple[int, int]]] = {}
        held: dict[str, tuple[Path, bounded.Tensor]] = {}
        with suppress(WheeltapError, OSError):  # the file may be gone by now
            held = {} if subject.contents is None else subject.contents.tensors()
        for layer in layers:
            computed = layer.length is not None
            for name in (layer.weight, *(() if layer.bias is None else (layer.bias,))):
                live = subject.weight(layer) if name == layer.weight else subject.parameter(name)
                if not computed and name in held and self._equals(live, held[name]):
                    self._stored[name] = held[name]
                elif not self._spill(name, live):
                    self._copies[name] = live.detach().clone()
        self.from_file = bool(self._stored or self._spilled)

    def hold(self) -> None:
        """Takes what is in the scratch file into memory: a curve that asks again and again is a fifth faster so."""
        for name in list(self._spilled):
            self._copies[name] = self._tensor(name)
            del self._spilled[name]
        self.from_file = bool(self._stored)

    def close(self) -> None:
        """Lets go of copies and files."""
        for file, _ in self._files.values():
            file.close()
        if self._scratch is not None:
            self._scratch.close()
        self._files.clear()
        self._copies.clear()

    def of(self, layer: Layer) -> Weights:
        """The clean weight and bias of a layer.

        Raises:
            RestorationError: If the file changed since.
        """
        return Weights(self._tensor(layer.weight), None if layer.bias is None else self._tensor(layer.bias))

    def _tensor(self, name: str) -> Tensor:
        if name in self._copies:
            return self._copies[name]
        if name in self._spilled:
            live = self._subject.parameter(name)
            at, shape = self._spilled[name]
            held = torch.empty(shape, dtype=live.dtype, device="cpu")
            self._scratch.seek(at)
            _fill(held, self._scratch)
            return held.to(live.device)
        return self._read(*self._stored[name], like=self._subject.parameter(name))

    def _spill(self, name: str, live: Tensor) -> bool:
        """Writes a tensor behind the others of the scratch file; says whether there is one, with room."""
        if self._scratch is None or live.shape != self._subject.parameter(name).shape:  # computed
            return False
        data = live.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        at = start = self._scratch.seek(0, os.SEEK_END)
        try:
            while at < start + len(data):
                at += self._scratch.write(data[at - start :])
        except OSError:
            return False
        self._spilled[name] = start, live.shape
        return True

    def _equals(self, live: Tensor, held: tuple[Path, bounded.Tensor]) -> bool:
        """Whether a tensor is the one in the file, bit by bit, after the cast that loading makes."""
        path, entry = held
        if entry.dtype not in _TYPES or entry.shape != tuple(live.shape) or live.dtype.itemsize not in _SAME_SIZE:
            return False
        try:
            found = self._read(path, entry, like=live)
        except (RestorationError, OSError):
            return False
        bits = _SAME_SIZE[live.dtype.itemsize]
        return torch.equal(live.detach().reshape(-1).view(bits), found.reshape(-1).view(bits))

    def _read(self, path: Path, entry: bounded.Tensor, *, like: Tensor) -> Tensor:
        # Not mapped into memory: a mapped file that is cut short ends the process, and its pages count as its memory.
        if path not in self._files:
            opened = FileIO(path)
            self._files[path] = opened, _state(opened)
        file, before = self._files[path]
        held = torch.empty(entry.shape, dtype=_TYPES[entry.dtype], device="cpu")
        file.seek(0)
        file.seek(8 + int.from_bytes(file.read(8), "little") + entry.data_offsets[0])
        if not _fill(held, file) or _state(file) != before:
            raise RestorationError(
                "The file of the weights changed while the model was disturbed: the model is another one now.",
                where=f"{self._subject.name}: {path}",
                expected="a file that stays as it was when the model was loaded",
                got=f"{os.fstat(file.fileno()).st_size:,} bytes, written to since",
                do="Throw this run's results away, and load the model again. Write a new model to another folder.",
            )
        return held.to(device=like.device, dtype=like.dtype)


def _fill(tensor: Tensor, file: FileIO) -> bool:
    """Reads the bytes of a new tensor; says whether the file had as many."""
    into, at = tensor.reshape(-1).view(torch.uint8).numpy().data, 0
    while at < len(into) and (read := file.readinto(into[at:])):
        at += read
    return at == len(into)


def _state(file: FileIO) -> tuple[int, int]:
    """What changes where someone writes to a file."""
    held = os.fstat(file.fileno())
    return held.st_size, held.st_mtime_ns
