"""GGUF files beside the model that they were made from: every tensor is read with the ``gguf`` package alone.

How converters lay tensors out: https://github.com/ggml-org/llama.cpp/blob/master/convert_hf_to_gguf.py
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core.bounded import parsing
from wheeltap.core.errors import FileFormatError, MissingFile, ModelError, UsageError
from wheeltap.core.subject import Subject
from wheeltap.core.typed import copied, named_modules
from wheeltap.plans.shipped import UNKNOWN
from wheeltap.sources import hf
from wheeltap.sources.gguf import TensorPlace, read_entry, read_header, require_whole
from wheeltap.sources.shipped import Array, Piece, ShippedModel, StoredWeights, digest_of_files, filled, same, unpaired

_PART: Final = re.compile(r"(?P<stem>.+)-(?P<at>\d{5})-of-(?P<of>\d{5})\.gguf")
"""Name of one part of a file that was split."""

_KNOWN: Final[Mapping[str, str]] = {
    "llama": "permuted", "granite": "permuted", "smollm3": "permuted", "arcee": "permuted",
    "gemma": "offset", "gemma2": "offset", "gemma3": "offset", "nemotron": "offset",
    "qwen2": "", "qwen3": "", "phi3": "", "starcoder2": "", "gpt2": "", "olmo2": "", "command-r": "",
}  # fmt: skip
"""Architectures whose layout is known, and what converters do: they permute the rows of queries and keys so that
rotated pairs lie side by side, or add 1 to the gains of norms."""

_CALLED: Final[Mapping[str, str]] = {"mistral": "llama", "gemma3_text": "gemma3", "cohere": "command-r"}
"""What GGUF calls architectures that transformers calls otherwise."""

_SETTINGS: Final[tuple[tuple[str, str], ...]] = (
    ("block_count", "num_hidden_layers"), ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"), ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"), ("attention.key_length", "head_dim"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"), ("attention.layer_norm_epsilon", "layer_norm_epsilon"),
    ("vocab_size", "vocab_size"),
)  # fmt: skip
"""Entries of the header, behind the architecture's name, and what transformers calls each."""

_BASE: Final = 10_000.0
"""Base of rotary positions where a file names none."""

_ODD: Final = "An entry of the GGUF file is of another kind than it must be."
_KINDS: Final = "numbers where sizes and tokens are meant, and one of each"

_ROWS: Final = 64
"""Rows that are put behind each other: ``gguf`` calls its functions for 16 rows at a time, and calls are slow."""

_BESIDE: Final = re.compile(r"rope_(freqs|factors_(long|short))\.weight")
"""Tensors that hold no weights."""

_USUAL: Final[Mapping[str, float]] = {
    "Q2_K": 0.35, "Q3_K": 0.18, "Q4_K": 0.09, "Q5_K": 0.05, "Q6_K": 0.025, "IQ4_NL": 0.1, "IQ4_XS": 0.1, "NVFP4": 0.12,
    "IQ3_S": 0.2, "IQ3_XXS": 0.25, "IQ2_S": 0.35, "IQ2_XS": 0.38, "IQ2_XXS": 0.42, "IQ1_M": 0.55, "IQ1_S": 0.6,
}  # fmt: skip
"""||rounded - weights|| / ||weights|| of formats without a rounding of ours, of normal weights, rounded up."""


