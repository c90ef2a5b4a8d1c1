"""A net's answers with the vectors of its sites exchanged, what dictionaries make of these vectors, twins of nets."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.core import measure, seeds
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError, ModelError, WheeltapError
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask, as_scores
from wheeltap.core.typed import to_tensor
from wheeltap.engine.places import WIDEST, Change, Place, Places, changed, read
from wheeltap.engine.units import probe_run
from wheeltap.gauge.attention import orthogonal
from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionaryModel
from wheeltap.suites.dictionaries.stats import matching

ROWS: Final = 512
"""Vectors that are encoded at once."""

_NEAR: Final = 1e-3
"""Difference of scores, in nats, up to which passes over last tokens give what whole passes give."""

_CACHES: Final = ("cache", "past_key_values")
"""What transformers call what a model computed of earlier tokens, and gives back: in 5.24 and later, and before."""

_BATCH: Final = 32
"""Contexts of one length whose keys and values are kept together."""


def model_of(subject: Subject) -> DictionaryModel:
    """The net with dictionaries that a subject is.

    Raises:
        ModelError: If it is another model.
    """
    model: nn.Module = subject.model
    if not isinstance(model, DictionaryModel):
        raise ModelError(
            "The model has no dictionaries.",
            where=subject.name,
            expected="a net with dictionaries of its sites (recipe with-dictionary; wt.dictionaries)",
            got=type(model).__name__,
        )
    return model


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
        forwards: Passes over the whole task so far.
    """

    subject: Subject
    task: BaseTask
    places: tuple[Place, ...]
    vectors: tuple[Tensor, ...]
    clean: Tensor
    forwards: float = 1.0
    _last: "LastTokens | None" = None

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
        places = tuple(Place(site, site) for site in sites)
        subject = Subject(net, name=name)
        held, scores = read(subject, task, Places("named", places, tuple(range(len(places)))))
        if missing := [place.name for place in places if place not in held]:
            raise ModelError(
                "A site does not hold one vector per example.",
                where=f"{name}: {missing[0]}",
                expected=f"a module that is called once a pass and gives one row of at most {WIDEST:,} finite numbers "
                "for each example",
                got="none, or NaN or infinite numbers",
                do="Name the output of a block or of a layer.",
            )
        vectors = tuple(held[place].float().to(subject.device) for place in places)
        bench = cls(subject, task, places, vectors, scores)
        if isinstance(task, ChoiceTask):
            bench._last = LastTokens.of(net, task, scores)
            bench.forwards += 1.0
        return bench

    def scores(self, changes: Sequence[Change | None], rows: Tensor | None = None) -> Tensor:
        """Scores ``[row, option]`` of some examples (of all) with the vectors of the sites changed.

        Args:
            changes: Of each site, from its vectors ``[some, width]`` and the number ``[some]`` of each among ``rows``
                to what is put there.
            rows: Examples ``[row]``.
        """
        rows = torch.arange(len(self.task.targets)) if rows is None else rows
        asked = [(place, change) for place, change in zip(self.places, changes, strict=True) if change is not None]
        if self._last is not None:
            self.forwards += len(rows) / len(self.task.targets) / self._last.length
            return self._last.scores(asked, rows)
        found = self.clean[rows].clone()
        for some in _apart(self.task, rows):
            part = self.task.part(rows[some])
            exchanged = [(place, partial(_numbered, change, some)) for place, change in asked]
            with changed(self.subject, part, exchanged):
                found[some] = part.scores(self.subject.model)
            self.forwards += len(some) / len(self.task.targets)
        return found

    def exchanged(self, vectors: Sequence[Tensor | None], rows: Tensor | None = None) -> Tensor:
        """The same with given vectors ``[row, width]`` in the sites; ``None`` leaves a site as it is."""
        return self.scores([None if one is None else partial(_given, one) for one in vectors], rows)

    def margins(self, scores: Tensor) -> Tensor:
        """Score of the right option less the best other one, ``[example]``, of scores of all examples."""
        return measure.margin(scores, self.task.targets.cpu(), scores)


def _given(vectors: Tensor, values: Tensor, at: Tensor) -> Tensor:
    return vectors[at.to(vectors.device)].to(values)


def _numbered(change: Change, some: Tensor, values: Tensor, at: Tensor) -> Tensor:
    return change(values, some[at]).to(values)


def _apart(task: BaseTask, rows: Tensor) -> Iterator[Tensor]:
    """Numbers of rows, in parts in which no context is another one's start, or the same."""
    if not isinstance(task, ChoiceTask):
        yield torch.arange(len(rows))
        return
    left = list(range(len(rows)))
    while left:
        contexts = {at: task.contexts[int(rows[at])] for at in left}
        begun = {context[:end] for context in contexts.values() for end in range(1, len(context))}
        first = {context: at for at, context in reversed(contexts.items()) if context not in begun}
        yield torch.tensor(sorted(first.values()))
        left = sorted(set(left) - set(first.values()))


@dataclass
class _Contexts:
    """Contexts of one length, with keys and values of all tokens but the last.

    Attributes:
        rows: Examples ``[context]``.
        last: Their last tokens ``[context, 1]``.
        cache: Keys and values.
    """

    rows: Tensor
    last: Tensor
    cache: Any


@final
@dataclass
class LastTokens:
    """Passes of a language model over the last token of each context alone: an edit there changes nothing before it.

    Attributes:
        length: Mean number of tokens of a context: how many times cheaper a pass is.
        cached: What the model calls what it keeps, of ``_CACHES``.
    """

    net: nn.Module
    task: ChoiceTask
    length: float
    cached: str
    _contexts: list[_Contexts] = field(default_factory=list[_Contexts])

    @classmethod
    def of(cls, net: nn.Module, task: ChoiceTask, clean: Tensor) -> "LastTokens | None":
        """Such passes, where the model keeps keys and values and they give the clean scores; else ``None``."""
        known = inspect.signature(net.forward).parameters.keys()
        cached = next((name for name in _CACHES if {name, "use_cache"} <= known), "")
        lengths = [len(context) for context in task.contexts]
        single = all(len(option) == 1 for options in task.choices for option in options)
        if not single or min(lengths) < 2 or not cached:
            return None
        found = cls(net, task, sum(lengths) / len(lengths), cached)
        device = next(net.parameters()).device
        with torch.no_grad():
            for length in sorted(set(lengths)):
                rows = torch.tensor([at for at, own in enumerate(lengths) if own == length])
                for some in cast("tuple[Tensor, ...]", rows.split(_BATCH)):  # pyright: ignore[reportUnknownMemberType]
                    ids = torch.tensor([task.contexts[int(at)] for at in some], device=device)
                    cache: Any = getattr(net(ids[:, :-1], use_cache=True), cached, None)
                    if not callable(getattr(cache, "crop", None)):
                        return None
                    found._contexts.append(_Contexts(some, ids[:, -1:], cache))
        again = found.scores([], torch.arange(len(lengths)))
        return found if bool(torch.isfinite(again).all()) and float((again - clean).abs().max()) <= _NEAR else None

    @torch.no_grad()
    def scores(self, changes: Sequence[tuple[Place, Change]], rows: Tensor) -> Tensor:
        """See ``SiteBench.scores``."""
        number = torch.full((len(self.task.contexts),), -1)
        number[rows] = torch.arange(len(rows))
        found = torch.zeros(len(rows), len(self.task.choices[0]))
        for part in self._contexts:
            kept = (number[part.rows] >= 0).nonzero()[:, 0]
            if not len(kept):
                continue
            at = number[part.rows[kept]]
            with ExitStack() as undo:
                for place, change in changes:
                    hook = partial(_last_changed, change, kept, at)
                    undo.callback(self.net.get_submodule(place.module).register_forward_hook(hook).remove)
                logits = as_scores(self.net(part.last, use_cache=True, **{self.cached: part.cache}))
            part.cache.crop(-1)
            logprobs = logits[kept.to(logits.device), -1].float().log_softmax(-1).cpu()
            options = [[option[0] for option in self.task.choices[int(row)]] for row in part.rows[kept]]
            found[at] = logprobs.gather(1, torch.tensor(options))
        return found


def _last_changed(change: Change, kept: Tensor, at: Tensor, module: nn.Module, args: Any, output: Any) -> Any:
    """What a block gives, with the last vectors of some rows changed."""
    whole = cast("tuple[Any, ...]", output) if isinstance(output, tuple) else (output,)
    values = cast("Tensor", whole[0]).clone()
    kept = kept.to(values.device)
    values[kept, -1] = change(values[kept, -1], at).to(values)
    return (values, *whole[1:]) if isinstance(output, tuple) else values


# ---- what a dictionary makes of vectors ------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Coder:
    """A dictionary, and the labels of the examples where it needs them.

    Attributes:
        dictionary: Of one site.
        labels: Values ``[example, attribute]`` of the attributes of a supervised dictionary.
    """

    dictionary: Dictionary
    labels: Tensor | None

    @classmethod
    def of(cls, dictionary: Dictionary, task: BaseTask) -> "Coder":
        """A dictionary for the examples of a task.

        Raises:
            DataError: If the task does not know an attribute of a supervised dictionary.
        """
        names, known = dictionary.settings.attributes, task.annotations.factors
        if missing := [name for name in names if name not in known]:
            raise DataError(
                "The task does not know an attribute of the dictionary.",
                where=task.name,
                expected=f"the factors {', '.join(names)}",
                got=f"no {missing[0]}",
                do="Give them: task.with_factors({...}).",
            )
        return cls(dictionary, torch.stack([known[name] for name in names], 1) if names else None)

    @property
    def supervised(self) -> bool:
        """Whether features are values of attributes."""
        return self.labels is not None

    @torch.no_grad()
    def codes(self, vectors: Tensor, rows: Tensor | None = None) -> Tensor:
        """Codes ``[row, feature]`` of the vectors ``[row, width]`` of these examples (of all)."""
        if self.labels is not None:
            return self.dictionary.codes(self.labels if rows is None else self.labels[rows])
        return torch.cat([self.dictionary.encode(part) for part in _parts(vectors)])

    @torch.no_grad()
    def decoded(self, vectors: Tensor, codes: Tensor) -> Tensor:
        """Reconstructions ``[row, width]`` from codes of these vectors."""
        pairs = zip(_parts(codes), _parts(vectors), strict=True)
        return torch.cat([self.dictionary.decode(part, own) for part, own in pairs])

    def reconstructed(self, vectors: Tensor, rows: Tensor | None = None) -> Tensor:
        """What the dictionary makes of the vectors of these examples (of all)."""
        return self.decoded(vectors, self.codes(vectors, rows))

    def fires(self, codes: Tensor) -> NDArray[np.bool_]:
        """Where features are active ``[row, feature]``: above 0, of signed codes too."""
        return (codes > 0).cpu().numpy()


def _parts(rows: Tensor) -> Sequence[Tensor]:
    return cast("tuple[Tensor, ...]", rows.split(ROWS))  # pyright: ignore[reportUnknownMemberType]


# ---- reparametrized copies -------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class SiteTwin:
    """A copy of a net that computes the same, with the vectors of a site in another basis.

    Attributes:
        net: The copy.
        kind: ``rotation`` or ``permutation``.
        turn: What the site's vectors are multiplied by from the right, ``[width, width]``.
    """

    net: nn.Module
    kind: str
    turn: Tensor


def site_twin(bench: SiteBench, site: int, *, root: int) -> SiteTwin | None:
    """The residual stream turned, where the site is a point of it; else its units in another order; else ``None``."""
    model = bench.subject.model
    run = probe_run(bench.task, model)
    try:
        family = gauge.find(model, run)
    except WheeltapError:
        return None
    if isinstance(family, gauge.Refusal):
        return None
    before = bench.vectors[site].double().cpu()
    seed = seeds.derive(root, "dictionary twin")
    for name, kind in (("rotate", "rotation"), ("permute", "permutation")):
        if name not in family.offers:
            continue
        net = gauge.twin(model, gauge.describe(family, name, seed=seed), run, family=family).eval()
        places = Places("named", (bench.places[site],), (0,))
        held, _ = read(Subject(net, name="twin"), bench.task, places)
        after = held.get(bench.places[site])
        turn = None if after is None else _turn(before, after, kind, seed, family.name)
        if turn is not None:
            return SiteTwin(net, kind, turn)
    return None


def _turn(before: Tensor, after: Tensor, kind: str, seed: int, family: str) -> Tensor | None:
    """The change of basis between the vectors ``[example, width]`` of a net and its twin; ``None`` if there is none."""
    width = before.shape[1]
    if kind == "rotation":
        turn = orthogonal(seeds.generator(seed, "gauge", family, "rotate"), width)
    else:  # each unit went to where its values are
        distance = torch.cdist(before.T.contiguous(), after.T.contiguous())
        turn = torch.eye(width, dtype=torch.float64)[to_tensor(matching(-distance.numpy())[1])]
    moved, scale = before @ turn, before.abs().max()
    same = bool((moved - after).abs().max() <= 1e-3 * scale)
    still = bool((before - after).abs().max() <= 1e-6 * scale)
    return turn if same and not still else None


def rewritten(dictionary: Dictionary, turn: Tensor) -> Dictionary:
    """The same dictionary for vectors multiplied by an orthogonal matrix ``[width, width]`` from the right."""
    state = {name: value.detach().clone() for name, value in dictionary.state_dict().items()}
    by = turn.to(dictionary.b_dec)
    changes: Mapping[str, Callable[[Tensor], Tensor]] = {
        "W_enc": lambda held: by.T @ held,
        "W_dec": lambda held: held @ by,
        "b_dec": lambda held: held @ by,
        "W_skip": lambda held: by.T @ held @ by,
    }
    for name in changes.keys() & state:
        state[name] = changes[name](state[name])
    made = Dictionary(dictionary.settings, state).to(by.device)
    made.freeze()
    return made
