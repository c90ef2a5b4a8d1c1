"""How well a language model knows the texts of a benchmark: by token, by completion, by their order."""

from collections.abc import Iterator
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wheeltap.core import seeds
from wheeltap.core.errors import DataError
from wheeltap.core.passages import Passages
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.engine.readings.contamination_scores import Reader, Scores, given, scored
from wheeltap.engine.readings.contamination_taught import Taught
from wheeltap.engine.readings.contamination_texts import Texts, corpus_at, texts_of
from wheeltap.plans.readings.contamination import CONTAMINATION, FRACTIONS, ContaminationSettings
from wheeltap.stats import model_free

Arrays = dict[str, NDArray[Any]]


@final
class Contamination(Reading):
    """Scores of own texts and twins, of the model as it is or of copies of it that were taught the texts."""

    spec = CONTAMINATION
    settings: ContaminationSettings

    def require(self, subject: Subject, task: BaseTask) -> None:
        """See ``Reading.require``: the corpus, where one is named."""
        if self.settings.corpus:
            corpus_at(self.settings.corpus)

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            DataError: If the task is not one of plain texts, or has too few of them.
        """
        texts, passages = texts_of(task)
        how, versions = self.settings, texts.versions(passages)
        arranged = _arranged(len(texts.items), how, root=root, seed=seed)
        reader = Reader(texts.start, window=how.window, tokens_per_batch=texts.tokens_per_batch)
        taught = Taught(subject, texts, window=reader.window_of(subject.model), how=how, draw=(root, seed))
        rows = list[Arrays]()
        for epochs, model in taught.copies(sorted({int(one) for one in how.epochs.split(",")})):
            rows.append({"epochs": np.array(epochs), **self._known(model, reader, texts, passages)})
            for name, version in zip(("order", "order_twins")[: len(versions)], range(len(versions)), strict=True):
                rows[-1][name] = _order(model, reader, texts, version, arranged)
            if not all(np.isfinite(array).all() for array in rows[-1].values()):
                rows.pop()  # it diverged: what comes after has too
                break
        if not rows:
            raise DataError(
                "The model gives texts no finite log-likelihood.",
                where=f"{task.name}, {subject.name}",
                expected="finite numbers, also after teaching",
                got="NaN or infinite ones",
                do="Lower contamination.teaching_rate.",
            )
        values = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        orders = len(versions) * (1 + how.shuffles) * min(how.ordered, len(texts.items)) / len(texts.items)
        cost = len(rows) * (len(versions) + orders) / 2 + taught.forwards
        return Readings({**values, **self._fixed(texts, passages, arranged)}, forwards=cost)

    def _known(self, model: nn.Module, reader: Reader, texts: Texts, passages: Passages) -> Arrays:
        """Scores of each text of every version: ``[example, version, ...]``."""
        versions = texts.versions(passages)
        read = [scored(reader.read(model, version), lowest=self.settings.lowest) for version in versions]
        size = _bytes(passages)
        known = {name: np.stack([getattr(one, name) for one in read], axis=1) for name in Scores.__dataclass_fields__}
        tokens = np.array([[len(text) for text in version] for version in versions]).T
        return {**known, "zlib": known["loss"] * tokens / size}

    def _fixed(self, texts: Texts, passages: Passages, arranged: list[NDArray[np.intp]]) -> Arrays:
        """What does not turn on the model."""
        versions = texts.versions(passages)
        left = [[[len(text) - given(len(text), f) for f in FRACTIONS] for text in version] for version in versions]
        lengths = np.array([len(text) for text in versions[0]])
        found: Arrays = {
            "tail": np.moveaxis(np.array(left), 0, 1),
            "bytes": _bytes(passages),
            "shard_tokens": np.array([lengths[rows[0]].sum() for rows in arranged]),
        }
        if passages.twins:
            pairs = list(zip(passages.own, passages.twins, strict=True))
            found["words"], found["letters"] = model_free.by_words(pairs), model_free.by_letters(pairs)
        if passages.repeated:
            found["repeated"] = np.array([passages.repeated])
        if self.settings.corpus:
            held, length = corpus_at(self.settings.corpus).read_text("utf-8", errors="replace"), self.settings.run
            both = [model_free.overlap(some, held, length=length) for some in (passages.own, passages.twins) if some]
            found["overlap"] = np.stack(both, axis=1)
        return found


def _bytes(passages: Passages) -> NDArray[np.float64]:
    """``[example, version]``."""
    return np.stack([model_free.compressed(some) for some in (passages.own, passages.twins) if some], axis=1)


def _arranged(items: int, how: ContaminationSettings, *, root: int, seed: int) -> list[NDArray[np.intp]]:
    """For each shard its items as they come and shuffled: ``[arrangement, item]``."""
    shards = np.array_split(np.arange(min(items, how.ordered)), how.shards)
    if min(map(len, shards)) < 2:
        raise DataError(
            "There are too few items for so many shards.",
            where="contamination.shards",
            expected=f"at least {2 * how.shards} different items, 2 for each of {how.shards} shards",
            got=f"{items} items",
            do="Give more items, or lower contamination.shards.",
        )
    return [np.array(list(_orders(shard, at, how, root=root, seed=seed))) for at, shard in enumerate(shards)]


def _orders(
    shard: NDArray[np.intp], at: int, how: ContaminationSettings, *, root: int, seed: int
) -> Iterator[NDArray[np.intp]]:
    rng = seeds.generator(root, "contamination", "order", seed, at)
    yield shard
    for _ in range(how.shuffles):
        yield rng.permutation(shard)


def _order(
    model: nn.Module, reader: Reader, texts: Texts, version: int, arranged: list[NDArray[np.intp]]
) -> NDArray[np.float64]:
    """Log-likelihood of every arrangement of every shard, ``[shard, arrangement]``."""
    rows = [texts.joined([int(at) for at in order], version) for shard in arranged for order in shard]
    return reader.summed(model, rows).reshape(len(arranged), -1)
