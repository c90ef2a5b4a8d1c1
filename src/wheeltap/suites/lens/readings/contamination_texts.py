"""The texts of a task, their tokens, and a corpus that may hold them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from wheeltap.core.bounded import size_of
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError
from wheeltap.core.task import BaseTask
from wheeltap.suites.lens.passages import Passages

MOST_CORPUS: Final = 1_000_000_000
"""Bytes of a corpus that is held in memory."""


@final
@dataclass(frozen=True)
class Texts:
    """Tokens of a task of plain texts.

    Attributes:
        start: What every text follows.
        items: Of each item the tokens of its own text, of its twin (or shuffled text), and of new items of the same
            form, where there are any.
        between: Tokens between two items.
        tokens_per_batch: Bound on the tokens of one call.
    """

    start: tuple[int, ...]
    items: tuple[tuple[tuple[int, ...], ...], ...]
    between: tuple[int, ...]
    tokens_per_batch: int

    def versions(self, passages: Passages) -> list[list[tuple[int, ...]]]:
        """Tokens of own texts, and of twins where there are any."""
        return [[item[at] for item in self.items] for at in range(2 if passages.twins else 1)]

    def listed(self, version: int) -> list[tuple[int, ...]]:
        """Tokens of each item in one version, with what is before the next one."""
        return [(*item[version], *self.between) for item in self.items]


def texts_of(task: BaseTask) -> tuple[Texts, Passages]:
    """Tokens and texts of a task.

    Raises:
        DataError: If it is not one of plain texts.
    """
    passages = task.annotation(Passages)
    if not isinstance(task, ChoiceTask) or passages is None:
        raise DataError(
            "Only plain texts can be looked for in what a model knows.",
            where=task.name,
            expected='texts: --data FILE.jsonl with lines such as {"text": "...", "twin": "..."}',
            got="examples of another kind",
            do="Give the items as plain text; see docs/lens.md, Contamination.",
        )
    news = passages.fresh or ((),) * len(task.choices)
    items = tuple((*pair, *new) for pair, new in zip(task.choices, news, strict=True))
    return Texts(task.contexts[0], items, passages.between, task.tokens_per_batch), passages


def corpus_at(name: str) -> Path:
    """The file of a corpus.

    Raises:
        MissingFile: If it is not there.
        DataError: If it is too large.
    """
    path = Path(name).expanduser()
    size_of(path, "corpus", limit=MOST_CORPUS, do="Check contamination.corpus; split it, and look in each part.")
    return path
