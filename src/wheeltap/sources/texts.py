"""Plain text: one stream of tokens in windows, scored by perplexity."""

from pathlib import Path
from typing import Final, final

from wheeltap.core.bounded import contents
from wheeltap.core.errors import DataError, FileFormatError, UsageError
from wheeltap.core.inputs import longest
from wheeltap.core.texts import TextTask
from wheeltap.sources.base import DataSource, ExampleReader

WINDOW: Final = 512
"""Tokens of a window, where the model can read as many: what llama.cpp takes for its perplexity."""

_LIMIT: Final = 50_000_000
_WINDOWS, _SHORTEST = 8, 8
"""Windows that a text must give; of a short text they have fewer tokens, and at least so many."""


@final
class TextFiles(DataSource):
    """A text whose tokens a language model should find likely."""

    form = "FILE.txt"
    title = "Plain text, in windows of 512 tokens, for a language model: perplexity."

    def load(self, rest: str, reader: ExampleReader) -> TextTask:
        """The windows, each after the model's start token where it has one; what is left at the end is left out.

        Raises:
            UsageError: If the model is no language model with a tokenizer.
            FileFormatError: If the file is not UTF-8.
            DataError: If it is too short.
        """
        path, tokenizer = Path(rest), reader.tokenizer
        if tokenizer is None or reader.classifier is not None:
            raise UsageError(
                "Perplexity is of language models that come with a tokenizer.", where=str(path),
                expected="hf:DIR, gguf:FILE or smollm2", got="another model",
                do="Give a classifier FILE.jsonl with text and label, another model FILE.npz.",
            )  # fmt: skip
        try:
            text = contents(path, "text", limit=_LIMIT).decode()
        except UnicodeDecodeError as error:
            raise FileFormatError(
                "The text is not UTF-8.", where=f"{path}: byte {error.start}", do="Save it as UTF-8."
            ) from error
        start, ids = tokenizer.start(""), tokenizer.more(text)
        limit = None if reader.model is None else longest(reader.model)
        most = min(WINDOW, WINDOW if limit is None else limit[0]) - len(start)
        length = min(most, len(ids) // _WINDOWS)
        if length < _SHORTEST:
            raise DataError(
                "The text is too short.", where=str(path),
                expected=f"at least {_WINDOWS * _SHORTEST} tokens; {WINDOW} tokens make a window of usual length",
                got=f"{len(ids)} tokens", do="Give more text: intervals are over windows.",
            )  # fmt: skip
        windows = [[*start, *ids[at : at + length]] for at in range(0, len(ids) - length + 1, length)]
        return TextTask(windows, name=path.stem)
