"""What a tokenizer reads and writes, and how that of a shipped file differs from the original's."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from wheeltap.core.errors import UsageError
from wheeltap.core.subject import Subject

_TEXT: Final = "A quick FOX  won't jump:\n\t12345.67 + x_1 == na\u00efve \u4f60\u597d \U0001f642 <s></s><|endoftext|>"
"""Where tokenizers with the same tokens may differ: letter case, spaces, digits, accents, other scripts, marks."""

_APART: Final = 0.01
"""Share of the tokens that may have another text; with more of them it is another vocabulary."""


@final
@dataclass(frozen=True)
class Vocabulary:
    """What tokens there are.

    Attributes:
        tokens: Text of each, by its number.
        special: Numbers of those that start, end, fill up or stand for others, by these words.
        starts: Whether texts begin with the start token.
        template: Of chats; of several, JSON with their names; empty where there is none.
        reads: Numbers of the tokens of a text of all sorts; empty where that is not known.
    """

    tokens: tuple[str, ...]
    special: Mapping[str, int]
    starts: bool
    template: str
    reads: tuple[int, ...] = ()


def read_vocabulary(raw: Any) -> Vocabulary:
    """That of a tokenizer of transformers."""
    ids = {"start": "bos", "end": "eos", "padding": "pad", "unknown": "unk"}
    special = {name: getattr(raw, f"{short}_token_id", None) for name, short in ids.items()}
    known = {name: int(one) for name, one in special.items() if one is not None}
    template: Any = raw.chat_template
    return Vocabulary(
        tokens=tuple(raw.convert_ids_to_tokens(range(len(raw)))), special=known,
        starts="start" in known and raw("a").input_ids[:1] == [known["start"]],
        template=template if isinstance(template, str) else json.dumps(template, sort_keys=True) if template else "",
        reads=tuple(raw(_TEXT, add_special_tokens=False).input_ids),
    )  # fmt: skip


def vocabulary_of(subject: Subject) -> Vocabulary | None:
    """That of a model that came from a folder or a file; ``None`` where there is none beside it."""
    from wheeltap.sources.contents import FolderContents
    from wheeltap.sources.gguf import GgufContents
    from wheeltap.sources.gguf_weights import GgufFile, gguf_vocabulary

    held = subject.contents
    if isinstance(held, GgufContents):
        return gguf_vocabulary(GgufFile.open(Path(held.path)))
    if isinstance(held, FolderContents) and held.tokenizer is not None:
        return read_vocabulary(held.tokenizer())
    return None


def differing(file: Vocabulary, original: Vocabulary, *, where: str) -> tuple[str, ...]:
    """What differs, each in a sentence.

    Raises:
        UsageError: If it is another vocabulary.
    """
    both = min(len(file.tokens), len(original.tokens))
    others = list[int]()
    for at, (mine, own) in enumerate(zip(file.tokens, original.tokens, strict=False)):
        # Converters write spaces out, and number tokens that fill up.
        if mine != own and mine.replace(" ", "\u2581") != own.replace(" ", "\u2581") and not mine.startswith("[PAD"):
            others.append(at)
    if both == 0 or len(others) > _APART * both:
        at = others[0] if others else 0
        raise UsageError(
            "The file has another vocabulary than the original.", where=where,
            expected=f"token {at} is {original.tokens[at]!r}" if both else "tokens",
            got=f"{file.tokens[at]!r}; {len(others):,} of {both:,} tokens differ" if both else "none",
            do="Name the model that the file was converted from, or convert it again with its tokenizer.",
        )  # fmt: skip
    said = list[str]()
    if others:
        at = others[0]
        said.append(
            f"{len(others):,} of {both:,} tokens differ: token {at} is {file.tokens[at]!r}, the original's "
            f"{original.tokens[at]!r}."
        )
    lengths = [sum(not one.startswith("[PAD") for one in held.tokens) for held in (file, original)]
    if lengths[0] != lengths[1]:
        said.append(f"The file has {lengths[0]:,} tokens, the original {lengths[1]:,}.")
    if file.reads and original.reads and file.reads != original.reads:
        said.append("The file's tokenizer cuts texts into other tokens than the original's.")
    for name, own in original.special.items():
        mine = file.special.get(name, None if name in ("start", "end") else own)
        if mine != own:
            held = "there is none" if mine is None else f"it is {mine} ({_text(file, mine)!r})"
            said.append(f"The {name} token is {own} ({_text(original, own)!r}) in the original; in the file {held}.")
    if file.starts != original.starts and "start" in original.special:
        does = ("does not put", "puts") if file.starts else ("puts", "does not put")
        said.append(f"The original {does[0]} a start token before texts; the file {does[1]} one there.")
    if file.template.strip() != original.template.strip():
        kinds = {(False, True): "The chat template is missing.", (True, False): "The original has no chat template."}
        usual = "The chat template is not the original's."
        said.append(kinds.get((bool(file.template), bool(original.template)), usual))
    return tuple(said)


def _text(held: Vocabulary, at: int) -> str:
    return held.tokens[at] if at < len(held.tokens) else ""
