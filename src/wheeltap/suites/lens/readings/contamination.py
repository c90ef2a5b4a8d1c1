"""How well a language model knows the texts of a benchmark: by token, by completion, by their order."""

from collections.abc import Iterator, Sequence
from itertools import pairwise, takewhile
from typing import Any, final

import numpy as np
from numpy.typing import NDArray
from torch import nn

from wheeltap.core import seeds
from wheeltap.core.errors import DataError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.suites.lens.passages import Passages
from wheeltap.suites.lens.readings.contamination_scores import Reader, Scores, given, scored
from wheeltap.suites.lens.readings.contamination_taught import Taught
from wheeltap.suites.lens.readings.contamination_texts import Texts, corpus_at, texts_of
from wheeltap.suites.lens.specs import CONTAMINATION, FRACTIONS, ContaminationSettings
from wheeltap.suites.lens.stats import model_free, order_cues

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
        read = np.array([min(len(text), reader.half(subject.model)) for text in texts.listed(0)])
        tokens = np.array([read[orders[0]].sum() for orders in arranged])
        fixed = {**self._fixed(texts, passages, arranged, root=root), "shard_tokens": tokens}
        free = bool(fixed["cues"].min() > order_cues.SHOWN) and bool(passages.twins or passages.fresh)
        places = {"order": (0,), "order_twins": (1,) if passages.twins else (),
                  "order_fresh": tuple(range(2, len(texts.items[0])))}  # fmt: skip
        orders = {name: several for name, several in places.items() if several and free}
        # Where no test is left, nothing is learned of copies.
        epochs = sorted({int(one) for one in how.epochs.split(",")}) if orders or passages.twins else [0]
        taught = Taught(subject, texts, window=reader.window_of(subject.model), how=how, draw=(root, seed))
        rows = list[Arrays]()
        for epoch, model in taught.copies(epochs):
            rows.append({"epochs": np.array(epoch), **self._known(model, reader, texts, passages)})
            for name, several in orders.items():
                made = [_order(model, reader, texts.listed(version), arranged) for version in several]
                rows[-1][name] = np.mean(made, axis=0)
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
        # Two items are read for each pair of neighbors, as two versions of an example are in a pass over the task.
        neighbors = sum(map(len, orders.values())) * sum(len(_neighbors(some)) for some in arranged) / len(texts.items)
        cost = len(rows) * (len(versions) / 2 + neighbors) + taught.forwards
        return Readings({**values, **fixed}, forwards=cost)

    def _known(self, model: nn.Module, reader: Reader, texts: Texts, passages: Passages) -> Arrays:
        """Scores of each text of every version: ``[example, version, ...]``."""
        versions = texts.versions(passages)
        read = [scored(reader.read(model, version), lowest=self.settings.lowest) for version in versions]
        size = _bytes(passages)
        known = {name: np.stack([getattr(one, name) for one in read], axis=1) for name in Scores.__dataclass_fields__}
        tokens = np.array([[len(text) for text in version] for version in versions]).T
        return {**known, "zlib": known["loss"] * tokens / size}

    def _fixed(self, texts: Texts, passages: Passages, arranged: list[NDArray[np.intp]], *, root: int) -> Arrays:
        """What does not turn on the model."""
        versions = texts.versions(passages)
        left = [
            [[max(len(text) - given(len(text), f) - same, 0) for f in FRACTIONS]
             for text, same in zip(version, _shared(version), strict=True)]
            for version in versions
        ]  # fmt: skip
        shards, rng = [rows[0] for rows in arranged], seeds.generator(root, "contamination", "cues")
        cues = order_cues.cues(passages.own, shards, rng)
        found: Arrays = {
            "cues": np.array([cues[cue] for cue in order_cues.CUES]),
            "tail": np.moveaxis(np.array(left), 0, 1),
            "bytes": _bytes(passages),
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


def _shared(texts: Sequence[tuple[int, ...]]) -> list[int]:
    """How many last tokens each text has in common with another one: a template, which says nothing of the item."""
    order = sorted(range(len(texts)), key=lambda at: texts[at][::-1])
    shared = [0] * len(texts)
    for one, two in pairwise(order):
        both = zip(reversed(texts[one]), reversed(texts[two]), strict=False)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], both))
        shared[one], shared[two] = max(shared[one], same), max(shared[two], same)
    return shared


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


def _neighbors(orders: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Every item and the one before it in any of these orders; -1 before a first one."""
    return sorted({pair for order in orders.tolist() for pair in pairwise((-1, *order))})


def _order(
    model: nn.Module, reader: Reader, texts: Sequence[tuple[int, ...]], arranged: list[NDArray[np.intp]]
) -> NDArray[np.float64]:
    """Log-likelihood of every arrangement of every shard, each text after the one before, ``[shard, arrangement]``.

    Pairs of neighbors are read and not whole arrangements cut into windows: where windows happen to cut the texts adds
    more noise than what is looked for.
    """
    pairs = [pair for orders in arranged for pair in _neighbors(orders)]
    logs = reader.after(model, [(texts[before] if before >= 0 else (), texts[at]) for before, at in pairs])
    known = dict(zip(pairs, logs.tolist(), strict=True))
    return np.array([[sum(known[pair] for pair in pairwise((-1, *order))) for order in orders.tolist()]
                     for orders in arranged])  # fmt: skip
