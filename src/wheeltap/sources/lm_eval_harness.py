"""One task of lm-eval: its documents and requests as ``simple_evaluate`` builds them, and its grades."""

import contextlib
import importlib
import json
import random
from collections.abc import Generator, Sequence
from types import SimpleNamespace
from typing import Any, Final, cast, final

import numpy as np
import torch

from wheeltap.core import canon
from wheeltap.core.errors import DataError, UnknownName, UsageError, WheeltapError
from wheeltap.sources import hf
from wheeltap.sources.lm_eval import PREFIX, LmEvalSpec

CHOSEN: Final = "multiple_choice"
GENERATED: Final = "generate_until"
KINDS: Final = (CHOSEN, "loglikelihood", GENERATED)
"""Kinds of tasks that can be audited."""

FIRST: Final = ("acc", "exact_match", "em", "mc1", "acc_norm")
"""Metrics by which documents are graded where none is asked for, the first that a task has."""

_SEEDS: Final = (0, 1234, 1234, 1234)
"""Of Python, numpy, torch and the few-shot examples: lm-eval's defaults, so that its documents are the same."""

_OFFLINE: Final = (
    ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
    ("datasets.config", "HF_HUB_OFFLINE"),
    ("evaluate.config", "HF_EVALUATE_OFFLINE"),
)
"""Settings that keep libraries from the network: what they read from the environment when they were imported."""

