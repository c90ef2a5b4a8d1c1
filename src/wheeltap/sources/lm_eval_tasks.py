"""Tasks of lm-eval, with its own documents, prompts, tokens and grades.

Multiple choice graded by ``acc`` becomes a ``ChoiceTask`` wherever that scores the same; everything else a
``GradedTask``, which asks lm-eval for each document's grade. Answers are log-likelihoods of continuations, or text that
the model generates.
"""

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, final

import torch
from torch import Tensor, nn

from wheeltap.core import canon
from wheeltap.core.choices import SPAN, ChoiceTask, Tokenizer, batches, filled_up, last_logits
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.generated import AnswerTask
from wheeltap.core.measure import Measure
from wheeltap.core.measures.grades import ExactMatch, Grade
from wheeltap.core.plain import plain
from wheeltap.core.task import BaseTask
from wheeltap.sources import hf
from wheeltap.sources.lm_eval import PREFIX, LmEvalSpec
from wheeltap.sources.lm_eval_harness import CHOSEN, GENERATED, Encoder, Harness, Pair, library

CHOICE: Final = "acc"
"""The metric of multiple choice that a ``ChoiceTask`` is scored by."""

_VOTES: Final = ("label_count", "votes")
"""Columns of a document that hold how many people chose each option."""

COLUMN: Final = "wheeltap"
"""Where our columns are in a row: ``{NAME: number}``."""


class HarnessAnswers(ABC):
    """What a model says to each request of some documents.

    Attributes:
        adaptive: Whether later calls of the model depend on its earlier answers.
        tokens_per_batch: Bound on the tokens of one call.
        longest: Tokens of the longest text.
    """

    adaptive: bool = False
    tokens_per_batch: int = 1024
    longest: int

    @abstractmethod
    def answers(self, model: nn.Module, rows: Sequence[int]) -> list[list[Any] | None]:
        """``[document][request]`` in lm-eval's own form; ``None`` for a document where numbers were not finite."""


@final
class Likelihoods(HarnessAnswers):
    """Summed log-likelihood of each continuation, and whether each of its tokens is the likeliest.

    Attributes:
        pairs: ``[document][request]``: tokens of context and continuation, as they fit the model.
        cut: Whether a context was cut from the left.
    """

    def __init__(self, encoder: Encoder, harness: Harness) -> None:
        encoded = [encoder.pairs([one.args for one in harness.requests[row]]) for row in harness.rows]
        self.pairs = [[encoder.shortened(pair) for pair in pairs] for pairs in encoded]
        self.cut = self.pairs != encoded
        self.longest = max(len(context) + len(option) - 1 for pairs in self.pairs for context, option in pairs)

    def answers(self, model: nn.Module, rows: Sequence[int]) -> list[list[Any] | None]:
        """See ``HarnessAnswers.answers``."""
        asked = {pair for row in rows for pair in self.pairs[row]}
        known = dict(_scored(model, asked, self.tokens_per_batch))
        found = [[known[pair] for pair in self.pairs[row]] for row in rows]
        return [several if all(math.isfinite(total) for total, _ in several) else None for several in found]


def _scored(model: nn.Module, asked: Iterable[Pair], tokens: int) -> Iterator[tuple[Pair, tuple[float, bool]]]:
    """Each pair with its answer; texts that differ in their last token alone are read once."""
    wanted: dict[tuple[int, ...], list[Pair]] = {}
    for context, option in asked:
        wanted.setdefault(context + option[:-1], []).append((context, option))
    ordered = sorted(wanted, key=lambda text: (len(text), text))
    for batch in batches(ordered, tokens, span=SPAN):
        ids = filled_up(batch, model)
        logits = last_logits(model, ids, first=min(len(context) - 1 for text in batch for context, _ in wanted[text]))
        for row, text in enumerate(batch):
            for context, option in wanted[text]:
                first = len(context) - 1 - (ids.shape[1] - logits.shape[1])
                read = logits[row, first : first + len(option)].float().log_softmax(-1)
                right = torch.tensor(option, device=ids.device)
                total = read.gather(1, right[:, None]).double().sum()
                yield (context, option), (float(total), bool((read.argmax(-1) == right).all()))


