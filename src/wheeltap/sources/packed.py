"""Folders of packed weights by the name of their format; ``hf:FOLDER`` reads the same ones."""

from pathlib import Path
from typing import ClassVar, final

from wheeltap.core.errors import UsageError
from wheeltap.core.subject import Subject
from wheeltap.sources.base import LoadedModel
from wheeltap.sources.hf import Folders, config_of
from wheeltap.sources.packed_weights import PackedFolder, method_of
from wheeltap.sources.shipped import ShippedModel


class PackedFolders(Folders):
    """A Hugging Face folder that must be packed in one way.

    Attributes:
        method: As its config calls that way.
    """

    method: ClassVar[str]

    def load(self, rest: str, *, name: str) -> LoadedModel:
        """See ``ModelSource.load``."""
        self._require(rest)
        return super().load(rest, name=name)

    def shipped(self, rest: str, *, reference: Subject) -> ShippedModel:
        """See ``ModelSource.shipped``."""
        self._require(rest)
        return super().shipped(rest, reference=reference)

    def _require(self, rest: str) -> None:
        folder = Path(rest).expanduser()
        how = PackedFolder.of(folder, config_of(folder)).how
        if method_of(how) != self.method:
            raise UsageError(
                "The folder is not packed as its prefix says.", where=rest,
                expected=f"quantization_config with quant_method {self.method} in config.json",
                got=f"quant_method {method_of(how)}" if how else "no quantization_config",
                do="Take another prefix (hf:FOLDER takes any), or copy the config that belongs to these weights.",
            )  # fmt: skip


@final
class GptqFolders(PackedFolders):
    """Of AutoGPTQ and GPTQModel."""

    form = "gptq:FOLDER"
    title = "A folder of GPTQ weights of 2, 4 or 8 bits, of either version (extra: llm)."
    method = "gptq"


@final
class AwqFolders(PackedFolders):
    """Of AutoAWQ."""

    form = "awq:FOLDER"
    title = "A folder of AWQ weights of 4 bits, packed for gemm (extra: llm)."
    method = "awq"


@final
class CompressedFolders(PackedFolders):
    """Of llm-compressor."""

    form = "ct:FOLDER"
    title = "A folder of compressed-tensors: integers or 8-bit floats (extra: llm; ct where inputs are rounded too)."
    method = "compressed-tensors"


@final
class BitsAndBytesFolders(PackedFolders):
    """Of bitsandbytes."""

    form = "bnb:FOLDER"
    title = "A folder of bitsandbytes weights of 4 or 8 bits, run by that library (extras: llm, bnb)."
    method = "bitsandbytes"


@final
class TorchaoFolders(PackedFolders):
    """Of torchao."""

    form = "torchao:FOLDER"
    title = "A folder of torchao weights as safetensors, run by that library (extras: llm, torchao)."
    method = "torchao"
