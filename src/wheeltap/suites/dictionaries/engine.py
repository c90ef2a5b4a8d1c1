"""A net's answers with the vectors of a site exchanged, what dictionaries make of these vectors, twins of nets."""

import copy
import inspect
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Self, cast, final
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.core import measure, seeds
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError, ModelError, WheeltapError
from wheeltap.core.fingerprint import tensor_parts
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, as_scores
from wheeltap.core.typed import to_tensor
from wheeltap.engine.fast.folded import computing
from wheeltap.engine.places import WIDEST, Change, Place, Places, changed, read
from wheeltap.engine.units import probe_run
from wheeltap.gauge.attention import orthogonal
from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionaryModel
from wheeltap.suites.dictionaries.stats import matching

_NEAR: Final = 1e-3  # difference of scores, in nats, up to which passes over last tokens give what whole passes give
_CACHES: Final = ("cache", "past_key_values")
"""What transformers call what a model computed of earlier tokens, and gives back: in 5.24 and later, and before."""

_BATCH: Final = 64  # contexts of one length whose keys and values are kept together


@final
@dataclass
class SiteBench:
    """A net on a task, with the vectors of a site."""

    subject: Subject
    task: BaseTask  # the examples, of which each has options
    place: Place
    vectors: Tensor  # of the site, [example, width], in single precision, where the net is
    clean: Tensor  # undisturbed scores [example, option]
    last: "LastTokens | None"  # passes over last tokens alone, where the net allows them
    forwards: float  # passes over the whole task so far
    # Scores and answers that were asked for before, whatever the dictionary.
    known: dict[bytes, Tensor] = field(default_factory=dict[bytes, Tensor])

    @classmethod
    def of(cls, net: nn.Module, site: str, task: BaseTask, *, name: str, proven: bool = False) -> "SiteBench":
        """Reads the vectors of a site, a module path, of a net in eval mode.

        Where it is ``proven``, passes over last tokens gave the scores of whole ones in a net of the same modules.

        Raises:
            DataError: If the task has wanted outputs in place of options.
            ModelError: If the site does not hold one finite vector per example.
        """
        if task.targets.is_floating_point():
            raise DataError("The task has no options.", where=task.name, expected="examples with options to choose "
                            "from", got="wanted outputs")  # fmt: skip
        place, subject = Place(site, site), Subject(net, name=name)
        choices = task if isinstance(task, ChoiceTask) else None
        last = LastTokens.of(net, choices, place) if choices and proven else None
        if last is not None and last.sound:
            return cls(subject, task, place, last.vectors.float(), last.clean, last, 1.0)
        known, clean = read(subject, task, Places("named", (place,), (0,)))
        if place not in known:
            raise ModelError(
                "A site does not hold one vector per example.", where=f"{name}: {site}",
                expected=f"a module that is called once a pass and gives one row of at most {WIDEST:,} finite numbers "
                "for each example", got="none, or NaN or infinite numbers",
                do="Name the output of a block or of a layer.",
            )  # fmt: skip
        last = LastTokens.of(net, choices, place) if choices and not proven else None
        if last is not None and last.sound and float((last.clean - clean).abs().max()) <= _NEAR:
            return cls(subject, task, place, last.vectors.float(), clean, last, 2.0)
        vectors = known[place].float().to(subject.device)
        return cls(subject, task, place, vectors, clean, None, 2.0 if choices else 1.0)

    def beside(self, net: nn.Module, what: str) -> "SiteBench":
        """The bench of another net of the same modules; raises as ``of``."""
        name = f"{self.subject.name}, {what}"
        return SiteBench.of(net, self.place.name, self.task, name=name, proven=self.last is not None)

    def scores(self, change: Change, rows: Tensor | None = None) -> Tensor:
        """Scores ``[row, option]`` of some examples (of all) with the vectors of the site changed.

        Args:
            change: From vectors ``[some, width]`` and the number ``[some]`` of each among ``rows`` to what is put
                there.
            rows: Examples ``[row]``; one may stand several times.
        """
        rows = torch.arange(len(self.task.targets)) if rows is None else rows
        share = len(rows) / len(self.task.targets)
        if self.last is not None:
            self.forwards += share * self.last.cost
            return self.last.scores(change, rows)
        self.forwards += share
        found = self.clean[rows].clone()
        for some in _apart(self.task, rows):
            part = self.task.part(rows[some])
            with changed(self.subject, part, [(self.place, partial(_numbered, change, some))]):
                found[some] = part.scores(self.subject.model)
        return found

    def exchanged(self, vectors: Tensor, rows: Tensor | None = None) -> Tensor:
        """The same with given vectors ``[row, width]`` in the site."""
        return self.scores(lambda values, at: vectors[at.to(vectors.device)], rows)

    def averaged(self) -> Tensor:
        """Scores ``[example, option]`` with the mean vector in the site."""
        if b"" not in self.known:
            self.known[b""] = self.exchanged(self.vectors.mean(0).expand_as(self.vectors))
        return self.known[b""]

    def patched(self, rows: NDArray[np.int64], others: NDArray[np.int64]) -> Tensor:
        """Answers ``[pair]`` of examples with other ones' vectors in the site, both ``[pair]``."""
        key = rows.tobytes() + others.tobytes()
        if key not in self.known:
            put = self.vectors[to_tensor(others).to(self.vectors.device)]
            self.known[key] = self.exchanged(put, to_tensor(rows)).argmax(1)
        return self.known[key]

    def codes(self, dictionary: Dictionary, vectors: Tensor, rows: Tensor | None = None) -> Tensor:
        """Codes ``[row, feature]`` of the vectors ``[row, width]`` of these examples (of all).

        Raises:
            DataError: If the dictionary is supervised, and the task does not know one of its attributes.
        """
        names, known = dictionary.settings.attributes, self.task.annotations.factors
        if not names:
            return dictionary.encode(vectors)
        if missing := [name for name in names if name not in known]:
            raise DataError("The task does not know an attribute of the dictionary.", where=self.task.name,
                            expected=f"the factors {', '.join(names)}", got=f"no {missing[0]}",
                            do="Give them: task.with_factors({...}).")  # fmt: skip
        labels = torch.stack([known[name] for name in names], 1)
        return dictionary.codes(labels if rows is None else labels[rows])

    def margins(self, scores: Tensor) -> NDArray[Any]:
        """Score of the right option less the best other one, ``[example]``, of scores of all examples."""
        return measure.margin(scores, self.task.targets.cpu(), scores).numpy()