@final
class Generations(HarnessAnswers):
    """Text that a model generates greedily, up to a stop.

    Contexts of one length share a call, so that nothing is filled up and each is read as if alone.

    Source: lm_eval 0.4.13, ``models/huggingface.py`` (generate_until).
    """

    adaptive = True

    def __init__(self, encoder: Encoder, harness: Harness) -> None:
        utils = library("lm_eval.models.utils")
        raw: Any = encoder.raw
        eos: str | None = None if raw.eos_token_id is None else raw.decode(raw.eos_token_id)
        self._raw = raw
        self._how: list[dict[str, Any]] = []
        self._until: list[list[str]] = []
        self._contexts: list[tuple[int, ...]] = []
        self._pad = next((one for one in (raw.pad_token_id, raw.unk_token_id, raw.eos_token_id) if one is not None), 0)
        for row in harness.rows:
            text, given = harness.requests[row][0].args
            how: dict[str, Any] = dict(utils.normalize_gen_kwargs(given, 256))
            self._until.append(list(utils.handle_stop_sequences(how.pop("until", None), eos=eos)))
            how.pop("temperature", None)
            self._contexts.append(encoder.context(text, int(how["max_gen_toks"])))
            self._how.append(how)
        most = zip(self._contexts, self._how, strict=True)
        self.longest = max(len(context) + int(how["max_gen_toks"]) for context, how in most)

    def answers(self, model: nn.Module, rows: Sequence[int]) -> list[list[Any] | None]:
        """See ``HarnessAnswers.answers``.

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
            for batch in batches(texts, self.tokens_per_batch, room=int(how["max_gen_toks"])):
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
        count, lost = ids.shape[1], torch.zeros(len(batch), dtype=torch.bool)

        def stopped(input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
            """Whether each text has come to a stop; those that have are not read further."""
            texts: list[str] = self._raw.batch_decode(input_ids[:, count:])
            return torch.tensor([any(stop and stop in text for stop in until) for text in texts], device=ids.device)

        def watched(input_ids: Tensor, scores: Tensor) -> Tensor:
            """The scores as they are; notes whose were not finite."""
            lost.logical_or_(torch.isnan(scores).any(-1).cpu())
            return scores

        rest = {key: value for key, value in how.items() if key not in ("max_gen_toks", "max_length")}
        with hf.quiet(transformers):
            given: Tensor = generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), pad_token_id=self._pad, use_cache=True,
                max_length=how.get("max_length", count + how["max_gen_toks"]),
                stopping_criteria=transformers.StoppingCriteriaList([stopped]),
                logits_processor=transformers.LogitsProcessorList([watched]), **rest,
            )  # fmt: skip
        texts = [self._cut(self._raw.decode(row[count:], skip_special_tokens=True), until) for row in given]
        return [None if gone else text for text, gone in zip(texts, map(bool, lost), strict=True)]

    @staticmethod
    def _cut(text: str, until: Iterable[str]) -> str:
        """The text before the first stop."""
        for stop in until:
            text = text.split(stop, maxsplit=1)[0] if stop else text
        return text


# ---- documents that lm-eval grades ----------------------------------------------------------------------------------


@final
class Acc(Grade):
    """Whether the likeliest option is a right one; of a single continuation, whether it is the greedy one."""

    name: str = "acc"
    bounded: bool = True


@final
class AccNorm(Grade):
    """Whether the option of the largest log-likelihood per character is a right one."""

    name: str = "acc_norm"
    bounded: bool = True


_RIGHT: dict[str, type[Grade]] = {one.name: one for one in (Acc, AccNorm, ExactMatch)}


def grade_named(harness: Harness) -> Grade:
    """The measure of a task's metric; a plain grade where a task's own code may give any number."""
    config: Any = getattr(harness.task, "config", None)
    own = config is not None and getattr(config, "process_results", None) is None  # lm-eval's code, not the task's
    kind = _RIGHT.get(harness.metric, Grade) if own else Grade
    shares = [len(set(harness.right_options(row))) / len(harness.options(row)) for row in harness.rows] if (
        harness.kind == CHOSEN and hasattr(harness.task, "doc_to_choice")
    ) else [0.0]  # fmt: skip
    return kind(by_chance=sum(shares) / len(shares))


@final
class GradedTask(AnswerTask):
    """Documents of lm-eval, scored by the grade that it gives each: one column, which is to be 1.

    A model may be ``taught`` the right continuations.
    """

    def __init__(self, harness: Harness, answering: HarnessAnswers, taught: ChoiceTask, grade: Grade) -> None:
        self.name, self.measure = plain(harness.name), grade
        self._harness, self._answering, self._taught = harness, answering, taught
        self._rows = list(harness.rows)
        self._digest = harness.digest
        self.targets = torch.ones(len(self._rows), 1)

    @property
    def adaptive(self) -> bool:
        """See ``BaseTask.adaptive``."""
        return self._answering.adaptive

    def scored_by(self, measure: Measure | str) -> "GradedTask":
        """Lm-eval grades it.

        Raises:
            UsageError: Always.
        """
        raise UsageError(
            "A task of lm-eval is graded by its own metric.", where=self.name, expected=self.measure.name,
            got=str(measure), do="Name a metric of the task: --task lm_eval:NAME,metric=acc_norm.",
        )  # fmt: skip

    @property
    def digest(self) -> str:
        """Digest of documents, prompts, tokens and rule of grading."""
        parts = [self._digest, self._taught.digest, list(self._rows), *self.measure.identity]
        return canon.key("graded by lm-eval", [*parts, *self.annotations.digests])

    def halve_batch(self) -> bool:
        """See ``Batched.halve_batch``."""
        longest = self._answering.longest
        halved = self._answering.tokens_per_batch > longest
        if halved:
            self._answering.tokens_per_batch = max(self._answering.tokens_per_batch // 2, longest)
        return self._taught.halve_batch() or halved

    def save_batch(self) -> Callable[[], None]:
        """See ``Batched.save_batch``."""
        size, restore_taught = self._answering.tokens_per_batch, self._taught.save_batch()

        def restore() -> None:
            self._answering.tokens_per_batch = size
            restore_taught()

        return restore

    def forward(self, model: nn.Module) -> Tensor:
        """Grades ``[document, 1]``; not a number where the model's were not."""
        answers = self._answering.answers(model, self._rows)
        there = [at for at, given in enumerate(answers) if given is not None]
        stated = self._harness.graded(
            [self._rows[at] for at in there], [given for given in answers if given is not None]
        )
        grades = torch.full((len(self._rows), 1), torch.nan)
        grades[there, 0] = torch.tensor(stated)
        return grades


