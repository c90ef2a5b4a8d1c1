"""GGUF files: dequantized by transformers at each load. Nothing is kept: a copy on disk would be one more to trust."""

import contextlib
import functools
import importlib
import math
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from wheeltap.core.errors import FileFormatError, ModelError
from wheeltap.core.subject import Subject
from wheeltap.recipes.train import own_random_numbers
from wheeltap.sources import hf
from wheeltap.sources.contents import GgufContents
from wheeltap.sources.gguf_header import GgufHeader, read_header
from wheeltap.sources.model_size import Size
from wheeltap.sources.text import HfTokenizer, LanguageModel


def load_gguf(path: Path, *, name: str) -> LanguageModel:
    """The language model in a GGUF file, dequantized to float32, in eval mode, on the CPU.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If it is not GGUF or is cut short.
        MissingExtra: If transformers or gguf is not installed.
        ModelError: If transformers does not know the architecture, or weights are missing.
    """
    header = read_header(path)
    transformers, gguf = hf.library(needed_for=name), hf.library("gguf", needed_for=name)
    widths = _require_whole(path, header, gguf)
    with hf.translated(transformers, path, "GGUF file"), _read_once(gguf):
        where: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(path.parent), **where)
        tokenizer("a b")
        size = Size(len(header.tensors), sum(math.prod(one.shape) for one in header.tensors))
        model, contrary = _dequantized(transformers, path, where, size)
        read = {tensor for tensor, to in _read(path, header, model).items() if to not in contrary}
    subject = Subject(model.eval(), name=name)
    subject.contents = GgufContents(path, {tensor: width for tensor, width in widths.items() if tensor not in read})
    return LanguageModel(subject, HfTokenizer(tokenizer))


def _read(path: Path, header: GgufHeader, model: nn.Module) -> Mapping[str, str]:
    """Names that tensors of a file have where transformers reads them, each with that of the part it goes to."""
    reader: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    start, stop = header.entries.get("general.architecture", (0, 0))
    with path.open("rb") as file:
        file.seek(start + 12)  # behind its kind and its length
        architecture = file.read(max(stop - start - 12, 0)).decode("utf-8", "replace")
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


def _require_whole(path: Path, header: GgufHeader, gguf: Any) -> dict[str, int]:
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


class _Undrawn(TorchFunctionMode):
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
    with own_random_numbers(), _Undrawn():
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tensors = reader.load_gguf_checkpoint(str(path), return_tensors=True, model_to_load=model)["tensors"]
    model.load_state_dict(tensors, strict=False)
    named = dict(cast("nn.Module", model).named_parameters(remove_duplicate=False))
    filled = dict[int, list[str]]()
    for name in tensors:
        if name in named:
            filled.setdefault(id(named[name]), []).append(name)
    absent = [name for name, parameter in named.items() if id(parameter) not in filled]
    if absent:
        raise ModelError(
            "The GGUF file does not hold all of the model's weights.",
            where=f"{path}: {absent[0]}",
            expected="a tensor for every parameter of the architecture",
            got=f"{len(absent)} parameters without one",
            do="Use another conversion of this model.",
        )
    tied = (names for names in filled.values() if len(names) > 1)
    contrary = (names for names in tied if any(not torch.equal(tensors[names[0]], tensors[one]) for one in names))
    return model, {name for names in contrary for name in names}
