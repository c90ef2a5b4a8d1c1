"""How large a model can be that files describe: known before any of it is made."""

import contextlib
import json
import math
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast, final

import msgspec
import torch
from torch import nn
from torch.nn.modules import module as registering

from wheeltap.core.errors import FileFormatError

_MOST: Final = (
    ("position|length|seq|context|window|theta|base|token|seed|numel|size_in_bytes", 2**31),  # nothing is set aside
    ("label", 2**16),  # each has a name, in several tables
    ("", 2**21),  # layers, units, words
)
"""Largest number in a config, by its name."""

_BESIDE: Final = 2**26
"""Numbers that a model may have beside those in its files: masks, tables of places."""

LARGEST_ID: Final = 2**22
"""Of a token; tables have room up to it. The largest vocabularies in use have 262,144 tokens."""

LONGEST: Final = 2**19
"""Characters that a tokenizer may make of a word of its own or of a few characters."""

_FEW: Final = 16

_TIMES: Final = {
    "Precompiled": 256, "NFKD": 18, "NFKC": 18, "NFD": 4, "ByteLevel": 4, "Metaspace": 2, "Prepend": 2,
    **dict.fromkeys(
        ("NFC", "Lowercase", "Strip", "StripAccents", "BertNormalizer", "BertPreTokenizer", "Split", "Digits",
         "Punctuation",
         "Whitespace", "WhitespaceSplit", "UnicodeScripts", "CharDelimiterSplit", "BertProcessing", "RobertaProcessing",
         "ByteFallback", "Fuse", "WordPiece", "BPEDecoder", "CTC"), 1),
}  # fmt: skip
"""How many times as long as it was a step may make a text, about; 4 of one that is not known."""


@final
@dataclass(frozen=True)
class Size:
    """How much files of weights hold."""

    tensors: int
    numbers: int

    @contextlib.contextmanager
    def bounding(self, where: Path) -> Generator[None]:
        """A block in which models are made without memory, and no further than weights of this size can fill.

        Raises:
            FileFormatError: If a model has many more parts or numbers.
        """
        parts, numbers = 0, 0
        most_parts, most = 64 * self.tensors + 10_000, 2 * self.numbers + _BESIDE

        def count(module: nn.Module, name: str, added: nn.Module | torch.Tensor | None) -> None:
            nonlocal parts, numbers
            parts += 1
            numbers += added.numel() if isinstance(added, torch.Tensor) else 0
            if parts > most_parts or numbers > most:
                raise FileFormatError(
                    "The config describes a far larger model than its weights.",
                    where=str(where),
                    expected=f"a model of the {self.tensors:,} tensors and {self.numbers:,} numbers that are there",
                    got=f"more than {parts - 1:,} parts, {numbers:,} numbers",
                    do="Take the config that belongs to these weights.",
                )

        with contextlib.ExitStack() as held, torch.device("meta"):
            for kind in ("module", "parameter", "buffer"):
                hook: Any = getattr(registering, f"register_module_{kind}_registration_hook")(count)
                held.callback(hook.remove)
            yield


def require_modest(held: Mapping[str, Any]) -> None:
    """Raises ``ValueError`` if a number is larger than one of its kind: transformers counts up to some, unasked."""
    left: list[tuple[str, Any]] = list(held.items())
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += cast("dict[str, Any]", value).items()
        elif isinstance(value, list):
            left += [(name, one) for one in cast("list[Any]", value)]
        elif isinstance(value, int) and abs(value) > next(most for kind, most in _MOST if re.search(kind, name)):
            raise ValueError(f"{name}: {value:,}"[:120])


class _TokenizerModel(msgspec.Struct, frozen=True):
    vocab: Any = None


class _AddedToken(msgspec.Struct, frozen=True):
    id: int = 0
    content: str = ""


class _TokenizerFile(msgspec.Struct, frozen=True):
    """What of ``tokenizer.json`` may take far more memory and time than it has bytes."""

    model: _TokenizerModel = _TokenizerModel()
    added_tokens: list[_AddedToken] = []
    normalizer: Any = None
    pre_tokenizer: Any = None
    post_processor: Any = None
    decoder: Any = None


def require_modest_tokenizer(data: bytes) -> None:
    """Raises ``ValueError`` if a ``tokenizer.json`` names a very large id, or makes far more text of a text.

    A file that is none is left to the tokenizer's own reader.
    """
    try:
        held = msgspec.json.decode(data, type=_TokenizerFile)
    except (msgspec.DecodeError, RecursionError):
        return
    known: Any = held.model.vocab
    vocab = cast("dict[str, Any]", known) if isinstance(known, dict) else {}
    ids = (*(one for one in vocab.values() if isinstance(one, int)), *(one.id for one in held.added_tokens))
    if (most := max(ids, default=0)) > LARGEST_ID:
        raise ValueError(f"a token of number {most:,}")
    added = _FEW + max((len(one.content) for one in held.added_tokens), default=0)
    for steps in ([held.normalizer, held.pre_tokenizer, held.post_processor], [held.decoder]):
        if (length := math.prod(map(_times, steps)) * (added + sum(map(_put_before, steps)))) > LONGEST:
            raise ValueError(f"a word that becomes about {length:,} characters")


def _put_before(step: Any) -> int:
    """How many characters a step of a tokenizer puts before a text."""
    if isinstance(step, list):
        return sum(map(_put_before, cast("list[Any]", step)))
    if not isinstance(step, dict):
        return 0
    known = cast("dict[str, Any]", step)
    return len(str(known.get("prepend", ""))) + sum(_put_before(one) for one in known.values() if isinstance(one, list))


def _times(step: Any) -> int:
    """How many times as long as it was a step of a tokenizer may make a text."""
    if not isinstance(step, dict):
        return 1
    known = cast("dict[str, Any]", step)
    inner = [
        one for name in ("normalizers", "pretokenizers", "processors", "decoders") for one in known.get(name) or ()
    ]
    match known.get("type"):
        case "Sequence":
            return math.prod(map(_times, inner))
        case "Replace":
            content, literal = str(known.get("content")), known.get("pattern")
            plain = isinstance(literal, dict) and bool(cast("dict[str, Any]", literal).get("String"))
            return max(len(content), 1) + (not plain)
        case "TemplateProcessing":
            pieces = [known.get(name) for name in ("single", "pair")]
            return max(1, *(json.dumps(one).count('"Sequence"') for one in pieces))
        case kind:
            return _TIMES.get(str(kind), 4)