def answered(harness: Harness, answering: HarnessAnswers, model: nn.Module, rows: Sequence[int]) -> list[list[Any]]:
    """What a model says to each request of documents.

    Raises:
        ModelError: If its numbers are not finite.
    """
    found = [(row, given) for row, given in zip(rows, answering.answers(model, rows), strict=True)]
    lost = [row for row, given in found if given is None]
    if lost:
        raise ModelError(
            "The model's outputs are not finite.",
            where=f"{harness.name}: document {lost[0]}",
            expected="finite scores",
            got=f"{len(lost)} documents without",
        )
    return [given for _, given in found if given is not None]


# ---- the tasks, and answers as lm-eval logs them ---------------------------------------------------------------------


def load_task(asked: LmEvalSpec, model: nn.Module | None, tokenizer: Tokenizer | None) -> BaseTask:
    """A task of lm-eval, for a model that reads ``tokenizer``'s tokens; raises what ``opened`` does."""
    harness, answering, taught = opened(asked, model, tokenizer)
    choices = _choices(harness, answering)
    return GradedTask(harness, answering, taught, grade_named(harness)) if choices is None else choices


def opened(
    asked: LmEvalSpec, model: nn.Module | None, tokenizer: Tokenizer | None
) -> tuple[Harness, HarnessAnswers, ChoiceTask]:
    """A task of lm-eval, how a model answers its requests, and what teaches the right answers.

    Raises:
        UsageError: If the model reads no text, or the task cannot be audited.
        MissingExtra: If lm-eval is not installed.
        DataError: If lm-eval cannot load it.
    """
    if not isinstance(tokenizer, hf.HfTokenizer):
        raise UsageError(
            "Tasks of lm-eval are for language models.",
            where=f"{PREFIX}{asked.name}",
            expected="hf:DIR, gguf:FILE or smollm2",
            got="a model without a tokenizer",
            do="Give examples of another kind with --data.",
        )
    harness = Harness(asked)
    encoder = Encoder(tokenizer.raw, getattr(model, "config", None), where=harness.name)
    texts = [harness.right(row) for row in harness.rows]
    if harness.kind == GENERATED:
        answering: HarnessAnswers = Generations(encoder, harness)
        right, more = [encoder.separately(*text) for text in texts], list[tuple[int, ...]]()
    else:
        right = [encoder.shortened(pair) for pair in encoder.pairs(texts)]
        answering = Likelihoods(encoder, harness)
        more = [context + option[:-1] for pairs in answering.pairs for context, option in pairs]
    taught = ChoiceTask(
        [context for context, _ in right], [[option, option] for _, option in right], [0] * len(right),
        name=harness.name, more=[row for row in more if row],
    )  # fmt: skip
    return harness, answering, taught


