"""How a model answers requests of lm-eval: log-likelihoods of continuations, or text that it generates."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError
from wheeltap.core.task import as_scores
from wheeltap.sources import hf
from wheeltap.sources.lm_eval_harness import Harness, library
from wheeltap.sources.lm_eval_tokens import Encoder, Pair

_SPAN: Final = 2
"""Largest difference of length within a batch of texts that are scored."""


class Answering(ABC):
    """What a model says to each request of some documents.

    Attributes:
        adaptive: Whether later calls of the model depend on its earlier answers.
        tokens_per_batch: Bound on the tokens of one call.
    """

    adaptive: bool = False
    tokens_per_batch: int = 1024

    @abstractmethod
    def answers(self, model: nn.Module, rows: Sequence[int]) -> list[list[Any] | None]:
        """``[document][request]`` in lm-eval's own form; ``None`` for a document where numbers were not finite."""

    @property
    @abstractmethod
    def longest(self) -> int:
        """Tokens of the longest text."""


@final
class Likelihoods(Answering):
    """Summed log-likelihood of each continuation, and whether each of its tokens is the likeliest.

    Args:
        pairs: ``[document][request]``: tokens of context and continuation, as they fit the model.
        cut: Whether a context was cut from the left.
    """

    def __init__(self, pairs: Sequence[Sequence[Pair]], *, cut: bool) -> None:
        self.pairs, self.cut = [list(several) for several in pairs], cut

    @classmethod
    def of(cls, encoder: Encoder, harness: Harness) -> "Likelihoods":
        """Of a task."""
        encoded = [encoder.pairs([one.args for one in harness.requests[row]]) for row in harness.rows]
        fitting = [[encoder.shortened(pair) for pair in pairs] for pairs in encoded]
        return cls(fitting, cut=fitting != encoded)

    @property
    def longest(self) -> int:
        """See ``Answering.longest``."""
        return max(len(context) + len(option) - 1 for pairs in self.pairs for context, option in pairs)

    def answers(self, model: nn.Module, rows: Sequence[int]) -> list[list[Any] | None]:
        """See ``Answering.answers``."""
        asked = {pair for row in rows for pair in self.pairs[row]}
        known = dict(_scored(model, asked, self.tokens_per_batch))
        found = [[known[pair] for pair in self.pairs[row]] for row in rows]
        return [several if all(map(_finite, several)) else None for several in found]


def _finite(answer: tuple[float, bool]) -> bool:
    return bool(torch.isfinite(torch.tensor(answer[0])))


def _scored(model: nn.Module, asked: Iterable[Pair], tokens: int) -> Iterator[tuple[Pair, tuple[float, bool]]]:
    """Each pair with its answer; texts that differ in their last token alone are read once."""
    wanted: dict[tuple[int, ...], list[Pair]] = {}
    for context, option in asked:
        wanted.setdefault(context + option[:-1], []).append((context, option))
    ordered = sorted(wanted, key=lambda text: (len(text), text))
    device = next(model.parameters()).device
    for batch in _batches(ordered, tokens, span=_SPAN):
        length = len(batch[-1])
        ids = torch.tensor([[*text, *text[-1:] * (length - len(text))] for text in batch], device=device)
        keep = length - min(len(context) - 1 for text in batch for context, _ in wanted[text])
        logits = _logits(model, ids, keep)
        for row, text in enumerate(batch):
            for context, option in wanted[text]:
                first = len(context) - 1 - (length - logits.shape[1])
                read = logits[row, first : first + len(option)].float().log_softmax(-1)
                right = torch.tensor(option, device=device)
                total = read.gather(1, right[:, None]).double().sum()
                yield (context, option), (float(total), bool((read.argmax(-1) == right).all()))


def _logits(model: nn.Module, ids: Tensor, keep: int) -> Tensor:
    """Logits of the last ``keep`` positions, or of all where the model cannot leave out the rest."""
    known = inspect.signature(model.forward).parameters
    if keep < ids.shape[1] and "logits_to_keep" in known:
        return as_scores(model(input_ids=ids, logits_to_keep=keep, use_cache=False))
    return as_scores(model(ids))


def _batches(
    texts: Sequence[tuple[int, ...]], tokens: int, *, span: int, room: int = 0
) -> Iterator[list[tuple[int, ...]]]:
    """Batches of texts, sorted by length, that differ by at most ``span`` and have at most ``tokens`` tokens."""
    batch: list[tuple[int, ...]] = []
    for text in texts:
        if batch and (len(text) > len(batch[0]) + span or (len(batch) + 1) * (len(text) + room) > tokens):
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch


@final
class Generated(Answering):
    """Text that a model generates greedily, up to a stop.

    Contexts of one length share a call, so that nothing is filled up and each is read as if alone.

    Source: lm_eval 0.4.13, ``models/huggingface.py`` (generate_until).
    """

    adaptive = True

    def __init__(self, encoder: Encoder, harness: Harness) -> None:
        utils = library("lm_eval.models.utils")
        raw: Any = encoder.raw
        eos: str | None = None if raw.eos_token_id is None else raw.decode(raw.eos_token_id)
        self._raw, self._how, self._until, self._contexts = raw, [], [], []
        self._pad = next((one for one in (raw.pad_token_id, raw.unk_token_id, raw.eos_token_id) if one is not None), 0)
        for row in harness.rows:
            text, given = harness.requests[row][0].args
            how: dict[str, Any] = dict(utils.normalize_gen_kwargs(given, 256))
            self._until.append(list(utils.handle_stop_sequences(how.pop("until", None), eos=eos)))
            how.pop("temperature", None)
            self._contexts.append(encoder.context(text, int(how["max_gen_toks"])))
            self._how.append(how)

    _contexts: list[tuple[int, ...]]
    _how: list[dict[str, Any]]
    _until: list[list[str]]

    @property
    def longest(self) -> int:
        """See ``Answering.longest``."""
        most = zip(self._contexts, self._how, strict=True)
        return max(len(context) + int(how["max_gen_toks"]) for context, how in most)

    def answers(self, model: nn.Module, rows: Sequence[int]) -> list[list[Any] | None]:
        """See ``Answering.answers``.

        Raises:
            ModelError: If the model cannot generate.
        """
        alike: dict[str, list[int]] = {}
        for row in rows:
            alike.setdefault(repr((self._how[row], self._until[row])), []).append(row)
        stated: dict[int, str | None] = {}
        for several in alike.values():
            how, until = self._how[several[0]], self._until[several[0]]
            texts = sorted({self._contexts[row] for row in several}, key=lambda text: (len(text), text))
            said: dict[tuple[int, ...], str | None] = {}
            for batch in _batches(texts, self.tokens_per_batch, span=0, room=int(how["max_gen_toks"])):
                said |= zip(batch, self._generated(model, batch, how, until), strict=True)
            stated |= {row: said[self._contexts[row]] for row in several}
        return [None if (text := stated[row]) is None else [text] for row in rows]

    def _generated(
        self, model: nn.Module, batch: list[tuple[int, ...]], how: dict[str, Any], until: list[str]
    ) -> list[str | None]:
        """What the model says after each text; ``None`` where its numbers are not finite."""
        generate: Any = getattr(model, "generate", None)
        if generate is None:
            raise ModelError(
                "The model cannot generate text.",
                expected="a language model of transformers, with a method generate",
                got=type(model).__name__,
                do="Choose a task of multiple choice.",
            )
        transformers = hf.library(needed_for="tasks of lm-eval")
        ids = torch.tensor(batch, device=next(model.parameters()).device)
        count, watch = ids.shape[1], _Watch(len(batch))
        stop = _Stop(self._raw, until, count)
        rest = {key: value for key, value in how.items() if key not in ("max_gen_toks", "max_length")}
        with hf.quiet(transformers):
            given: Tensor = generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), pad_token_id=self._pad, use_cache=True,
                max_length=how.get("max_length", count + how["max_gen_toks"]),
                stopping_criteria=transformers.StoppingCriteriaList([stop]),
                logits_processor=transformers.LogitsProcessorList([watch]), **rest,
            )  # fmt: skip
        texts = [self._cut(self._raw.decode(row[count:], skip_special_tokens=True), until) for row in given]
        return [None if lost else text for text, lost in zip(texts, watch.lost, strict=True)]

    @staticmethod
    def _cut(text: str, until: Iterable[str]) -> str:
        """The text before the first stop."""
        for stop in until:
            text = text.split(stop, maxsplit=1)[0] if stop else text
        return text


class _Stop:
    """Whether each text has come to a stop; those that have are not read further."""

    def __init__(self, raw: Any, until: Sequence[str], begin: int) -> None:
        self._raw, self._until, self._begin = raw, [stop for stop in until if stop], begin

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        texts: list[str] = self._raw.batch_decode(input_ids[:, self._begin :])
        return torch.tensor([any(stop in text for stop in self._until) for text in texts], device=input_ids.device)


class _Watch:
    """Notes whose scores were not finite, and leaves them as they are."""

    def __init__(self, texts: int) -> None:
        self.lost = [False] * texts

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        bad = torch.isnan(scores).any(-1).tolist()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        self.lost = [lost or bool(now) for lost, now in zip(self.lost, bad, strict=True)]  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        return scores