_benches: WeakKeyDictionary[nn.Module, tuple[tuple[object, ...], SiteBench]] = WeakKeyDictionary()


def bench_of(subject: Subject, task: BaseTask) -> SiteBench:
    """The bench of a ``DictionaryModel``; that of the last call where net and task are the same.

    Raises:
        ModelError: If it is another model; as ``SiteBench.of``.
        DataError: As ``SiteBench.of``.
    """
    model: nn.Module = subject.model
    if not isinstance(model, DictionaryModel):
        raise ModelError("The model has no dictionaries.", where=subject.name, expected="a net with dictionaries of "
                         "a site (recipe with-dictionary; wt.dictionaries)", got=type(model).__name__)  # fmt: skip
    held = [*model.net.parameters(), *model.net.buffers()]
    key = (tuple(zlib.crc32(tensor_parts(one)[2]) for one in held), task.digest)
    if model in _benches and _benches[model][0] == key:
        return replace(_benches[model][1], forwards=0.0)
    bench = SiteBench.of(model.net, model.site, task, name=subject.name)
    _benches[model] = key, bench
    return replace(bench)


def _numbered(change: Change, some: Tensor, values: Tensor, at: Tensor) -> Tensor:
    return change(values, some[at]).to(values)


def _apart(task: BaseTask, rows: Tensor) -> Iterator[Tensor]:
    """Numbers of rows, in parts in which no context is another one's start, or the same."""
    left = list(range(len(rows)))
    while left and isinstance(task, ChoiceTask):
        contexts = {at: task.contexts[int(rows[at])] for at in left}
        begun = {context[:end] for context in contexts.values() for end in range(1, len(context))}
        first = {context: at for at, context in reversed(contexts.items()) if context not in begun}
        yield torch.tensor(sorted(first.values()))
        left = sorted(set(left) - set(first.values()))
    if left:
        yield torch.arange(len(rows))