@final
@dataclass(frozen=True)
class GgufFile:
    """A GGUF file, whole or in parts."""

    paths: tuple[Path, ...]

    @classmethod
    def open(cls, path: Path) -> "GgufFile":
        """The file at a path, with all of its parts.

        Raises:
            MissingFile: If it, or a part of it, is not there.
            FileFormatError: If it is damaged.
        """
        alone = cls((path,))
        count = int(alone.entry("split.count", 1))
        if count in (0, 1):
            return alone
        found = _PART.fullmatch(path.name)
        if found is None or int(found["of"]) != count:
            raise FileFormatError(
                "A part of a split GGUF file has another name than it must.", where=str(path),
                expected=f"NAME-00001-of-{count:05}.gguf", got=path.name, do="Rename the parts as they were.",
            )  # fmt: skip
        parts = tuple(path.with_name(f"{found['stem']}-{at:05}-of-{count:05}.gguf") for at in range(1, count + 1))
        missing = [part.name for part in parts if not part.is_file()]
        if missing:
            raise MissingFile(
                "A part of a split GGUF file is missing.", where=str(path.parent),
                expected=f"{count} parts beside each other", got=f"no {missing[0]}",
                do="Put all parts in one folder.",
            )  # fmt: skip
        return cls(parts)

    @cached_property
    def tensors(self) -> dict[str, tuple[Path, int, TensorPlace]]:
        """Where each tensor lies: its part, and its first byte there."""
        gguf, found = hf.library("gguf", needed_for=self.paths[0].name), dict[str, tuple[Path, int, TensorPlace]]()
        for path in self.paths:
            header = read_header(path)
            require_whole(path, header, gguf)
            found |= {one.name: (path, header.data + one.offset, one) for one in header.tensors}
        return found

    @cached_property
    def _entries(self) -> dict[str, tuple[int, int]]:
        return read_header(self.paths[0]).entries

    def entry(self, name: str, otherwise: Any = None) -> Any:
        """The value of an entry of the first part: a number, a text, a flag or a list of these."""
        found = self._entries.get(name)
        return otherwise if found is None else read_entry(self.paths[0], found[0])

    def rows(self, name: str, start: int, stop: int) -> Array:
        """Rows of a tensor in single precision, as ``gguf`` dequantizes them."""
        gguf: Any = hf.library("gguf", needed_for=name)
        path, first, place = self.tensors[name]
        kind = gguf.GGMLQuantizationType(place.kind)
        each, size = gguf.GGML_QUANT_SIZES[kind]
        width = place.shape[0] // each * size
        several = math.gcd(stop - start, _ROWS)
        data = np.memmap(path, np.uint8, "r", first + start * width, ((stop - start) // several, several * width))
        with parsing(path, "A tensor of the GGUF file cannot be read.", expected="one that gguf dequantizes"):
            return np.array(gguf.quants.dequantize(np.asarray(data), kind), np.float32).reshape(stop - start, -1)


@final
class ShippedGguf(ShippedModel):
    """A language model in a GGUF file (or that with this part), in a copy of the original, one of transformers."""

    def __init__(self, path: Path, *, reference: Subject) -> None:
        self._path, self._reference = path, reference
        with parsing(path, _ODD, expected=_KINDS, of=(TypeError, ValueError)):
            self._file = GgufFile.open(path)
        self._architecture = str(self._file.entry("general.architecture", ""))

    def fingerprint(self) -> str:
        """See ``ShippedModel.fingerprint``."""
        return digest_of_files(self._file.paths)

    def model(self) -> nn.Module:
        """See ``ShippedModel.model``: the original's structure with the file's numbers."""
        return filled(copied(self._reference.model), self.weights())

    def differences(self) -> tuple[str, ...]:
        """See ``ShippedModel.differences``; a file that is cut short is refused too."""
        with parsing(self._path, _ODD, expected=_KINDS, of=(TypeError, ValueError)):
            self._require_alike()
            return self._positions()

    def _positions(self) -> tuple[str, ...]:
        """Says so where the file has other factors of rotary positions than the original: no weights, yet read."""
        given: Any = getattr(getattr(self._reference.model, "config", None), "rope_parameters", None) or {}
        found = [one for name, one in self._reference.model.named_buffers() if name.endswith(".inv_freq")]
        if len(found) != 1 or "rope_theta" not in given or given.get("rope_type") not in ("default", "llama3"):
            return ()
        own = found[0].detach().double().cpu().numpy()
        own = float(given["rope_theta"]) ** (-np.arange(len(own)) / len(own)) / own
        name = "rope_freqs.weight"
        held = self._file.rows(name, 0, 1)[0] if name in self._file.tensors else np.ones(len(own))
        if held.shape == own.shape and np.allclose(held, own, rtol=1e-3):
            return ()
        return ("Its factors of rotary positions (rope_freqs.weight) are others than the original's; its row has the "
                "original's.",)  # fmt: skip

    def _require_alike(self) -> None:
        """Raises ``UsageError`` where the file is of another architecture, or of one whose layout is not known here."""
        config: Any = getattr(self._reference.model, "config", None)
        if config is None:
            raise UsageError(
                "A GGUF file can be compared with a language model of transformers alone.", where=str(self._path),
                expected="an original from hf:FOLDER or gguf:FILE", got=type(self._reference.model).__name__,
                do="Name the folder that the file was converted from.",
            )  # fmt: skip
        kind = str(getattr(config, "model_type", ""))
        if self._architecture != _CALLED.get(kind, kind):
            raise _other(self._path, self._reference, f"architecture {_CALLED.get(kind, kind)}", self._architecture)
        experts = any(".experts." in name for name, _ in self._reference.model.named_parameters())
        if self._architecture not in _KNOWN or experts:
            raise ModelError(
                "It is not known how GGUF files of this architecture lay out their tensors.", where=str(self._path),
                expected=", ".join(_KNOWN), got=f"{self._architecture}{' with experts' if experts else ''}",
                do="Compare the two as models: wheeltap compare ORIGINAL gguf:FILE --audits score",
            )  # fmt: skip
        for name, setting in _SETTINGS:
            own, held = getattr(config, setting, None), self._file.entry(f"{self._architecture}.{name}")
            if own is not None and held is not None and not math.isclose(own, held, rel_tol=1e-4):
                raise _other(self._path, self._reference, f"{setting} {own:g}", f"{held:g}")
        positions: Any = getattr(config, "rope_parameters", None) or {}
        if base := positions.get("rope_theta"):
            held = self._file.entry(f"{self._architecture}.rope.freq_base", _BASE)
            if not math.isclose(base, held, rel_tol=1e-4):
                raise _other(self._path, self._reference, f"rope_theta {base:g}", f"{held:g}")
        usual = positions.get("rope_type", "default") in ("default", "llama3")
        scaling = str(self._file.entry(f"{self._architecture}.rope.scaling.type", "none"))
        if usual != (scaling == "none"):
            expected = f"rotary positions of type {positions.get('rope_type', 'default')}"
            raise _other(self._path, self._reference, expected, f"scaling {scaling}")

    def weights(self) -> StoredWeights:
        """See ``ShippedModel.weights``."""
        gguf: Any = hf.library("gguf", needed_for=self._path.name)
        kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
        count = int(self._file.entry(f"{self._architecture}.block_count", 0))
        names = gguf.get_tensor_name_map(kinds[self._architecture], count)
        layout = _Layout(self._file, self._reference.model, _KNOWN[self._architecture], gguf)
        pieces, missing, seen = list[Piece](), dict[str, str](), set[str]()
        own = dict(self._reference.model.named_parameters(remove_duplicate=False))
        first = dict[int, str]()
        for parameter, weight in own.items():
            stored = names.get_name(parameter, try_suffixes=(".weight", ".bias"))
            found = [] if stored is None else layout.pieces(parameter, str(stored))
            pieces += found
            seen.update(piece.name for piece in found)
            tied = first.setdefault(id(weight), parameter) != parameter  # then one tensor is enough
            if not found and not tied:
                missing[parameter] = ""
        unread = {
            name: str(gguf.GGMLQuantizationType(place.kind).name)
            for name, (_, _, place) in self._file.tensors.items()
            if name not in seen and not _BESIDE.fullmatch(name)
        }
        return StoredWeights(pieces, [*unpaired("missing", missing), *unpaired("unread", unread)])


def _other(path: Path, reference: Subject, expected: str, got: str) -> UsageError:
    return UsageError(
        "The file is of another model than the original.", where=str(path),
        expected=f"{expected}, as {reference.name} has", got=got or "none",
        do="Name the model that the file was converted from.",
    )  # fmt: skip


@final
@dataclass(frozen=True)
class _Layout:
    """How tensors of a file lie in the parameters of a model.

    Attributes:
        does: What converters do with this architecture: see ``_KNOWN``.
    """

    file: GgufFile
    model: nn.Module
    does: str
    gguf: Any

    def pieces(self, parameter: str, stored: str) -> list[Piece]:
        """What a parameter is made from: a tensor, rows of a fused one, or several; nothing where none is there."""
        held = self.file.tensors
        if stored in held:
            return [self._piece(parameter, stored)]
        fused = re.fullmatch(r"(.*)attn_(q|k|v|qkv)\.(weight|bias)", stored)
        if fused is None:
            return []
        stem, part, end = fused.groups()
        if part == "qkv":  # one of the model's, three of the file's
            names, at, found = [f"{stem}attn_{one}.{end}" for one in "qkv"], 0, list[Piece]()
            for name in names if held.keys() >= set(names) else ():
                shape = held[name][2].shape
                rows = shape[0] if len(shape) == 1 else math.prod(shape[1:])
                last = name is names[-1]  # it must have all that is left
                found.append(self._piece(parameter, name, rows=slice(at, None if last else at + rows)))
                at += rows
            return found
        name, at = f"{stem}attn_qkv.{end}", "qkv".index(part)
        if name not in held:
            return []
        own = [len(self.model.get_parameter(re.sub(r"(?<=\.)[qkv](?=_proj\.)", one, parameter))) for one in "qkv"]
        return [self._piece(parameter, name, start=sum(own[:at]), stop=sum(own[: at + 1]))]

    def _piece(
        self, parameter: str, stored: str, *, rows: slice = slice(None), start: int = 0, stop: int | None = None
    ) -> Piece:
        """One tensor of the file; from row ``start`` to ``stop`` of it."""
        place = self.file.tensors[stored][2]
        kind = self.gguf.GGMLQuantizationType(place.kind)
        block = int(self.gguf.GGML_QUANT_SIZES[kind][0])
        vector, count = len(place.shape) == 1, math.prod(place.shape[1:]) if stop is None else stop - start
        ways, quants = self._ways(parameter, stored), self.gguf.quants

        def rounded(rows: Array, _: int) -> Array:
            joined = np.ascontiguousarray(rows).reshape(len(rows) // math.gcd(len(rows), _ROWS), -1)
            kept: NDArray[Any] = quants.quantize(joined, kind)
            return np.asarray(quants.dequantize(kept.view(np.uint8), kind), np.float32).reshape(rows.shape)

        try:
            rounded(np.zeros((1, block), np.float32), 0)
            ours = rounded
        except NotImplementedError:  # gguf reads this kind, and does not write it
            ours = None
        return Piece(
            name=stored, parameter=parameter, format=str(kind.name), rows=rows,
            shape=(1, place.shape[0]) if vector else (count, place.shape[0]),
            read=lambda first, last: self.file.rows(stored, start + first, start + last),
            ours=ours, usual=_USUAL.get(str(kind.name), UNKNOWN), laid=ways[0], placed=ways[1],
        )  # fmt: skip

    def _ways(self, parameter: str, stored: str) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """Return the maps from the layout of a parameter to that of the file, and back."""
        path, _, end = parameter.rpartition(".")
        module = dict(named_modules(self.model)).get(path)
        if type(module).__name__ == "Conv1D" and end == "weight":  # of transformers: [input, output]
            return (Tensor.t, Tensor.t)
        if self.does == "offset" and stored.endswith("norm.weight"):
            return (lambda gain: gain + 1.0, lambda gain: gain - 1.0)
        part = re.search(r"\.attn_([qk])\.", stored)
        if self.does == "permuted" and part is not None:
            config: Any = self.model.config
            heads = int(config.num_attention_heads if part[1] == "q" else config.num_key_value_heads)
            # GGUF has the two rows of a rotated pair side by side; back, the first ones of all pairs come first.
            there, back = partial(_turned, shape=(heads, 2, -1)), partial(_turned, shape=(heads, -1, 2))
            return (there, back)
        return (same, same)


def _turned(rows: Tensor, *, shape: tuple[int, int, int]) -> Tensor:
    """Rows of each head in the order of another axis."""
    return rows.reshape(*shape, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)