_RULES: Final = ("output_type", "process_results", "doc_to_target", "doc_to_choice", "metric_list", "filter_list")
"""Parts of a task's configuration that say how its answers are graded."""

Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""Tokens of a context, and of what goes on from it."""


def library(name: str) -> Any:
    """A module of the optional package lm-eval, untyped.

    Raises:
        MissingExtra: If it is not installed.
    """
    with hf.quiet():
        hf.library("lm_eval", needed_for="tasks of lm-eval", extra="eval")
        return importlib.import_module(name)


@contextlib.contextmanager
def _seeded() -> Generator[None]:
    """A block in which random numbers begin where ``simple_evaluate`` lets them begin; all as before afterwards."""
    before = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):  # pyright: ignore[reportUnknownMemberType]
            random.seed(_SEEDS[0])
            np.random.seed(_SEEDS[1])
            torch.manual_seed(_SEEDS[2])  # pyright: ignore[reportUnknownMemberType]
            yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])


@contextlib.contextmanager
def _offline() -> Generator[None]:
    """A block in which nothing is downloaded; all as before afterwards."""
    places: list[tuple[Any, str]] = [(library(module), name) for module, name in _OFFLINE]
    before = [getattr(module, name) for module, name in places]
    try:
        for module, name in places:
            setattr(module, name, True)
        yield
    finally:
        for (module, name), value in zip(places, before, strict=True):
            setattr(module, name, value)


@final
class Harness:
    """A task of lm-eval, loaded. It is sent to other processes by its name, and loaded again there.

    Attributes:
        task: lm-eval's own.
        kind: One of ``KINDS``.
        requests: ``[document][request]``: lm-eval's instances.
        metric: What documents are graded by.
        filter: Which filter makes answers of what the model said.

    Raises:
        MissingExtra: If lm-eval is not installed.
        UnknownName: If it has no such task, metric or filter.
        UsageError: If the task is of a kind that cannot be audited.
        DataError: If lm-eval cannot load it.
    """

    def __init__(self, asked: LmEvalSpec) -> None:
        self.asked, self.name = asked, asked.name
        self.task = _loaded(asked)
        self.kind = str(self.task.OUTPUT_TYPE)
        _require_supported(self.task, self.name)
        with _translated(self.name), _offline(), _seeded():
            _prepare(self.task, self.asked)
            documents = self.task.doc_iterator(rank=0, limit=self.asked.limit or None, world_size=1)
            self.documents: list[dict[str, Any]] = [doc for _, doc in documents]
        self.rows = range(len(self.documents))
        self.requests: list[list[Any]] = [[] for _ in self.documents]
        for instance in self.task.instances:
            self.requests[instance.doc_id].append(instance)
        for requests in self.requests:
            requests.sort(key=lambda instance: instance.idx)
        self.metric = _metric(self.task, self.asked.metric, self.name)
        self.filters: list[str] = [str(each.name) for each in self.task._filters]
        self.filter = self.asked.filter or self.filters[0]
        if self.filter not in self.filters:
            raise UnknownName(f"filter of {self.name}", self.filter, self.filters)
        if self.kind == GENERATED:
            _require_greedy(self.requests, self.name)

    def __reduce__(self) -> "tuple[type[Harness], tuple[LmEvalSpec]]":
        return Harness, (self.asked,)

    @property
    def plain(self) -> bool:
        """Whether documents are graded by lm-eval's own code for their kind, and no answers are filtered."""
        config: Any = getattr(self.task, "config", None)
        own = getattr(config, "process_results", None) is not None or getattr(config, "filter_list", None) is not None
        return not own and not getattr(self.task, "multiple_input", 0)

    def options(self, row: int) -> list[str]:
        """Of a document of multiple choice."""
        given: Any = self.task.doc_to_choice(self.documents[row])
        return [str(one) for one in given]

    def right_options(self, row: int) -> list[int]:
        """Numbers of the options of a document that are right; none where lm-eval would warn of a wrong label."""
        doc, options = self.documents[row], self.options(row)
        gold: Any = self.task.doc_to_text(doc) if self.task.multiple_input else self.task.doc_to_target(doc)
        several = cast("list[Any]", gold) if isinstance(gold, list) else [gold]
        found = [options.index(one) if isinstance(one, str) and one in options else one for one in several]
        return [one for one in found if isinstance(one, int) and 0 <= one < len(options)]

    def right(self, row: int) -> tuple[str, str]:
        """A prompt, and the right way to go on from it."""
        first: tuple[str, str] = self.requests[row][0].args
        if self.kind == CHOSEN:
            found = self.right_options(row) if hasattr(self.task, "doc_to_choice") else [0]
            return self.requests[row][found[0] if found else 0].args
        if self.kind != GENERATED:
            return first
        doc = self.documents[row]
        target: Any = self.task.doc_to_target(doc)
        if getattr(self.task.config, "doc_to_choice", None) is not None:
            target = [self.options(row)[int(target)]]
        gold = [str(one) for one in (cast("list[Any]", target) if isinstance(target, list) else [target])]
        return first[0], f"{self.task.config.target_delimiter}{gold[0] if gold else ''}" or " "

    def graded(self, rows: Sequence[int], answers: Sequence[Sequence[Any]]) -> list[float]:
        """The grade of each of these documents, by what the model said to each of its requests."""
        if not rows:
            return []
        with _translated(self.name):
            self.answer(rows, answers, [self.filter])
            return [float(self.results(row, self.filter)[self.metric]) for row in rows]

    def answer(self, rows: Sequence[int], answers: Sequence[Sequence[Any]], filters: Sequence[str]) -> None:
        """Gives the requests of documents these answers, as often as lm-eval would ask, and filters them."""
        held = list[Any]()
        for row, given in zip(rows, answers, strict=True):
            for instance, one in zip(self.requests[row], given, strict=True):
                instance.resps, instance.filtered_resps = [one] * (instance.repeats or 1), {}
                held.append(instance)
        for ensemble in self.task._filters:
            if ensemble.name in filters:
                ensemble.apply(held)

    def results(self, row: int, name: str) -> dict[str, Any]:
        """Every metric of a document, by the answers of a filter that it was given last."""
        given = [instance.filtered_resps[name] for instance in self.requests[row]]
        return self.task.process_results(self.documents[row], given)

    @property
    def digest(self) -> str:
        """Of every document, prompt and rule of grading."""
        asked = [[_plain(instance.args), instance.repeats] for requests in self.requests for instance in requests]
        config: dict[str, Any] = self.task.dump_config()
        rules = [_plain(config.get(name)) for name in _RULES]
        return canon.key("lm-eval", [self.metric, self.filter, asked, _plain(self.documents), rules])


def _plain(value: Any) -> str:
    return json.dumps(value, default=lambda other: type(other).__name__, sort_keys=True)


@contextlib.contextmanager
def _translated(name: str) -> Generator[None]:
    """A quiet block whose failures, of whatever kind lm-eval raises, become a ``DataError``."""
    try:
        with hf.quiet():
            yield
    except WheeltapError:
        raise
    except Exception as error:
        raise DataError(
            "lm-eval fails on this task.",
            where=f"{PREFIX}{name}",
            expected="a task that lm_eval runs on this machine, its data included",
            got=f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}",
            do="Nothing is downloaded: run it once by itself (lm_eval --tasks NAME --limit 4); then its data are here.",
        ) from error


def _loaded(asked: LmEvalSpec) -> Any:
    """lm-eval's task of this name."""
    manager = library("lm_eval.tasks").TaskManager
    with _translated(asked.name), _offline(), _seeded():
        # Its own tasks are many: only where a folder does not have it are they looked through.
        known = manager(include_path=asked.include, include_defaults=False) if asked.include else manager()
        own = list(known.all_tasks) if asked.include else []
        if asked.include and asked.name not in known.all_tasks:
            known = manager(include_path=asked.include)
        if asked.name not in known.all_tasks:
            raise UnknownName("task of lm-eval", asked.name, known.all_tasks, first=own)
        tasks: dict[str, Any] = known.load([asked.name])["tasks"]
    if len(tasks) != 1:
        raise UsageError(
            "This is a group of tasks.",
            where=f"{PREFIX}{asked.name}",
            expected="one task",
            got=f"{len(tasks)} tasks: {', '.join(list(tasks)[:6])}{', ...' if len(tasks) > 6 else ''}",
            do=f"Name one of them: --task {PREFIX}{next(iter(tasks), 'NAME')}",
        )
    return next(iter(tasks.values()))


def _prepare(task: Any, asked: LmEvalSpec) -> None:
    """Few-shot examples and requests, as ``simple_evaluate`` settles them.

    Source: lm_eval 0.4.13, ``evaluator.py``.
    """
    own = task.get_config("num_fewshot")
    if asked.fewshot is not None and own != 0:
        task.set_config(key="num_fewshot", value=asked.fewshot)
    elif own is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=_SEEDS[3])
    task.build_all_requests(limit=asked.limit or None, rank=0, world_size=1, fewshot_as_multiturn=True)


def _require_supported(task: Any, name: str) -> None:
    """Raises ``UsageError`` if a task is of a kind that cannot be audited; it says which."""
    kind = str(task.OUTPUT_TYPE)
    why = kind if kind not in KINDS else ""
    if getattr(task, "MULTIMODAL", False):
        why = "images or sound"
    if getattr(task, "UNSAFE_CODE", False):
        why = "running code that a model writes (unsafe_code)"
    if why:
        raise UsageError(
            "Tasks of this kind cannot be audited.",
            where=f"{PREFIX}{name}",
            expected=f"one of {', '.join(KINDS)}, of text alone",
            got=why,
            do="Record its answers with lm_eval --log_samples, and look at them with: wheeltap lens FILE",
        )


def _metric(task: Any, asked: str, name: str) -> str:
    """The metric asked for, or the first that says of each document how right it is."""
    means = [str(key) for key, one in task.aggregation().items() if getattr(one, "__name__", "") == "mean"]
    better: dict[str, Any] = task.higher_is_better()
    usable = [key for key in means if better.get(key, True)]
    known = [str(key) for key in task.aggregation()]
    if asked and asked not in known:
        raise UnknownName(f"metric of {name}", asked, known)
    chosen = asked or next((key for key in FIRST if key in usable), usable[0] if usable else "")
    if chosen not in usable:
        raise UsageError(
            "Documents cannot be graded by this metric.",
            where=f"{PREFIX}{name}",
            expected="a metric that is a mean over documents, where more is better"
            + (f": {', '.join(usable)}" if usable else ""),
            got=chosen or ", ".join(known) or "no metric",
            do=f"Name another one: --task {PREFIX}{name},metric=NAME" if usable else "Choose another task.",
        )
    return chosen


def _require_greedy(requests: Sequence[Sequence[Any]], name: str) -> None:
    """Raises ``UsageError`` if answers are drawn at random: a disturbance would be seen through other draws."""
    for instance in (one for several in requests for one in several):
        how: dict[str, Any] = instance.args[1]
        if how.get("do_sample") or (how.get("do_sample") is None and float(how.get("temperature") or 0.0) > 0.0):
            raise UsageError(
                "The answers to this task are drawn at random.",
                where=f"{PREFIX}{name}",
                expected="greedy decoding: do_sample false, or no temperature",
                got=", ".join(f"{key} {value}" for key, value in how.items() if key in ("do_sample", "temperature")),
                do="Set do_sample: false in its generation_kwargs, in a YAML file of your own. Answers that were "
                "sampled are read by: wheeltap lens FILE",
            )


# ---- text to tokens, exactly as lm-eval does it --------------------------------------------------------------------


@final
class Encoder:
    """What lm-eval's own model class for transformers does before it calls the model.

    Attributes:
        longest: Tokens that the model reads at most, as lm-eval sees it.

    Source: lm_eval 0.4.13, ``models/huggingface.py`` (tok_encode, tok_batch_encode) and ``api/model.py``
    (_encode_pair, loglikelihood), which is called here and not copied.
    """

    backend = "causal"

    def __init__(self, raw: Any, config: Any, *, where: str) -> None:
        self.raw, self._where = raw, where
        self._lm: Any = library("lm_eval.api.model").TemplateLM
        self.longest = int(library("lm_eval.models.utils").resolve_max_length(config, raw, default=2048))
        self._captured: list[Pair] = []

    @property
    def prefix_token_id(self) -> int:
        """What precedes text without a context: the start token, else the end token.

        Raises:
            DataError: If the tokenizer has neither.
        """
        found = next((one for one in (self.raw.bos_token_id, self.raw.eos_token_id) if one is not None), None)
        if found is None:
            raise DataError(
                "The tokenizer has no token to begin with.",
                where=self._where,
                expected="a start token or an end token, as lm-eval needs one",
                got="neither",
                do="Set tokenizer.eos_token as in training, and save the tokenizer again.",
            )
        return int(found)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of a text; without a second start token where it begins with one."""
        how = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        if add_special_tokens is None and string.startswith(self.raw.decode(self.prefix_token_id)):
            how["add_special_tokens"] = False
        return list(self.raw.encode(string, **how))

    def pairs(self, texts: Sequence[tuple[str, str]]) -> list[Pair]:
        """Tokens of each context and continuation.

        Raises:
            DataError: If one has no tokens, or a continuation is longer than the model can read.
        """
        asked = [SimpleNamespace(args=args) for args in texts]
        self._captured = []
        self._lm.loglikelihood(self, asked, disable_tqdm=True)
        for at, (context, option) in enumerate(self._captured):
            if not context or not 0 < len(option) <= self.longest:
                raise DataError(
                    "A text cannot be scored.",
                    where=f"{self._where}: request {at}",
                    expected=f"a context, and a continuation of 1 to {self.longest} tokens",
                    got=f"{len(context)} and {len(option)} tokens: {texts[at][1][:60]!r}",
                    do="Leave this document out, or audit a model with a longer context.",
                )
        return self._captured

    def shortened(self, pair: Pair) -> Pair:
        """The same, its context cut from the left to what the model can read: the last token is never an input."""
        context, option = pair
        return context[max(len(context) + len(option) - self.longest - 1, 0) :], option

    def separately(self, context: str, answer: str) -> Pair:
        """Tokens of a prompt, cut from the left to what the model can read, and of an answer to it, each by itself."""
        option: list[int] = self.raw(answer, add_special_tokens=False).input_ids
        return self.context(context, len(option)), tuple(option)

    def context(self, text: str, room: int) -> tuple[int, ...]:
        """Tokens that a model goes on from, cut from the left so that ``room`` more can follow.

        Raises:
            DataError: If nothing is left of it.
        """
        begun = self.raw.bos_token is not None and text.startswith(self.raw.bos_token)
        ids: list[int] = self.raw(text, **({"add_special_tokens": False} if begun else {})).input_ids
        most = self.longest - room
        if most < 1 or not ids:
            raise DataError(
                "A text leaves no room for an answer." if ids else "A text has no tokens.",
                where=self._where,
                expected=f"fewer than {self.longest} tokens to generate (max_gen_toks), after a text with tokens",
                got=f"{room} to generate, after {len(ids)} tokens",
                do="Lower max_gen_toks in the task's generation_kwargs, or audit a model with a longer context.",
            )
        return tuple(ids[-most:])

    # What ``TemplateLM.loglikelihood`` calls.

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        first, rest = self._lm._encode_pair(self, context, continuation)
        if [*first, *rest] != (whole := self.tok_encode(context + continuation)):
            raise DataError(
                "The tokenizer merges the end of a prompt with the start of an option.",
                where=f"{self._where}: {context[-20:]!r} {continuation[:20]!r}",
                expected=f"tokens of the prompt, then of the option: {self.raw.convert_ids_to_tokens(whole[-6:])}",
                got=f"what lm-eval would score: {self.raw.convert_ids_to_tokens([*first, *rest][-6:])}",
                do="End the prompt otherwise, or set target_delimiter in the task's YAML file to a space.",
            )
        return first, rest

    def _loglikelihood_tokens(self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any) -> list[Any]:
        self._captured = [(tuple(context), tuple(option)) for _, context, option in requests]
        return []