@final
@dataclass
class LastTokens:
    """Passes of a language model over the last token of each context alone: an edit there changes nothing before it.

    Nor does it change the blocks before the site, which are not run again: the vectors that they give are known.
    """

    net: nn.Module
    place: Place
    cached: str  # what the model calls what it keeps, of _CACHES
    options: Tensor  # tokens of the task's options, [example, option]
    order: Tensor  # batch and row within it of each example, [example, 2]
    skipped: tuple[str, ...]  # blocks up to the site, where it is one and only the next one reads what it gives
    cost: float  # of a pass over all examples, in passes over whole contexts through all blocks
    # Of contexts of one length: last tokens [context, 1], and what is kept of those before.
    batches: list[tuple[Tensor, Any]]
    vectors: Tensor  # of the site, [example, width]; empty until the first pass
    clean: Tensor  # scores [example, option]
    sound: bool = False  # whether scores and vectors are finite

    @classmethod
    @torch.no_grad()
    def of(cls, net: nn.Module, task: ChoiceTask, place: Place, *, short: bool = True) -> Self | None:
        """Such passes, ``short`` ones without blocks before a site; ``None`` where a model keeps no keys and values."""
        known = inspect.signature(net.forward).parameters.keys()
        cached = next((name for name in _CACHES if {name, "use_cache"} <= known), "")
        lengths = torch.tensor([len(context) for context in task.contexts])
        single = all(len(option) == 1 for options in task.choices for option in options)
        if not single or not cached or int(lengths.min()) < 2:
            return None
        options = torch.tensor(task.choices)[:, :, 0]
        # Blocks up to a site that is one of a list, and how many that has.
        stack, _, number = place.module.rpartition(".")
        blocks = net.get_submodule(stack) if short and number.isdecimal() else None
        listed = isinstance(blocks, nn.ModuleList)
        skipped = tuple(f"{stack}.{at}" for at in range(int(number) + 1)) if listed else ()
        cost = (1.0 - len(skipped) / (len(blocks) if listed else 1)) / float(lengths.float().mean())
        order = torch.zeros(len(lengths), 2, dtype=torch.long)
        found = cls(net, place, cached, options, order, skipped, cost, [], torch.zeros(0), torch.zeros(options.shape))
        few, device = {"logits_to_keep": 1} if "logits_to_keep" in known else {}, next(net.parameters()).device
        for length in range(int(lengths.max()) + 1):
            for some in cast("tuple[Tensor, ...]", (lengths == length).nonzero()[:, 0].split(_BATCH)):  # pyright: ignore[reportUnknownMemberType]
                if len(some):
                    ids = torch.tensor([task.contexts[int(at)] for at in some], device=device)
                    cache: Any = getattr(net(ids[:, :-1], use_cache=True, **few), cached, None)
                    if not callable(getattr(cache, "batch_select_indices", None)):
                        return None
                    batch = torch.full_like(some, len(found.batches))
                    found.order[some] = torch.stack([batch, torch.arange(len(some))], 1)
                    found.batches.append((ids[:, -1:], cache))
                    if not found._read(some):
                        return None
        found.sound = all(bool(torch.isfinite(one).all()) for one in (found.clean, found.vectors))
        if found.sound and skipped:
            try:
                again = found.scores(lambda values, at: values, torch.arange(len(lengths)))
            except Exception:  # whatever a model's own code raises where later blocks read more than the last one gives
                again = torch.full_like(found.clean, torch.inf)
            if not float((again - found.clean).abs().max()) <= _NEAR:
                return cls.of(net, task, place, short=False)
        return found

    def _read(self, some: Tensor) -> bool:
        """Takes scores and vectors of the last batch, these examples, from a pass through all blocks; if it has any."""
        taken = list[Tensor]()

        def take(values: Tensor, at: Tensor) -> Tensor:
            taken.append(values)
            return values

        self.clean[some] = self._pass(some, take, ())
        if not taken:
            return False
        if not len(self.vectors):
            self.vectors = taken[0].new_zeros(len(self.order), taken[0].shape[1])
        self.vectors[some] = taken[-1]
        # Of blocks that are not run again only the length is asked.
        for layer in getattr(self.batches[-1][1], "layers", [])[: len(self.skipped)]:
            for name in ("keys", "values"):
                if isinstance(held := getattr(layer, name, None), Tensor) and held.ndim == 4:
                    setattr(layer, name, held[:, :1, :, :1].clone())
        return True

    @torch.no_grad()
    def scores(self, change: Change, rows: Tensor) -> Tensor:
        """See ``SiteBench.scores``."""
        found = torch.zeros(len(rows), self.options.shape[1])
        for batch in range(len(self.batches)):
            own = (self.order[rows, 0] == batch).nonzero()[:, 0]
            for at in cast("tuple[Tensor, ...]", own.split(_BATCH)) if len(own) else ():  # pyright: ignore[reportUnknownMemberType]
                found[at] = self._pass(rows[at], partial(_numbered, change, at), self.skipped)
        return found

    def _pass(self, examples: Tensor, change: Change, skipped: Sequence[str]) -> Tensor:
        """Scores of examples of one batch."""
        last, kept = self.batches[int(self.order[examples[0], 0])]
        some, cache = self.order[examples, 1].to(last.device), copy.deepcopy(kept)  # a pass adds to it
        cache.batch_select_indices(some)
        with ExitStack() as undo:
            for path in skipped[:-1]:
                undo.enter_context(computing(self.net.get_submodule(path), _passed))
            if skipped:
                given = self.vectors[examples.to(last.device), None]
                undo.enter_context(computing(self.net.get_submodule(skipped[-1]), lambda *_, **__: given))
            hook = partial(_last_changed, change, torch.arange(len(examples)))
            undo.callback(self.net.get_submodule(self.place.module).register_forward_hook(hook).remove)
            logits = as_scores(self.net(last[some], use_cache=True, **{self.cached: cache}))
        return logits[:, -1].float().log_softmax(-1).cpu().gather(1, self.options[examples])


