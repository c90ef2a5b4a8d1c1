"""GGUF files: dequantized by transformers at each load. Nothing is kept: a copy on disk would be one more to trust.

The header is read with bounds first, to find a damaged file before anything trusts it.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import contextlib
import functools
import hashlib
import importlib
import math
import re
import struct
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Final, NoReturn, cast, final

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from wheeltap.core.bounded import NAME, opened
from wheeltap.core.errors import FileFormatError, ModelError
from wheeltap.core.files import Contents, Digests
from wheeltap.core.subject import Subject
from wheeltap.recipes.randomness import own_random_numbers
from wheeltap.sources import hf
from wheeltap.sources.base import LoadedModel, ModelSource, refuse_pickle
from wheeltap.sources.gguf_texts import as_llama_cpp
from wheeltap.sources.hf import HfTokenizer, language_model
from wheeltap.sources.model_size import Size, require_modest
from wheeltap.sources.shipped import ShippedModel

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_MAX_ENTRIES, _MAX_TENSORS, _MAX_STRING, _MAX_LISTED = 10_000, 100_000, 16_000_000, 2**21
_MAX_DEPTH = 4
_BESIDE = ("general", "tokenizer", "quantize", "split")
"""How names of entries begin that say nothing of the model's size."""

_WHOLE = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 10: "Q", 11: "q"}
_CODES = {**_WHOLE, 6: "f", 7: "?", 12: "d"}

_DESCRIBES: Final = re.compile(
    r"general\.(author|version|organization|description|quantized_by|size_label|finetune|basename|tags|languages"
    r"|file_type|quantization_version|uuid|doi|(license|url|repo_url|source|base_model|dataset)[.\w]*)|quantize\..*"
)
"""Entries that change nothing. The name of a model does: loaders have rules for some."""

_PARTS: Final = (("tokenizer.chat_template", "template"), ("tokenizer.", "tokenizer"), ("adapter.", "adapter"))


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
        self.listed = 0

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

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.bytes(struct.calcsize(f"<{code}")))[0]

    def count(self, code: str, most: int, what: str) -> int:
        value: int = self.number(code)
        if value > most:
            self.fail(f"{value} {what}, more than the {most} that make sense")
        return value

    def string(self, most: int = _MAX_STRING) -> str:
        return self.bytes(self.count("Q", most, "bytes in a string")).decode("utf-8", "replace")

    def value(self, kind: int, *, kept: bool, depth: int = 0) -> Any:
        """A number, a text, a flag or a list of these; it is only passed over where it is not kept."""
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY and depth < _MAX_DEPTH:
            inner, count = self.number("I"), self.count("Q", _MAX_LISTED - self.listed, "values in lists")
            self.listed += count  # the reader makes objects of each: the largest vocabularies in use have 1.3 million
            if inner in _CODES and not kept:
                return self.skip(struct.calcsize(f"<{_CODES[inner]}") * count)
            each = (self.value(inner, kept=kept, depth=depth + 1) for _ in range(count))
            return list(each) if kept else deque(each, maxlen=0)
        if kind not in _CODES:
            self.fail(f"a value of unknown kind {kind}")
        return self.number(_CODES[kind])


