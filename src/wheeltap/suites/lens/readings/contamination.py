"""How well a language model knows the texts of a benchmark: by token, by completion, by order; and taught copies."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Any, Final, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import inputs, seeds
from wheeltap.core.choices import ChoiceTask, batches, filled_up
from wheeltap.core.errors import DataError
from wheeltap.core.inputs import as_scores
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_array
from wheeltap.engine.needs.tuning import TuningCopy
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.perturb.tune import FineTuneSettings
from wheeltap.suites.lens.annotations import Passages
from wheeltap.suites.lens.specs import CONTAMINATION, FRACTIONS, ContaminationSettings
from wheeltap.suites.lens.stats import model_free

Tokens = tuple[int, ...]

_LEAST: Final = 1e-12
"""Least variance of log-likelihoods over the vocabulary that is divided by."""

OFFSETS: Final = 4
"""Places at which the first window may start, or a copy would know the items at one place of a window alone."""

Arrays = dict[str, NDArray[Any]]


@final
@dataclass(frozen=True)
class Texts:
    """Tokens of a task of plain texts.

    Attributes:
        start: What every text follows.
        items: Of each item the tokens of its own text, of its twin (or shuffled text), and of new items of the same
            form, where there are any.
        tokens_per_batch: Bound on the tokens of one call.
    """

    start: Tokens
    items: tuple[tuple[Tokens, ...], ...]
    between: Tokens
    tokens_per_batch: int

    def versions(self, passages: Passages) -> list[list[Tokens]]:
        """Tokens of own texts, and of twins where there are any."""
        return [[item[at] for item in self.items] for at in range(2 if passages.twins else 1)]

    def listed(self, version: int) -> list[Tokens]:
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


@final
@dataclass(frozen=True, eq=False)
class TokenScores:
    """What a model says of a text.

    Attributes:
        logs: Log-likelihood of each token, nats, ``[token]``.
        standardized: The same less its mean and over its deviation under the model's own distribution.
        hits: Whether the token is the likeliest one.
    """

    logs: NDArray[np.float64]
    standardized: NDArray[np.float64]
    hits: NDArray[np.bool_]


@final
@dataclass(frozen=True)
class TextReader:
    """Reads texts, cut into windows where they are longer; each window follows the start tokens."""

    start: Tokens
    window: int
    tokens_per_batch: int

    def window_of(self, model: nn.Module) -> int:
        """Tokens of a window that this model can read."""
        limit = inputs.longest(model)
        return self.window if limit is None else max(min(self.window, limit[0] - len(self.start)), 1)

    def read(self, model: nn.Module, texts: Sequence[Tokens]) -> list[TokenScores]:
        """What the model says of every token of these texts."""
        size, parts = self.window_of(model), dict[int, TokenScores]()
        # Windows in order, each with the place of its text.
        pieces = [(at, text[start : start + size]) for at, text in enumerate(texts)
                  for start in range(0, len(text), size)]  # fmt: skip
        for place, said, wanted in self._said(model, [piece for _, piece in pieces]):
            logs = said.gather(1, wanted[:, None])[:, 0].double()
            # Mean and deviation of a token drawn from the model's own distribution.
            mean, square = ((said.exp() * power).sum(-1).double() for power in (said, said.square()))
            deviation = (square - mean.square()).clamp_min(_LEAST).sqrt()
            standardized = to_array((logs - mean) / deviation).astype(np.float64)
            hits, known = to_array(said.argmax(-1) == wanted).astype(np.bool_), to_array(logs).astype(np.float64)
            parts[place] = TokenScores(known, standardized, hits)
        several: list[list[TokenScores]] = [[] for _ in texts]
        for place, (at, _) in enumerate(pieces):
            several[at].append(parts[place])
        names = TokenScores.__dataclass_fields__
        return [TokenScores(*(np.concatenate([getattr(one, name) for one in some]) for name in names))
                for some in several]  # fmt: skip

    def half(self, model: nn.Module) -> int:
        """Tokens of either of two texts that are read together, at most."""
        return max(self.window_of(model) // 2, 1)

    def after(self, model: nn.Module, pairs: Sequence[tuple[Tokens, Tokens]]) -> NDArray[np.float64]:
        """Log-likelihood of each second text after the first one, nats, ``[pair]``; both are cut to half a window."""
        half, totals = self.half(model), np.zeros(len(pairs))
        cut = [(before[-half:], text[:half]) for before, text in pairs]
        for place, said, wanted in self._said(model, [(*before, *text) for before, text in cut]):
            logs = said.gather(1, wanted[:, None])[len(cut[place][0]) :]
            totals[place] = logs.double().sum().item()
        return totals

    def _said(self, model: nn.Module, rows: Sequence[Tokens]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Of each row its place, log-probabilities ``[token, vocabulary]`` and tokens; short rows first."""
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        texts, places = [(*self.start, *rows[place]) for place in order], iter(order)
        for batch in batches(texts, self.tokens_per_batch, span=max(map(len, texts), default=0)):
            ids = filled_up(batch, model)
            with torch.no_grad():
                said = as_scores(model(ids))[:, len(self.start) - 1 : -1].float().log_softmax(-1)
            for row, text in enumerate(batch):
                yield next(places), said[row, : len(text) - len(self.start)], ids[row, len(self.start) : len(text)]