def _passed(first: Any, *_: Any, **__: Any) -> Any:
    return first


def _last_changed(change: Change, at: Tensor, module: nn.Module, args: Any, output: Any) -> Any:
    """What a block gives, with its one vector of each row changed."""
    whole = cast("tuple[Any, ...]", output) if isinstance(output, tuple) else (output,)
    values = cast("Tensor", whole[0])
    put = change(values[:, -1], at).to(values)[:, None]
    return (put, *whole[1:]) if isinstance(output, tuple) else put


# ---- reparametrized copies -------------------------------------------------------------------------------------------


def site_twin(bench: SiteBench, *, root: int) -> tuple[SiteBench, str, Tensor] | None:
    """A copy of the net that computes the same, with the vectors of the site in another basis.

    Returns:
        The copy on the task, ``rotation`` (of the residual stream) or ``permutation`` (of hidden units), and what
        vectors are multiplied by from the right, ``[width, width]``; ``None`` where no such copy is known.
    """
    model = bench.subject.model
    run, seed = probe_run(bench.task, model), seeds.derive(root, "dictionary twin")
    try:
        family = gauge.find(model, run)
    except WheeltapError:
        return None
    offers = () if isinstance(family, gauge.Refusal) else family.offers
    before = bench.vectors.double().cpu()
    for move, kind in (("rotate", "rotation"), ("permute", "permutation")):
        if move not in offers or isinstance(family, gauge.Refusal):
            continue
        net = gauge.twin(model, gauge.describe(family, move, seed=seed), run, family=family).eval()
        other = bench.beside(net, "gauge twin")
        after = other.vectors.double().cpu()
        if float((before - after).abs().max()) <= 1e-6 * float(before.abs().max()):
            continue
        if kind == "rotation":
            turn = orthogonal(seeds.generator(seed, "gauge", family.name, move), before.shape[1])
        else:  # each unit went to where its values are
            distance = torch.cdist(before.T.contiguous(), after.T.contiguous())
            turn = torch.eye(len(distance), dtype=torch.float64)[to_tensor(matching(-distance.numpy())[1])]
        if float((before @ turn - after).abs().max()) <= 1e-3 * float(before.abs().max()):
            return other, kind, turn
    return None


def rewritten(dictionary: Dictionary, turn: Tensor) -> Dictionary:
    """The same dictionary for vectors multiplied by an orthogonal matrix ``[width, width]`` from the right."""
    state = {name: value.detach().clone() for name, value in dictionary.state_dict().items()}
    by = turn.to(dictionary.b_dec)
    changes: Mapping[str, Callable[[Tensor], Tensor]] = {
        "W_enc": lambda held: by.T @ held, "W_dec": lambda held: held @ by, "b_dec": lambda held: held @ by,
    }  # fmt: skip
    state |= {name: changes[name](state[name]) for name in changes.keys() & state}
    made = Dictionary(dictionary.settings, state).to(by.device)
    made.freeze()
    return made