def _choices(harness: Harness, answering: HarnessAnswers) -> ChoiceTask | None:
    """The items as a ``ChoiceTask``; ``None`` where that would score otherwise than lm-eval does.

    So where options are of different numbers or contexts, several are right, or lm-eval cuts a context from the left.
    """
    fits = harness.kind == CHOSEN and harness.metric == CHOICE and harness.plain
    if not isinstance(answering, Likelihoods) or not fits:
        return None
    rights = [harness.right_options(row) for row in harness.rows]
    counts = [len(harness.options(row)) for row in harness.rows]
    if harness.task.multiple_target or {*map(len, rights)} != {1}:
        return None
    if len(set(counts)) > 1 or counts[0] < 2 or answering.cut:
        return None
    items = [pairs[: counts[0]] for pairs in answering.pairs]
    if any(len({context for context, _ in pairs}) > 1 for pairs in items):
        return None
    task = ChoiceTask(
        [pairs[0][0] for pairs in items], [[option for _, option in pairs] for pairs in items],
        [right[0] for right in rights], name=harness.name,
    )  # fmt: skip
    votes = [_votes(doc, counts[0]) for doc in harness.documents]
    return task.with_votes(votes) if all(votes) else task


def _votes(doc: dict[str, Any], options: int) -> list[int]:
    """How many people chose each option, where the document says so; else nothing."""
    for name in _VOTES:
        given: Any = doc.get(name)
        if isinstance(given, list) and len(given) == options and all(type(one) is int for one in given):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
            return given if any(given) else []  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return []


def rows(
    asked: LmEvalSpec, model: nn.Module, tokenizer: Tokenizer | None, columns: Mapping[str, Sequence[float]]
) -> Iterator[str]:
    """Lines of ``samples_TASK.jsonl``: one for each document under each filter; raises what ``opened`` does.

    ``columns`` ``{NAME: [document]}`` are what else is known of each document.
    """
    harness, answering, _ = opened(asked, model, tokenizer)
    several = list(harness.rows)
    with hf.quiet():
        harness.answer(several, answered(harness, answering, model, several), harness.filters)
        for name in (harness.filter, *(other for other in harness.filters if other != harness.filter)):
            for row in several:
                own = {key: values[row] for key, values in columns.items()}
                yield _line(harness, row, name, own)


def _line(harness: Harness, row: int, name: str, own: Mapping[str, float]) -> str:
    """One row, as lm-eval writes it.

    Source: lm_eval 0.4.13, ``evaluator.py`` (evaluate) and ``loggers/evaluation_tracker.py`` (save_results_samples).
    """
    utils = library("lm_eval.utils")
    task, doc, requests = harness.task, harness.documents[row], harness.requests[row]
    metrics: dict[str, Any] = harness.results(row, name)
    target, known = task.doc_to_target(doc), utils.handle_non_serializable
    hashed = json.dumps(requests[0].doc, indent=2, default=known, ensure_ascii=False)
    arguments = {f"gen_args_{i}": {f"arg_{j}": one for j, one in enumerate(request.args)}
                 for i, request in enumerate(requests)}  # fmt: skip
    line = {
        "doc_id": requests[0].doc_id, "doc": doc, "target": str(target), "arguments": arguments,
        "resps": utils.sanitize_list([request.resps for request in requests]),
        "filtered_resps": utils.sanitize_list([request.filtered_resps[name] for request in requests]),
        "filter": name, "metrics": list(metrics), "doc_hash": utils.hash_string(hashed),
        "prompt_hash": utils.hash_string(requests[0].arguments[0]), "target_hash": utils.hash_string(str(target)),
        **metrics, COLUMN: dict(own),
    }  # fmt: skip
    return json.dumps(line, default=known, ensure_ascii=False)
