"""The header of a GGUF file: read with bounds, to find a damaged file before anything trusts it.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from wheeltap.core.bounded import opened
from wheeltap.core.errors import FileFormatError
from wheeltap.sources.model_size import require_modest

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_MAX_ENTRIES, _MAX_TENSORS, _MAX_STRING, _MAX_ARRAY = 10_000, 100_000, 16_000_000, 16_000_000
_MAX_DEPTH = 4
_BESIDE = ("general", "tokenizer", "quantize", "split")
"""How names of entries begin that say nothing of the model's size."""

_WHOLE = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 10: "Q", 11: "q"}


@dataclass(frozen=True)
class TensorPlace:
    """Where a tensor's data lie.

    Attributes:
        kind: GGML's number for the quantisation.
        offset: In bytes from the start of the data.
    """

    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class GgufHeader:
    """What the header says.

    Attributes:
        data: First byte of the tensors' data in the file.
        entries: First byte of each entry's kind and value, and the byte after, by its name.
    """

    tensors: tuple[TensorPlace, ...]
    data: int
    entries: dict[str, tuple[int, int]]


class _Reader:
    """Reads little-endian numbers and strings, and stops with an error at the end of the file."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.file, self.path = file, path
        self.size = path.stat().st_size

    def fail(self, got: str) -> NoReturn:
        raise FileFormatError(
            "The GGUF file is damaged.",
            where=f"{self.path}: byte {self.file.tell()} of {self.size}",
            expected="a whole GGUF file of version 2 or 3",
            got=got,
            do="Download it again; it may have been cut short.",
        )

    def bytes(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) != count:
            self.fail(f"the file ends {count - len(data)} bytes too early")
        return data

    def skip(self, count: int) -> None:
        if self.file.tell() + count > self.size:
            self.fail("a value reaches past the end of the file")
        self.file.seek(count, 1)

    def number(self, code: str) -> int:
        return int(struct.unpack(f"<{code}", self.bytes(struct.calcsize(f"<{code}")))[0])

    def count(self, code: str, most: int, what: str) -> int:
        value = self.number(code)
        if value > most:
            self.fail(f"{value} {what}, more than the {most} that make sense")
        return value

    def modest(self, name: str, value: int) -> None:
        """Whole numbers say how many layers and tokens there are: none is larger than one of its kind."""
        try:
            require_modest({name: value})
        except ValueError as error:
            self.fail(str(error))

    def string(self) -> str:
        return self.bytes(self.count("Q", _MAX_STRING, "bytes in a string")).decode("utf-8", "replace")

    def skip_value(self, kind: int, depth: int = 0) -> None:
        if kind in _SIZES:
            self.skip(_SIZES[kind])
        elif kind == _STRING:
            self.skip(self.number("Q"))
        elif kind == _ARRAY and depth < _MAX_DEPTH:
            inner, count = self.number("I"), self.count("Q", _MAX_ARRAY, "values in a list")
            if inner in _SIZES:
                self.skip(_SIZES[inner] * count)
            else:
                for _ in range(count):
                    self.skip_value(inner, depth + 1)
        else:
            self.fail(f"a value of unknown kind {kind}")


def read_header(path: Path) -> GgufHeader:
    """The header of the GGUF file at ``path``; every count is bounded and nothing past the header is read.

    Raises:
        MissingFile: If there is no file.
        FileFormatError: If it is not a GGUF file, or ends inside its header.
    """
    with opened(path, "GGUF file", do="Check the path.") as file:
        reader = _Reader(file, path)
        magic = file.read(4)
        if magic != _MAGIC:
            raise FileFormatError(
                "This is not a GGUF file.",
                where=str(path),
                expected=f"a file that starts with {_MAGIC!r}",
                got=repr(magic) if magic else "an empty file",
                do="Give a file made for llama.cpp, or hf:DIR for a Hugging Face folder.",
            )
        version = reader.number("I")
        if version not in _VERSIONS:
            reader.fail(f"version {version}")
        return _body(reader)


def _body(reader: _Reader) -> GgufHeader:
    tensors = reader.count("Q", _MAX_TENSORS, "tensors")
    alignment, entries = 32, dict[str, tuple[int, int]]()
    for _ in range(reader.count("Q", _MAX_ENTRIES, "entries")):
        name, start = reader.string(), reader.file.tell()
        kind = reader.number("I")
        if name == "general.alignment" and kind == _UINT32:
            alignment = max(reader.number("I"), 1)
        elif kind in _WHOLE and name.partition(".")[0] not in _BESIDE:
            reader.modest(name, reader.number(_WHOLE[kind]))
        else:
            reader.skip_value(kind)
        if name in entries:
            reader.fail(f"two entries {name[:80]!r}")
        entries[name] = start, reader.file.tell()
    places = tuple(_place(reader) for _ in range(tensors))
    if len({place.name for place in places}) < len(places):
        reader.fail("two tensors with one name")
    return GgufHeader(places, -(-reader.file.tell() // alignment) * alignment, entries)


def _place(reader: _Reader) -> TensorPlace:
    name = reader.string()
    shape = tuple(reader.number("Q") for _ in range(reader.count("I", 8, "dimensions")))
    return TensorPlace(name, shape, reader.number("I"), reader.number("Q"))
