"""What a language model says of the readings of ambiguous sentences, and how differently those go on."""

import inspect
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap.core import seeds
from wheeltap.core.choices import ChoiceTask, filled_up
from wheeltap.core.errors import DataError
from wheeltap.core.inputs import require_short
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, as_scores
from wheeltap.core.typed import to_array, to_tensor
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.suites.lens.annotations import Ambiguity, AmbiguousSentence, Tokens
from wheeltap.suites.lens.specs import (
    CONTINUATIONS,
    DISTRACTOR,
    FALSE,
    LABEL_SETS,
    NOT_ASKED,
    READING,
    STATEMENTS,
    TEMPLATES,
    TRUE,
    ContinuationSettings,
    PartSettings,
)

SIDES: Final = 2
"""Premise and hypothesis."""

CONTINUATIONS_AT_ONCE: Final = 128
"""Continuations that are drawn together."""

CACHES: Final = ("cache", "past_key_values")
"""What transformers call what a model computed of earlier tokens, and gives back: in 5.24 and later, and before."""

MOST_LIKELY: Final = 2048
"""Tokens that are sorted, where these are enough: to sort all of a large vocabulary takes as long as the model."""

TOKENS_AT_ONCE: Final = 2048
"""Tokens of one forward call."""


class Continuation(NamedTuple):
    """Continuations of one sentence."""

    tokens: list[Tokens]  # of each, to the end of its sentence
    logprob: NDArray[np.float64]  # [continuation], nats: sum over its tokens after the sentence they were drawn after


@final
class Continuations(Reading):
    """Draws continuations of each reading and of a distractor, and asks how likely the ambiguous sentence makes them.

    KL(y || x) is estimated by the mean over continuations c of y of log p(c | y) - log p(c | x). They are drawn from
    the most likely tokens (top-p); their log-probabilities are those of the whole distribution. Tokens are scored as
    they were drawn, so that nothing is tokenized again across the end of a sentence.

    Source: arXiv:2304.14399, sec. 4.3.
    """

    spec = CONTINUATIONS
    settings: ContinuationSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            DataError: If the task knows no readings, or a sentence and its continuation are too long for the model.
        """
        known, rows = known_of(task), self.settings.rows(len(task.targets))
        most = 1 + max((len(one.readings) for several in known.sentences for one in several), default=1)
        shape = (len(known.sentences), SIDES, most)
        divergence, kind = np.zeros(shape), np.zeros(shape, dtype=np.int64)
        count = np.zeros(shape[:2], dtype=np.int64)
        chosen = [(row, one) for row in rows for one in known.sentences[row]]
        tokens = 0
        if chosen:
            go_on = Continuer(subject.model, self.settings, known.ends)
            sizes = [max(map(len, (one.sentence, *one.readings, one.distractor))) for _, one in chosen]
            longest = [size + self.settings.longest for size in sizes]
            require_short(subject.model, longest, where=task.name, what="sentence")
            names = [(row, one.side) for row, one in chosen]
            drawn = self._drawn(go_on, [one for _, one in chosen], names, root=root)
            for (row, one), several in zip(chosen, drawn, strict=True):
                after = go_on.scored(one.sentence, [c for each in several for c in each.tokens])
                parts = np.split(after, np.cumsum([len(each.tokens) for each in several])[:-1])
                gaps = [float((each.logprob - part).mean()) for each, part in zip(several, parts, strict=True)]
                divergence[row, one.side, : len(gaps)] = gaps
                kind[row, one.side, : len(gaps)] = [READING] * len(one.readings) + [DISTRACTOR]
                count[row, one.side] = self.settings.continuations
            tokens = go_on.read
        values: dict[str, NDArray[Any]] = {"divergence": divergence, "kind": kind, "continuations": count}
        return Readings(values, forwards=tokens / max(task.tokens, 1))

    def _drawn(
        self, go_on: "Continuer", several: list[AmbiguousSentence], names: list[tuple[int, int]], *, root: int
    ) -> list[list[Continuation]]:
        """Continuations of each one's readings and distractor, in this order; the random numbers are named by item."""
        starts = [[*one.readings, one.distractor] for one in several]
        size = (self.settings.longest, self.settings.continuations)
        uniform = [
            [seeds.generator(root, self.name, self.settings.draw, *name, at).random(size) for at in range(len(each))]
            for name, each in zip(names, starts, strict=True)
        ]
        flat = [(start, draws) for each, own in zip(starts, uniform, strict=True)
                for start, draws in zip(each, own, strict=True)]  # fmt: skip
        found = iter(go_on.drawn([start for start, _ in flat], [draws for _, draws in flat]))
        return [[next(found) for _ in each] for each in starts]


@final
class Continuer:
    """A language model that goes on from sentences.

    Where it takes what it computed of earlier tokens (see ``CACHES``), each token is read once; another model reads all
    of a sequence at each step.

    Attributes:
        ends: Tokens that end a sentence.
        read: Tokens read so far.
    """

    def __init__(self, model: nn.Module, how: ContinuationSettings, ends: frozenset[int]) -> None:
        self.model, self.how, self.ends, self.read = model, how, ends, 0
        self._device = next(model.parameters()).device
        known = inspect.signature(model.forward).parameters
        self._cache = next((name for name in CACHES if {name, "use_cache"} <= known.keys()), "")
        self._keeps = "logits_to_keep" in known

    def drawn(self, starts: Sequence[Tokens], uniform: Sequence[NDArray[np.float64]]) -> list[Continuation]:
        """Continuations of each start, by its random numbers ``[step, continuation]``."""
        found: list[Continuation | None] = [None] * len(starts)
        with torch.no_grad():
            # Starts of one length together: nothing is filled up, so no position is masked.
            by_length = [[at for at, start in enumerate(starts) if len(start) == length]
                         for length in sorted({len(start) for start in starts})]  # fmt: skip
            most = max(CONTINUATIONS_AT_ONCE // self.how.continuations, 1)
            for places in (some[at : at + most] for some in by_length for at in range(0, len(some), most)):
                rows = [starts[at] for at in places for _ in range(self.how.continuations)]
                tokens, logprob = self._draw(rows, np.concatenate([uniform[at] for at in places], axis=1))
                for number, at in enumerate(places):
                    own = slice(number * self.how.continuations, (number + 1) * self.how.continuations)
                    found[at] = Continuation(tokens[own], logprob[own])
        return [one for one in found if one is not None]

    def _draw(self, rows: list[Tokens], uniform: NDArray[np.float64]) -> tuple[list[Tokens], NDArray[np.float64]]:
        """One token after another, until each row's sentence has ended; rows are equally long."""
        logits, cache = self._first(rows)
        drawn: list[list[int]] = [[] for _ in rows]
        logprob, open_ = np.zeros(len(rows)), np.ones(len(rows), dtype=bool)
        for step in range(self.how.longest):
            logs = logits.log_softmax(-1)
            chosen = nucleus(logs, self.how.top_p, to_tensor(uniform[step], like=logs))
            chance = logs.gather(1, chosen[:, None])[:, 0]
            for row in np.flatnonzero(open_):
                token = int(chosen[row])
                drawn[row].append(token)
                logprob[row] += float(chance[row])
                open_[row] = token not in self.ends
            if not open_.any() or step + 1 == self.how.longest:
                break
            logits, cache = self._next(rows, drawn, chosen, cache)
        return [tuple(one) for one in drawn], logprob

    def _first(self, rows: list[Tokens]) -> tuple[Tensor, Any]:
        """Scores after the starts; each distinct start is read once."""
        distinct = list(dict.fromkeys(rows))
        place = torch.tensor([distinct.index(row) for row in rows], device=self._device)
        logits, cache = self._called(torch.tensor(distinct, device=self._device), None)
        if cache is not None:
            cache.reorder_cache(place)
        return logits[place, -1], cache

    def _next(self, rows: list[Tokens], drawn: list[list[int]], chosen: Tensor, cache: Any) -> tuple[Tensor, Any]:
        """Scores after one more token each; rows whose sentence has ended go on, and nobody listens."""
        if cache is not None:
            logits, cache = self._called(chosen[:, None], cache)
            return logits[:, -1], cache
        ids = filled_up([(*row, *own) for row, own in zip(rows, drawn, strict=True)], self.model)
        return self._called(ids, None)[0][:, -1], None

    def _called(self, ids: Tensor, cache: Any) -> tuple[Tensor, Any]:
        self.read += ids.numel()
        if not self._cache:
            return as_scores(self.model(ids)).float(), None
        given = {} if cache is None else {self._cache: cache}
        # Of a start that is kept, only what comes next is asked.
        few = {"logits_to_keep": 1} if cache is None and self._keeps else {}
        answer = self.model(input_ids=ids, use_cache=True, **given, **few)
        return as_scores(answer).float(), getattr(answer, self._cache, None)

    def scored(self, start: Tokens, continuations: Sequence[Tokens]) -> NDArray[np.float64]:
        """Log-probability ``[continuation]`` of each after ``start``, summed over its tokens, nats."""
        after = filled_up(continuations, self.model)
        with torch.no_grad():
            logs = self._after(torch.tensor([start], device=self._device), after).log_softmax(-1).double()
        each = logs.gather(2, after[:, :, None])[:, :, 0].cpu()
        inside = torch.arange(after.shape[1])[None, :] < torch.tensor([len(one) for one in continuations])[:, None]
        return np.asarray((each * inside).sum(1).numpy(), dtype=np.float64)

    def _after(self, start: Tensor, after: Tensor) -> Tensor:
        """Scores of each token of ``after`` ``[row, step, token]``; what it is filled up by changes nothing."""
        first, cache = self._called(start, None) if self._cache else (None, None)
        if first is None or cache is None:
            ids = torch.cat([start.expand(len(after), -1), after[:, :-1]], 1)
            self.read += ids.numel()
            return as_scores(self.model(ids)).float()[:, start.shape[1] - 1 :]
        rows = first[:, -1:].expand(len(after), -1, -1)
        if after.shape[1] == 1:
            return rows
        cache.reorder_cache(torch.zeros(len(after), dtype=torch.long, device=self._device))
        return torch.cat([rows, self._called(after[:, :-1], cache)[0]], 1)


def nucleus(logs: Tensor, top_p: float, uniform: Tensor) -> Tensor:
    """A token for each row, among the fewest most likely ones that have ``top_p`` together: ``[row]``.

    Args:
        logs: Log-probabilities ``[row, token]``.
        top_p: Probability that they have together, at least.
        uniform: ``[row]``, random numbers in [0, 1).

    Source: Holtzman et al. (2020), arXiv:1904.09751, eq. 2-3.
    """
    ordered, tokens = logs.topk(min(MOST_LIKELY, logs.shape[-1]), dim=-1)
    if bool((ordered.exp().sum(-1) < top_p).any()):
        ordered, tokens = logs.sort(-1, descending=True)
    share = ordered.double().exp()
    kept = torch.where(share.cumsum(-1) - share < top_p, share, torch.zeros_like(share))
    edges = kept.cumsum(-1)
    place = (edges <= uniform[:, None].double() * edges[:, -1:]).sum(-1)
    # The product may be a rounding away from the last edge: no draw may fall on a token that is not kept.
    place = torch.minimum(place, (kept > 0.0).sum(-1) - 1)
    return tokens.gather(1, place[:, None])[:, 0]


@final
class LabelSets(Reading):
    """The labels that the task's examples have under some reading; no pass."""

    spec = LABEL_SETS

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            DataError: If the task does not know them.
        """
        return Readings({"right": np.array(known_of(task).labels, dtype=bool)}, forwards=0.0)


@final
class Statements(Reading):
    """Whether " True" is likelier than " False" after each statement."""

    spec = STATEMENTS
    settings: PartSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``.

        Raises:
            DataError: If the task knows no readings.
        """
        known, rows = known_of(task), self.settings.rows(len(task.targets))
        most = max((len(one) for one in known.statements), default=0)
        answer = np.full((len(known.statements), most, len(TEMPLATES)), NOT_ASKED)
        mass = np.zeros(answer.shape)
        places = [
            (row, reading, template)
            for row in rows
            for reading, asked in enumerate(known.statements[row])
            for template in range(len(asked))
        ]
        values: dict[str, NDArray[Any]] = {"answer": answer, "mass": mass}
        if not places:
            return Readings(values, forwards=0.0)
        questions = [known.statements[row][reading][template] for row, reading, template in places]
        asked = ChoiceTask(questions, [known.options] * len(questions), [0] * len(questions), name=task.name,
                           tokens_per_batch=TOKENS_AT_ONCE)  # fmt: skip
        scores = asked.scores(subject.model).double()
        at = tuple(np.array(places).T)
        answer[at] = np.where(to_array(scores[:, 1]) > to_array(scores[:, 0]), TRUE, FALSE)
        mass[at] = to_array(torch.exp(scores).sum(1)).clip(0.0, 1.0)
        return Readings(values, forwards=sum(map(len, questions)) / max(task.tokens, 1))


def known_of(task: BaseTask) -> Ambiguity:
    """What the task knows of its examples' readings.

    Raises:
        DataError: If that is nothing.
    """
    known = task.annotation(Ambiguity)
    if known is None:
        raise DataError(
            "The examples have no readings.",
            where=task.name,
            expected="ambiguous sentences with their readings",
            got="none",
            do="Give --data FILE.jsonl with AmbiEnt's fields (premise, hypothesis, labels, disambiguations), with a "
            "language model.",
        )
    return known