def scored(texts: Sequence[TokenScores], *, lowest: float) -> dict[str, NDArray[np.float64]]:
    """Scores of each text, ``[example, ...]``, by what a model said of its tokens; see the spec.

    Source: Shi et al. (2024, arXiv:2310.16789) for Min-K%; Zhang et al. (2025, arXiv:2404.02936), eq. 3, for Min-K%++.
    """

    def least(values: NDArray[Any]) -> float:
        """Mean of the least of them, one at least."""
        return float(np.sort(values)[: max(int(lowest * len(values)), 1)].mean())

    def kept(hits: NDArray[np.bool_], fraction: float) -> float:
        """Share of the tail before the first token that is not the likeliest one: how far it is completed greedily.

        As long as every token was the likeliest, the completion is what was read, so that nothing need be sampled.
        """
        tail = hits[given(len(hits), fraction) :]
        return float(np.argmin(tail)) / len(tail) if not tail.all() else 1.0

    return {
        "loss": np.array([-one.logs.mean() for one in texts]),
        "mink": np.array([least(one.logs) for one in texts]),
        "minkpp": np.array([least(one.standardized) for one in texts]),
        "kept": np.array([[kept(one.hits, fraction) for fraction in FRACTIONS] for one in texts]),
    }


def given(tokens: int, fraction: float) -> int:
    """Tokens of a text that are given where the rest is to be completed; one at least is left."""
    return min(max(round(fraction * tokens), 1), tokens - 1)


def taught_copies(
    subject: Subject,
    texts: Texts,
    epochs: Sequence[int],
    *,
    window: int,
    how: ContaminationSettings,
    draw: tuple[int, int],
) -> Iterator[tuple[int, nn.Module, float]]:
    """The model, and copies of it after some epochs of the items one after the other, cut into windows.

    Windows start at several offsets and are drawn from all of them: after as many steps as one epoch of one offset
    takes, each item was read once in the mean.

    Args:
        subject: Undisturbed; it is never touched.
        texts: The items.
        epochs: Rising; of 0 it is the subject's own model.
        window: Tokens of a window.
        how: Step size and batch.
        draw: Root and seed of the order in which windows come.

    Yields:
        Epochs, a model that is good until the next one is asked for, and passes over the task so far.
    """
    stream = tuple(token for text in texts.listed(0) for token in text)
    starts = [offset * window // OFFSETS for offset in range(OFFSETS)]
    several = [[stream[at : at + window] for at in range(start, len(stream), window)] for start in starts]
    windows = [one for each in several for one in each]
    # Training goes down the loss of right options; the other option is never read.
    choices = [[window, window[:1]] for window in windows]
    task = ChoiceTask([texts.start] * len(windows), choices, [0] * len(windows), name="windows",
                      tokens_per_batch=texts.tokens_per_batch)  # fmt: skip
    tuning = FineTuneSettings(data="all", holdout=0.0, batch=how.teaching_batch, lr=how.teaching_rate, optimizer="adam")
    tuned: TuningCopy | None = None
    for epoch in epochs:
        if epoch == 0:
            yield 0, subject.model, 0.0
            continue
        tuned = TuningCopy(subject, task, tuning) if tuned is None else tuned
        root, seed = draw
        tuned.at(max(1, round(epoch * len(several[0]) / how.teaching_batch)), root=root, seed=seed)
        # What teaching counts as a pass is one over the windows of all offsets; one over the task, of two versions.
        yield epoch, tuned.model, tuned.forwards * OFFSETS / 2


@final
class Contamination(Reading):
    """Scores of own texts and twins, of the model as it is or of copies of it that were taught the texts."""

    spec = CONTAMINATION
    settings: ContaminationSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``."""
        texts, passages = texts_of(task)
        how, versions = self.settings, texts.versions(passages)
        arranged = _arranged(len(texts.items), how, root=root, seed=seed)
        reader = TextReader(texts.start, window=how.window, tokens_per_batch=texts.tokens_per_batch)
        read = np.array([min(len(text), reader.half(subject.model)) for text in texts.listed(0)])
        tokens = np.array([read[orders[0]].sum() for orders in arranged])
        fixed = {**self._fixed(texts, passages), "shard_tokens": tokens}
        places = {"order": (0,), "order_twins": (1,) if passages.twins else (),
                  "order_fresh": tuple(range(2, len(texts.items[0])))}  # fmt: skip
        # An order is tested only against other items of the same form: twins, or new ones.
        comparable = bool(passages.twins or passages.fresh)
        orders = {name: several for name, several in places.items() if several and comparable}
        # Where no test is left, nothing is learned of copies.
        epochs = sorted({int(one) for one in how.epochs.split(",")}) if orders or passages.twins else [0]
        window, rows, teaching = reader.window_of(subject.model), list[Arrays](), 0.0
        for epoch, model, spent in taught_copies(subject, texts, epochs, window=window, how=how, draw=(root, seed)):
            teaching = spent
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
        cost = len(rows) * (len(versions) / 2 + neighbors) + teaching
        return Readings({**values, **fixed}, forwards=cost)

    def _known(self, model: nn.Module, reader: TextReader, texts: Texts, passages: Passages) -> Arrays:
        """Scores of each text of every version: ``[example, version, ...]``."""
        versions = texts.versions(passages)
        read = [scored(reader.read(model, version), lowest=self.settings.lowest) for version in versions]
        size = _bytes(passages)
        known = {name: np.stack([one[name] for one in read], axis=1) for name in read[0]}
        tokens = np.array([[len(text) for text in version] for version in versions]).T
        return {**known, "zlib": known["loss"] * tokens / size}

    def _fixed(self, texts: Texts, passages: Passages) -> Arrays:
        """Arrays that do not depend on the model."""
        versions = texts.versions(passages)
        left = [
            [[max(len(text) - given(len(text), f) - same, 0) for f in FRACTIONS]
             for text, same in zip(version, _shared(version), strict=True)]
            for version in versions
        ]  # fmt: skip
        found: Arrays = {"tail": np.moveaxis(np.array(left), 0, 1), "bytes": _bytes(passages)}
        if passages.twins:
            pairs = list(zip(passages.own, passages.twins, strict=True))
            found["words"], found["letters"] = model_free.by_words(pairs), model_free.by_letters(pairs)
        if passages.repeated:
            found["repeated"] = np.array([passages.repeated])
        return found


def _shared(texts: Sequence[Tokens]) -> list[int]:
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
    draws = [seeds.generator(root, "contamination", "order", seed, at) for at in range(len(shards))]
    return [np.array([shard, *(rng.permutation(shard) for _ in range(how.shuffles))])
            for shard, rng in zip(shards, draws, strict=True)]  # fmt: skip


def _neighbors(orders: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Every item and the one before it in any of these orders; -1 before a first one."""
    return sorted({pair for order in orders.tolist() for pair in pairwise((-1, *order))})


def _order(
    model: nn.Module, reader: TextReader, texts: Sequence[Tokens], arranged: list[NDArray[np.intp]]
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
