"""A net's answers with the vectors of its sites exchanged, what dictionaries make of these vectors, twins of nets."""

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, cast, final
from weakref import WeakKeyDictionary

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.core import measure, seeds
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError, ModelError, WheeltapError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, as_scores
from wheeltap.core.typed import to_tensor
from wheeltap.engine.places import WIDEST, Change, Place, Places, changed, read
from wheeltap.engine.units import probe_run
from wheeltap.gauge.attention import orthogonal
from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionaryModel
from wheeltap.suites.dictionaries.stats import matching

_NEAR: Final = 1e-3
"""Difference of scores, in nats, up to which passes over last tokens give what whole passes give."""

_CACHES: Final = ("cache", "past_key_values")
"""What transformers call what a model computed of earlier tokens, and gives back: in 5.24 and later, and before."""

_BATCH: Final = 64
"""Contexts of one length whose keys and values are kept together."""


@final
@dataclass
class SiteBench:
    """A net on a task, with the vectors of its sites.

    Attributes:
        subject: The net.
        task: The examples, of which each has options.
        places: The sites.
        vectors: Of each site, ``[example, width]``, in single precision, where the net is.
        clean: Undisturbed scores ``[example, option]``.
        last: Passes over last tokens alone, where the net allows them.
        forwards: Passes over the whole task so far.
    """

    subject: Subject
    task: BaseTask
    places: tuple[Place, ...]
    vectors: tuple[Tensor, ...]
    clean: Tensor
    last: "LastTokens | None"
    forwards: float

    @classmethod
    def of(cls, net: nn.Module, sites: Sequence[str], task: BaseTask, *, name: str) -> "SiteBench":
        """Reads the vectors of sites.

        Raises:
            DataError: If the task has wanted outputs in place of options.
            ModelError: If a site does not hold one finite vector per example.
        """
        if task.targets.is_floating_point():
            raise DataError("The task has no options.", where=task.name, expected="examples with options to choose "
                            "from", got="wanted outputs")  # fmt: skip
        places, subject = tuple(Place(site, site) for site in sites), Subject(net, name=name)
        held, clean = read(subject, task, Places("named", places, tuple(range(len(places)))))
        if missing := [place.name for place in places if place not in held]:
            raise ModelError(
                "A site does not hold one vector per example.", where=f"{name}: {missing[0]}",
                expected=f"a module that is called once a pass and gives one row of at most {WIDEST:,} finite numbers "
                "for each example", got="none, or NaN or infinite numbers",
                do="Name the output of a block or of a layer.",
            )  # fmt: skip
        vectors = tuple(held[place].float().to(subject.device) for place in places)
        last = LastTokens.of(net, task, clean) if isinstance(task, ChoiceTask) else None
        return cls(subject, task, places, vectors, clean, last, 1.0 if last is None else 2.0)

    def scores(self, changes: Sequence[Change], rows: Tensor | None = None) -> Tensor:
        """Scores ``[row, option]`` of some examples (of all) with the vectors of the sites changed.

        Args:
            changes: Of each site, from its vectors ``[some, width]`` and the number ``[some]`` of each among ``rows``
                to what is put there.
            rows: Examples ``[row]``.
        """
        rows = torch.arange(len(self.task.targets)) if rows is None else rows
        share = len(rows) / len(self.task.targets)
        if self.last is not None:
            self.forwards += share / self.last.length
            return self.last.scores(list(zip(self.places, changes, strict=True)), rows)
        self.forwards += share
        found = self.clean[rows].clone()
        for some in _apart(self.task, rows):
            part = self.task.part(rows[some])
            numbered = [(place, partial(_numbered, one, some)) for place, one in zip(self.places, changes, strict=True)]
            with changed(self.subject, part, numbered):
                found[some] = part.scores(self.subject.model)
        return found

    def exchanged(self, vectors: Sequence[Tensor], rows: Tensor | None = None) -> Tensor:
        """The same with given vectors ``[row, width]`` in the sites."""

        def put(own: Tensor) -> Change:
            return lambda values, at: own[at.to(own.device)]

        return self.scores([put(one) for one in vectors], rows)

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


