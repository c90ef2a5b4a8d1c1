"""Tasks of language models: items of a context and options, scored by what the model would say next."""

import inspect
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Protocol, final, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import canon, measure
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.inputs import require_short
from wheeltap.core.measure import Measure
from wheeltap.core.repeats import lookalikes, rows_of
from wheeltap.core.settings import name_of
from wheeltap.core.targets import require_fitting
from wheeltap.core.task import BaseTask, Moments, as_scores
from wheeltap.core.typed import to_array

SPAN = 2
"""Largest difference of length within a batch: filling up costs fewer tokens than more and smaller batches cost time
(SmolLM2, 2 cores: 4.5 s a pass instead of 5.4)."""

_CAUSAL = 1e-3
"""Largest change of a score by later tokens, as a share of the scores, that passes for rounding."""


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
class ChoiceTask(BaseTask):
    """Items of a context and options, scored by the summed log-likelihood of each option's tokens.

    A pass runs each distinct token sequence once: where all options of an item are one token long, its context
    alone is enough. What else is known of the items is added afterward: ``with_groups``; see ``BaseTask``.

    Args:
        contexts: Token ids of each item's context (at least one token).
        choices: Token ids of each of its options, the same number of options for every item.
        targets: Index of the right option per item.
        name: For reports.
        tokens_per_batch: Bound on the tokens of one forward call.
        more: Further token sequences of the same kind, used only for estimating layer moments.

    Raises:
        DataError: If the task is empty, an item has an empty context or option, or options differ in number.
    """

    batch_attribute = "tokens_per_batch"

    def __init__(
        self,
        contexts: Sequence[Sequence[int]],
        choices: Sequence[Sequence[Sequence[int]]],
        targets: Sequence[int],
        *,
        name: str = "choices",
        tokens_per_batch: int = 1024,
        more: Sequence[Sequence[int]] = (),
    ) -> None:
        self.name, self.tokens_per_batch = name_of(name), tokens_per_batch
        self.contexts = tuple(tuple(c) for c in contexts)
        self.choices = tuple(tuple(tuple(o) for o in options) for options in choices)
        self.more = tuple(tuple(s) for s in more)
        self.measure: Measure = measure.accuracy
        if not self.contexts:
            raise DataError("The task is empty.", where=self.name, expected="at least one item", got="none",
                            do="Check what made the items: all of them may have been filtered out.")  # fmt: skip
        if not len(self.contexts) == len(self.choices) == len(targets):
            raise DataError(
                "The task's contexts, choices and answers differ in number.",
                where=self.name,
                expected=f"{len(self.contexts)} of each",
                got=f"{len(self.choices)} choices, {len(targets)} answers",
            )
        for index, (context, options) in enumerate(zip(self.contexts, self.choices, strict=True)):
            if not context or len(options) < 2 or not all(options) or len(options) != len(self.choices[0]):
                raise DataError(
                    "An item cannot be scored.",
                    where=f"{self.name}: item {index}",
                    expected=f"a context and {max(len(self.choices[0]), 2)} options, each of at least one token",
                    got=f"a context of {len(context)} tokens, options of {[len(o) for o in options]} tokens",
                    do="Give every item a context and the same number of non-empty choices.",
                )
        self.targets = torch.tensor(list(targets), dtype=torch.long)
        require_fitting(self.targets, len(self.choices[0]), where=self.name)
        self.sequences = _without_prefixes(
            context + option[:-1]
            for context, options in zip(self.contexts, self.choices, strict=True)
            for option in options
        )

    @property
    def digest(self) -> str:
        """Digest of every token, the order of the items and the scoring rule."""
        targets = [int(target) for target in self.targets]
        what = ["summed log-likelihood", self.contexts, self.choices, targets, self.more]
        # Behaviors as numbers, not as a digest of their own: so they stand in every key there is.
        known = self.annotations.behaviors
        kinds = [] if known is None else [[int(one) for one in known]]
        scored = [] if isinstance(self.measure, measure.Accuracy) else [self.measure.identity]
        return canon.key("choices", [*what, *kinds, *scored, *replace(self.annotations, behaviors=None).digests])

    @property
    def contents(self) -> tuple[str, ...]:
        """See ``BaseTask.contents``: context and options, in whichever order."""
        items = zip(self.contexts, self.choices, strict=True)
        return tuple(canon.key("example", [context, sorted(options)]) for context, options in items)

    @property
    def tokens(self) -> int:
        """Distinct positions: two positions with the same tokens up to them hold the same activations."""
        prefixes = {s[: end + 1] for s in (*self.sequences, *self.more) for end in range(len(s))}
        return len(prefixes)

    @property
    def moment_passes(self) -> float:
        """See ``BaseTask.moment_passes``."""
        every = _without_prefixes([*self.sequences, *self.more])
        return sum(map(len, every)) / sum(map(len, self.sequences))

    def part(self, index: Tensor) -> "ChoiceTask":
        """See ``BaseTask.part``."""
        chosen = [int(at) for at in index]
        part = ChoiceTask(
            [self.contexts[at] for at in chosen],
            [self.choices[at] for at in chosen],
            [int(self.targets[at]) for at in chosen],
            name=self.name,
            tokens_per_batch=self.tokens_per_batch,
        )
        return part._annotated(self.annotations.part(index))

    def _keys(self) -> Sequence[object]:
        rows = [self.targets, *rows_of(self.annotations)]
        items = zip(self.contexts, self.choices, strict=True)
        return [(item, *(to_array(row[at]).tobytes() for row in rows)) for at, item in enumerate(items)]

    def _lookalikes(self) -> NDArray[np.intp] | None:
        items = zip(self.contexts, self.choices, strict=True)
        return lookalikes([[*map(str, [*context, *chain(*options)])] for context, options in items])

    def places(self) -> dict[Hashable, int]:
        """See ``BaseTask.places``: where a token of an option is read, by all tokens up to there."""
        found: dict[Hashable, int] = {}
        for row, (context, options) in enumerate(zip(self.contexts, self.choices, strict=True)):
            for prefix in (context + option[:k] for option in options for k in range(len(option))):
                found.setdefault(prefix, row)
        return found

    def batch_range(self) -> tuple[int, int]:
        """See ``Batched.batch_range``: the longest sequence fits into each batch."""
        return max(map(len, self.sequences)), self.tokens_per_batch

    def forward(self, model: nn.Module) -> Tensor:
        """Summed log-likelihood ``[item, option]``, on the CPU; see ``BaseTask.forward``."""
        wanted: dict[tuple[int, ...], set[int]] = {}  # prefix to the next tokens whose log-probability is read there
        for context, options in zip(self.contexts, self.choices, strict=True):
            for option in options:
                for k, token in enumerate(option):
                    wanted.setdefault(context + option[:k], set()).add(token)
        ends, read = list[tuple[int, ...]](), list[Tensor]()
        for batch in batches(self.sequences, self.tokens_per_batch, span=SPAN):
            found, logprobs = self._read(model, batch, wanted)
            ends += found
            read.append(logprobs)
        place = {end: at for at, end in enumerate(ends)}
        steps: list[int] = []
        cells: list[int] = []
        for row, (context, options) in enumerate(zip(self.contexts, self.choices, strict=True)):
            for column, option in enumerate(options):
                full = context + option
                steps += [place[full[: len(context) + k + 1]] for k in range(len(option))]
                cells += [row * len(options) + column] * len(option)
        table = torch.zeros(len(self.contexts) * len(self.choices[0]), dtype=torch.float64)
        summed = table.index_add(0, torch.tensor(cells), torch.cat(read)[torch.tensor(steps)].double())
        return summed.view(len(self.contexts), -1).float()

    def loss(self, model: nn.Module, index: Tensor | None = None, *, targets: Tensor | None = None) -> Tensor:
        """Mean negative log-likelihood of the right option's tokens, summed per item, in nats; see ``BaseTask.loss``.

        Other than cross-entropy of the scores it does not turn on the options offered: it is how language models
        are trained.
        """
        chosen = range(len(self.contexts)) if index is None else [int(at) for at in index]
        answers = self.targets[torch.as_tensor(chosen)] if targets is None else targets
        pairs = [(self.contexts[at], self.choices[at][int(answer)]) for at, answer in zip(chosen, answers, strict=True)]
        pairs.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
        size = max(self.tokens_per_batch // (len(pairs[-1][0]) + len(pairs[-1][1])), 1)
        parts = [self._summed(model, pairs[start : start + size]) for start in range(0, len(pairs), size)]
        return -torch.stack(parts).sum() / len(pairs)

    def _summed(self, model: nn.Module, pairs: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> Tensor:
        """Log-likelihood of the second halves, each given the first one, summed over the pairs."""
        ids = filled_up([context + option[:-1] for context, option in pairs], model)
        logits = last_logits(model, ids, first=min(len(context) - 1 for context, _ in pairs))
        places = [
            (row, len(context) - 1 + k, token)
            for row, (context, option) in enumerate(pairs)
            for k, token in enumerate(option)
        ]
        row, end, token = torch.tensor(places, device=ids.device).T
        read = logits[row, end - (ids.shape[1] - logits.shape[1])].float().log_softmax(-1)
        return read.gather(1, token[:, None]).sum()

    def require_readable(self, model: nn.Module) -> None:
        """Raises ``ModelError`` if what the model says at a position depends on the tokens after it.

        Prefixes are scored inside longer sequences and short ones are filled up behind, which only a causal model
        leaves as they are: two calls on the longest sequence tell.

        Raises ``DataError`` if an item is longer than the model can read.
        """
        items = zip(self.contexts, self.choices, strict=True)
        require_short(
            model,
            [len(context) + max(map(len, options)) - 1 for context, options in items],
            where=self.name,
            what="item",
        )
        require_short(model, map(len, self.more), where=self.name, what="further sequence")
        require_causal(model, self.sequences[-1], where=self.name)

    def _read(
        self, model: nn.Module, batch: list[tuple[int, ...]], wanted: dict[tuple[int, ...], set[int]]
    ) -> tuple[list[tuple[int, ...]], Tensor]:
        """What one call gives: tokens up to the one that is read, and its log-probability ``[step]``, on the CPU."""
        places = [
            (row, end, batch[row][: end + 1])
            for row in range(len(batch))
            for end in range(len(batch[row]))
            if batch[row][: end + 1] in wanted
        ]
        ids = filled_up(batch, model)
        logits = last_logits(model, ids, first=min(end for _, end, _ in places))
        rows = torch.tensor([row for row, _, _ in places], device=ids.device)
        ends = torch.tensor([end for _, end, _ in places], device=ids.device)
        chosen = logits[rows, ends - (ids.shape[1] - logits.shape[1])].float().log_softmax(-1).cpu()
        if self.watch is not None:
            self.watch([prefix for _, _, prefix in places], chosen)
        steps = [(at, prefix, token) for at, (_, _, prefix) in enumerate(places) for token in wanted[prefix]]
        logprobs = chosen[torch.tensor([at for at, _, _ in steps]), torch.tensor([token for _, _, token in steps])]
        return [(*prefix, token) for _, prefix, token in steps], logprobs

    def moments(self) -> Iterator[Moments]:
        """Token sequences for layer moments; the first position of each is the attention sink."""
        # Half as many tokens as in a scoring pass: here the model gives scores at every position.
        for batch in batches(_without_prefixes([*self.sequences, *self.more]), self.tokens_per_batch // 2):
            yield Moments(torch.tensor(batch), sinks=1)


def require_causal(model: nn.Module, tokens: Sequence[int], *, where: str) -> None:
    """Raises ``ModelError`` if what the model says at a position of these tokens depends on later ones."""
    longest = list(tokens) if len(tokens) > 1 else [*tokens] * 2
    device = next(model.parameters()).device
    with torch.no_grad():
        whole, part = (as_scores(model(torch.tensor([ids], device=device))).float() for ids in (longest, longest[:-1]))
    gap, scale = (whole[:, : part.shape[1]] - part).abs().max(), part.abs().max()
    if bool(torch.isfinite(gap)) and float(gap) > _CAUSAL * max(float(scale), 1e-6):
        raise ModelError(
            "The model reads ahead: its scores at a position depend on later tokens.",
            where=where,
            expected="a causal language model",
            got=f"scores that change by {float(gap):.2g} when one more token follows",
            do="Score such a model by a task of your own (a subclass of BaseTask).",
        )


def filled_up(rows: Sequence[tuple[int, ...]], model: nn.Module) -> Tensor:
    """Token sequences as ``[row, position]`` on the model's device, filled up behind with their last tokens."""
    length = max(map(len, rows))
    filled = [[*row, *row[-1:] * (length - len(row))] for row in rows]
    return torch.tensor(filled, device=next(model.parameters()).device)


def last_logits(model: nn.Module, ids: Tensor, *, first: int) -> Tensor:
    """Logits of ids ``[row, position]`` from one position on; of all where the model cannot leave out the rest."""
    if first and "logits_to_keep" in inspect.signature(model.forward).parameters:
        return as_scores(model(input_ids=ids, logits_to_keep=ids.shape[1] - first, use_cache=False))
    return as_scores(model(ids))


def _without_prefixes(sequences: Iterable[tuple[int, ...]]) -> tuple[tuple[int, ...], ...]:
    """Distinct sequences, sorted, without those that another one starts with: a causal model computes both."""
    ordered: list[tuple[int, ...]] = sorted(set(sequences))
    kept = [a for a, b in zip(ordered, [*ordered[1:], ()], strict=True) if b[: len(a)] != a]
    return tuple(sorted(kept, key=lambda s: (len(s), s)))


def batches(
    sequences: Sequence[tuple[int, ...]], tokens: int, *, span: int = 0, room: int = 0
) -> Iterator[list[tuple[int, ...]]]:
    """Batches of token sequences for one call of a model each.

    Args:
        sequences: Sorted by length.
        tokens: Of a batch, at most.
        span: Largest difference of length within a batch.
        room: Tokens that each may become longer by.
    """
    batch: list[tuple[int, ...]] = []
    for sequence in sequences:
        if batch and (len(sequence) > len(batch[0]) + span or (len(batch) + 1) * (len(sequence) + room) > tokens):
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch
