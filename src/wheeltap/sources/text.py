"""Text to tokens: the little that wheeltap asks of a tokenizer."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

from wheeltap.core.errors import MissingFile
from wheeltap.core.subject import Subject


@runtime_checkable
class Tokenizer(Protocol):
    """Turns text into token ids."""

    def start(self, text: str) -> list[int]:
        """Ids of text that opens a sequence, with the start token where the model was trained with one."""
        ...

    def more(self, text: str) -> list[int]:
        """Ids of text that goes on from other text: no start or end token."""
        ...


@final
@dataclass(frozen=True)
class HfTokenizer:
    """A Hugging Face tokenizer.

    Attributes:
        raw: The transformers tokenizer.
    """

    raw: Any

    def start(self, text: str) -> list[int]:
        """Ids of text that opens a sequence; an end token that the tokenizer appends is left out."""
        ids: Sequence[int] = self.raw(text).input_ids
        if ids and ids[-1] == self.raw.eos_token_id and self.more(text)[-1:] != [ids[-1]]:
            ids = ids[:-1]
        return [int(i) for i in ids]

    def more(self, text: str) -> list[int]:
        """Ids of text that goes on from other text."""
        ids: Sequence[int] = self.raw(text, add_special_tokens=False).input_ids
        return [int(i) for i in ids]


@final
@dataclass(frozen=True)
class NoTokenizer:
    """Where a model came without its tokenizer: token ids can be read, and text cannot.

    Attributes:
        folder: Of the model.
        files: What a tokenizer's file may be called.
    """

    folder: str
    files: tuple[str, ...]

    def start(self, text: str) -> list[int]:
        """Raises ``MissingFile``."""
        return self.more(text)

    def more(self, text: str) -> list[int]:
        """Raises ``MissingFile``."""
        raise MissingFile(
            "The model has no tokenizer.",
            where=self.folder,
            expected=f"{' or '.join(self.files)}, for the data are text",
            got="none of them",
            do="Save it beside the model (tokenizer.save_pretrained(folder)), or write the data as token ids.",
        )


@final
@dataclass(frozen=True)
class LanguageModel:
    """A subject that reads tokens, and the tokenizer that makes them."""

    subject: Subject
    tokenizer: Tokenizer