def bench_of(subject: Subject, task: BaseTask, sites: Sequence[int]) -> SiteBench:
    """The bench of sites of a ``DictionaryModel``; that of the last call where net, task and sites are the same.

    Raises:
        ModelError: If it is another model; as ``SiteBench.of``.
        DataError: As ``SiteBench.of``.
    """
    model: nn.Module = subject.model
    if not isinstance(model, DictionaryModel):
        raise ModelError("The model has no dictionaries.", where=subject.name, expected="a net with dictionaries of "
                         "its sites (recipe with-dictionary; wt.dictionaries)", got=type(model).__name__)  # fmt: skip
    names = tuple(model.sites[at] for at in sites)
    key = (weights_digest(model.net), task.digest, names)
    if model in _benches and _benches[model][0] == key:
        return replace(_benches[model][1], forwards=0.0)
    bench = SiteBench.of(model.net, names, task, name=subject.name)
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

    Attributes:
        net: The model.
        task: Whose options are one token each.
        length: Mean number of tokens of a context: how many times cheaper a pass is.
        cached: What the model calls what it keeps, of ``_CACHES``.
        contexts: Of one length each: examples ``[context]``, their last tokens ``[context, 1]``, and what is kept of
            the tokens before.
    """

    net: nn.Module
    task: ChoiceTask
    length: float
    cached: str
    contexts: list[tuple[Tensor, Tensor, Any]] = field(default_factory=list[tuple[Tensor, Tensor, Any]])

    @classmethod
    @torch.no_grad()
    def of(cls, net: nn.Module, task: ChoiceTask, clean: Tensor) -> "LastTokens | None":
        """Such passes, where the model keeps keys and values and they give the clean scores; else ``None``."""
        known = inspect.signature(net.forward).parameters.keys()
        cached = next((name for name in _CACHES if {name, "use_cache"} <= known), "")
        lengths = torch.tensor([len(context) for context in task.contexts])
        single = all(len(option) == 1 for options in task.choices for option in options)
        if not single or not cached or int(lengths.min()) < 2:
            return None
        found, device = cls(net, task, float(lengths.float().mean()), cached), next(net.parameters()).device
        for length in range(int(lengths.max()) + 1):
            for some in cast("tuple[Tensor, ...]", (lengths == length).nonzero()[:, 0].split(_BATCH)):  # pyright: ignore[reportUnknownMemberType]
                if len(some):
                    ids = torch.tensor([task.contexts[int(at)] for at in some], device=device)
                    cache: Any = getattr(net(ids[:, :-1], use_cache=True), cached, None)
                    if not callable(getattr(cache, "batch_select_indices", None)):
                        return None
                    found.contexts.append((some, ids[:, -1:], cache))
        again = found.scores([], torch.arange(len(lengths)))
        return found if bool(torch.isfinite(again).all()) and float((again - clean).abs().max()) <= _NEAR else None

    @torch.no_grad()
    def scores(self, changes: Sequence[tuple[Place, Change]], rows: Tensor) -> Tensor:
        """See ``SiteBench.scores``."""
        number = torch.full((len(self.task.contexts),), -1)
        number[rows] = torch.arange(len(rows))
        found = torch.zeros(len(rows), len(self.task.choices[0]))
        for examples, last, kept in self.contexts:
            some = (number[examples] >= 0).nonzero()[:, 0]
            if not len(some):
                continue
            at, cache = number[examples[some]], copy.deepcopy(kept)  # a pass adds to it
            cache.batch_select_indices(some.to(last.device))
            with ExitStack() as undo:
                for place, change in changes:
                    hook = partial(_last_changed, change, at)
                    undo.callback(self.net.get_submodule(place.module).register_forward_hook(hook).remove)
                logits = as_scores(self.net(last[some.to(last.device)], use_cache=True, **{self.cached: cache}))
            options = [[option[0] for option in self.task.choices[int(row)]] for row in examples[some]]
            found[at] = logits[:, -1].float().log_softmax(-1).cpu().gather(1, torch.tensor(options))
        return found


def _last_changed(change: Change, at: Tensor, module: nn.Module, args: Any, output: Any) -> Any:
    """What a block gives, with its one vector of each row changed."""
    whole = cast("tuple[Any, ...]", output) if isinstance(output, tuple) else (output,)
    values = cast("Tensor", whole[0])
    put = change(values[:, -1], at).to(values)[:, None]
    return (put, *whole[1:]) if isinstance(output, tuple) else put


# ---- reparametrized copies -------------------------------------------------------------------------------------------


def site_twin(bench: SiteBench, *, root: int) -> tuple[nn.Module, str, Tensor] | None:
    """A copy of the net that computes the same, with the vectors of its first site in another basis.

    Returns:
        The copy, ``rotation`` (of the residual stream) or ``permutation`` (of hidden units), and what vectors are
        multiplied by from the right, ``[width, width]``; ``None`` where no such copy is known.
    """
    model = bench.subject.model
    run, seed = probe_run(bench.task, model), seeds.derive(root, "dictionary twin")
    try:
        family = gauge.find(model, run)
    except WheeltapError:
        return None
    offers = () if isinstance(family, gauge.Refusal) else family.offers
    before = bench.vectors[0].double().cpu()
    for move, kind in (("rotate", "rotation"), ("permute", "permutation")):
        if move not in offers or isinstance(family, gauge.Refusal):
            continue
        net = gauge.twin(model, gauge.describe(family, move, seed=seed), run, family=family).eval()
        held, _ = read(Subject(net, name="twin"), bench.task, Places("named", bench.places[:1], (0,)))
        after = held.get(bench.places[0])
        if after is None or float((before - after).abs().max()) <= 1e-6 * float(before.abs().max()):
            continue
        if kind == "rotation":
            turn = orthogonal(seeds.generator(seed, "gauge", family.name, move), before.shape[1])
        else:  # each unit went to where its values are
            distance = torch.cdist(before.T.contiguous(), after.T.contiguous())
            turn = torch.eye(len(distance), dtype=torch.float64)[to_tensor(matching(-distance.numpy())[1])]
        if float((before @ turn - after).abs().max()) <= 1e-3 * float(before.abs().max()):
            return net, kind, turn
    return None


def rewritten(dictionary: Dictionary, turn: Tensor) -> Dictionary:
    """The same dictionary for vectors multiplied by an orthogonal matrix ``[width, width]`` from the right."""
    state = {name: value.detach().clone() for name, value in dictionary.state_dict().items()}
    by = turn.to(dictionary.b_dec)
    changes: Mapping[str, Callable[[Tensor], Tensor]] = {
        "W_enc": lambda held: by.T @ held, "W_dec": lambda held: held @ by, "b_dec": lambda held: held @ by,
        "W_skip": lambda held: by.T @ held @ by,
    }  # fmt: skip
    state |= {name: changes[name](state[name]) for name in changes.keys() & state}
    made = Dictionary(dictionary.settings, state).to(by.device)
    made.freeze()
    return made