def read_entry(path: Path, start: int) -> Any:
    """The value of an entry whose kind is at byte ``start``: a number, a text, a flag, or a list of these."""
    with opened(path, "GGUF file") as file:
        file.seek(start)
        reader = _Reader(file, path)
        return reader.value(reader.number("I"), kept=True)


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
            try:  # how many layers and tokens there are: none is larger than one of its kind
                require_modest({name: reader.number(_WHOLE[kind])})
            except ValueError as error:
                reader.fail(str(error))
        else:
            reader.value(kind, kept=False)
        if name in entries:
            reader.fail(f"two entries {name[:80]!r}")
        entries[name] = start, reader.file.tell()
    places: list[TensorPlace] = []
    for _ in range(tensors):
        name = reader.string(NAME)
        shape = tuple(reader.number("Q") for _ in range(reader.count("I", 8, "dimensions")))
        if not all(shape or [0]):
            reader.fail(f"a tensor {name[:80]!r} of shape {list(shape)}")
        places.append(TensorPlace(name, shape, reader.number("I"), reader.number("Q")))
    if len({place.name for place in places}) < len(places):
        reader.fail("two tensors with one name")
    return GgufHeader(tuple(places), -(-reader.file.tell() // alignment) * alignment, entries)


@final
class GgufFiles(ModelSource):
    """See ``load_gguf``."""

    form = "gguf:FILE"
    title = "A language model in a GGUF file (extra: llm)."
    place = "file"

    def load(self, rest: str, *, name: str) -> LoadedModel:
        """See ``ModelSource.load``."""
        path = Path(rest).expanduser()
        refuse_pickle(path)
        return load_gguf(path, name=name)

    def shipped(self, rest: str, *, reference: Subject) -> ShippedModel:
        """See ``ModelSource.shipped``: it is read by ``gguf`` alone, into a copy of the original."""
        from wheeltap.sources.gguf_weights import ShippedGguf

        return ShippedGguf(Path(rest).expanduser(), reference=reference)


def load_gguf(path: Path, *, name: str) -> LoadedModel:
    """The language model in a GGUF file, dequantized to float32, in eval mode, on the CPU.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If it is not GGUF or is cut short.
        MissingExtra: If transformers or gguf is not installed.
        ModelError: If transformers does not know the architecture, or weights are missing.
    """
    header = read_header(path)
    transformers, gguf = hf.library(needed_for=name), hf.library("gguf", needed_for=name)
    widths = require_whole(path, header, gguf)
    with hf.translated(transformers, path, "GGUF file"), _read_once(gguf):
        where: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), **where)
        tokenizer("a b")
        kind, pre = (
            read_entry(path, header.entries[entry][0]) if entry in header.entries else ""
            for entry in ("tokenizer.ggml.model", "tokenizer.ggml.pre")
        )
        # Without a name of its cuts, llama.cpp takes those called "default".
        reads = as_llama_cpp(tokenizer, str(pre or "default"), path) if kind == "gpt2" else HfTokenizer(tokenizer)
        size = Size(len(header.tensors), sum(math.prod(one.shape) for one in header.tensors))
        model, contrary = _dequantized(transformers, path, where, size)
        read = {tensor for tensor, to in _read(path, header, model).items() if to not in contrary}
    subject = Subject(model.eval(), name=name)
    subject.contents = GgufContents(path, {tensor: width for tensor, width in widths.items() if tensor not in read})
    return language_model(subject, reads)


def _read(path: Path, header: GgufHeader, model: nn.Module) -> Mapping[str, str]:
    """Names that tensors of a file have where transformers reads them, each with that of the part it goes to."""
    reader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    at = header.entries.get("general.architecture")
    architecture = "" if at is None else str(read_entry(path, at[0]))
    processor = reader.TENSOR_PROCESSORS.get(architecture, reader.TensorProcessor)(config={})
    return reader.get_gguf_hf_weights_map(model, processor)


@contextlib.contextmanager
def _read_once(gguf: Any) -> Generator[None]:
    """A block in which transformers reads the header once, where it would read it three times, and a third as fast.

    A mapped array makes an object at each of a million cuts; a plain one does not. Names are looked up in one table,
    where each part of the model would get one of its own.
    """
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    cut: Any = gguf.GGUFReader._get

    class Reader(gguf.GGUFReader):
        data: Any

        def _get(self, *given: Any, **named: Any) -> Any:
            self.data = np.asarray(self.data)
            return cut(self, *given, **named)

    gguf.GGUFReader, gguf.get_tensor_name_map = functools.cache(Reader), functools.cache(gguf.get_tensor_name_map)
    try:
        yield
    finally:
        gguf.GGUFReader, gguf.get_tensor_name_map = before


def require_whole(path: Path, header: GgufHeader, gguf: Any) -> dict[str, int]:
    """How many bytes each tensor has; it is checked that the file reaches to the last byte of the last one."""
    sizes = {int(kind): block for kind, block in gguf.GGML_QUANT_SIZES.items()}
    end, last, widths = header.data, "", dict[str, int]()
    for tensor in header.tensors:
        if tensor.kind not in sizes:
            raise FileFormatError(
                "The GGUF file holds a quantization that the gguf package does not know.",
                where=f"{path}: {tensor.name}",
                got=f"kind {tensor.kind}",
                do="pip install --upgrade gguf",
            )
        block, width = sizes[tensor.kind]
        widths[tensor.name] = math.prod(tensor.shape) // block * width
        if tensor.shape[0] % block:
            raise FileFormatError(
                "The GGUF file is damaged.", where=f"{path}: {tensor.name}", expected=f"rows of blocks of {block}",
                got=f"rows of {tensor.shape[0]:,} numbers", do="Do not trust this file.",
            )  # fmt: skip
        stop = header.data + tensor.offset + widths[tensor.name]
        if stop > end:
            end, last = stop, tensor.name
    size = path.stat().st_size
    if not header.tensors or end > size:
        raise FileFormatError(
            "The GGUF file is cut short." if header.tensors else "The GGUF file holds no weights.",
            where=f"{path}: {last}" if last else str(path),
            expected=f"at least {end} bytes",
            got=f"{size} bytes",
            do="Download it again.",
        )
    if (held := sum(widths.values())) > size:
        raise FileFormatError(
            "Tensors of the GGUF file overlap.", where=str(path), expected=f"at most {size} bytes", got=f"{held} bytes",
            do="Do not trust this file.",
        )  # fmt: skip
    return widths


class _InitSkip(TorchFunctionMode):
    """A block in which initial weights are not drawn: all of them are overwritten, or the file is refused."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        drawn = getattr(func, "__name__", "") in ("normal_", "uniform_", "trunc_normal_", "kaiming_uniform_")
        named: dict[str, Any] = kwargs or {}
        return next(iter((*args, *named.values()))) if drawn else func(*args, **named)


def _dequantized(
    transformers: Any, path: Path, where: dict[str, Any], size: Size
) -> tuple[nn.Module, set[str]]:  # fmt: skip
    """A fresh model with the file's weights, and names of parts of it that the file gives other values each.

    Those are one parameter (tied weights): the model holds the last of its values, and other runtimes may read another.

    Not ``from_pretrained(gguf_file=...)``: that wants accelerate, and gives a model that refuses to be saved.
    """
    reader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    config = transformers.AutoConfig.from_pretrained(str(path.parent), **where)
    with size.bounding(path):
        transformers.AutoModelForCausalLM.from_config(config)
    with own_random_numbers(), _InitSkip():
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tensors = reader.load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    named = dict(cast("nn.Module", model).named_parameters(remove_duplicate=False))
    filled = dict[int, list[str]]()
    for name, parameter in named.items():  # in the module's order: of tied ones with several values the last one holds
        if name in tensors:
            filled.setdefault(id(parameter), []).append(name)
    absent = [name for name, parameter in named.items() if id(parameter) not in filled]
    if absent:
        raise ModelError(
            "The GGUF file does not hold all of the model's weights.",
            where=f"{path}: {absent[0]}",
            expected="a tensor for every parameter of the architecture",
            got=f"{len(absent)} parameters without one",
            do="Use another conversion of this model.",
        )
    tied = [names for names in filled.values() if len(names) > 1]
    contrary = [names for names in tied if any(not torch.equal(tensors[names[0]], tensors[one]) for one in names)]
    for names in tied:
        tensors |= dict.fromkeys(names, tensors[names[-1]])
    model.load_state_dict(tensors, strict=False, assign=True)  # not copied: in memory once
    model.tie_weights()
    return model, {name for names in contrary for name in names}


@final
@dataclass(frozen=True)
class GgufContents(Contents):
    """Settings in a GGUF file, and its tensors that the model does not hold.

    Attributes:
        widths: How many bytes each tensor has that was not loaded.
    """

    path: Path
    widths: Mapping[str, int]

    def digests(self) -> Digests:
        """A digest of each entry; entries that describe the file are left out."""
        header, found = read_header(self.path), dict[str, dict[str, str]]()
        with opened(self.path, "GGUF file") as file:
            for name, (start, stop) in header.entries.items():
                if not _DESCRIBES.fullmatch(name):
                    part = next((part for start_, part in _PARTS if name.startswith(start_)), "config")
                    found.setdefault(part, {})[name] = _of_bytes(file, start, stop)
            for one in header.tensors:
                if width := self.widths.get(one.name, 0):
                    at, about = header.data + one.offset, f"{one.kind} {list(one.shape)}"
                    found.setdefault("weights", {})[f"tensor {one.name}"] = _of_bytes(file, at, at + width, about)
        return found


def _of_bytes(file: BufferedReader, start: int, stop: int, about: str = "") -> str:
    state = hashlib.sha256(about.encode())
    file.seek(start)
    for at in range(start, stop, 2**20):
        state.update(file.read(min(2**20, stop - at)))
    return state.hexdigest()
