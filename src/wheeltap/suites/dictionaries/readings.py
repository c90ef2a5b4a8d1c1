"""Readings of dictionaries: what they reconstruct, control and say, and what survives a disturbance.

Source: Makelov, Lange and Nanda 2024, arXiv:2405.08366, sections 4 (approximation, control, interpretability) and 5
(occlusion, splitting).
"""

import gc
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap import perturb
from wheeltap.core import seeds
from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.settings import LARGE
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_tensor
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.needs.tuning import TuningCopy
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.perturb.tune import FineTuneSettings
from wheeltap.suites.dictionaries import specs, stats
from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionaryModel
from wheeltap.suites.dictionaries.engine import SiteBench, bench_of, rewritten, site_twin

Arrays = dict[str, NDArray[Any]]
Flags = NDArray[np.bool_]
Index = NDArray[np.int64]


class EntryReading(Reading):
    """What all have in common: the entry that they are of, the site, and the attributes.

    They raise as ``opened`` and, where they ask for attributes, as ``attributes_of``.
    """

    def require(self, subject: Subject, task: BaseTask) -> None:
        """See ``Reading.require``: the entries."""
        if isinstance(subject.model, DictionaryModel):
            own, count = self.settings, len(subject.model.dictionaries)
            asked = max(own.numbers) if isinstance(own, specs.DictionaryDisturbedSettings) else own.entry
            if asked >= count:
                raise UsageError("The model has no such entry.", where=f"{subject.name}: setting entry",
                                 expected=f"0 to {count - 1}", got=str(asked))  # fmt: skip

    def opened(self, subject: Subject, task: BaseTask, *entries: int) -> tuple[SiteBench, list[Dictionary], Arrays]:
        """A bench, the dictionary of the settings (or of each entry), and the kinds of all.

        Raises:
            ModelError: If the model has no dictionaries, or the site holds no vector per example.
            DataError: If the task has no options, or does not know an attribute of a supervised dictionary.
        """
        bench, model = bench_of(subject, task), subject.model
        assert isinstance(model, DictionaryModel)  # bench_of refuses others
        kinds = np.array([specs.KINDS.index(one.kind) for one in model.dictionaries])
        asked = entries or (self.settings.entry,)
        return bench, [model.dictionaries[entry] for entry in asked], {"kinds": kinds}


def attributes_of(task: BaseTask) -> dict[str, Index]:
    """Labels ``[example]`` of all attributes that a task knows.

    Raises:
        DataError: If it knows none.
    """
    if not task.annotations.factors:
        raise DataError("The task knows no attributes of its examples.", where=task.name, expected="factors",
                        got="none", do="Give them: task.with_factors({...}).")  # fmt: skip
    return {name: values.cpu().numpy().astype(np.int64) for name, values in task.annotations.factors.items()}


def status(values: Index, *, measured: bool) -> NDArray[Any]:
    """How measuring an attribute ended, of ``STATUSES``."""
    ended = "one value" if len(np.unique(values)) < 2 else "measured" if measured else "too few examples"
    return np.array(specs.STATUSES.index(ended))


@final
class DictionaryReconstruction(EntryReading):
    """Puts the mean vector, the reconstruction, and the mean with what is left of it in place of each vector."""

    spec = specs.DICTIONARY_RECONSTRUCTION

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; three passes over the task."""
        bench, (dictionary,), found = self.opened(subject, task)
        vectors = bench.vectors
        scores = [bench.clean, bench.averaged()]
        for replacement in specs.REPLACEMENTS[2:]:
            scores.append(bench.scores(partial(_replaced, bench, dictionary, replacement)))
        codes = bench.codes(dictionary, vectors)
        active = codes != 0
        found |= {
            "margin": np.stack([bench.margins(one) for one in scores]),
            "error": _squares(vectors - dictionary.decode(codes, vectors)),
            "spread": _squares(vectors - vectors.mean(0)),
            "active": active.sum(1).cpu().numpy(),
            "dead": np.array(int((~active.any(0)).sum())),
            "features": np.array(active.shape[1]),
        }  # fmt: skip
        return Readings(found, bench.forwards)


def _replaced(bench: SiteBench, dictionary: Dictionary, replacement: str, values: Tensor, at: Tensor) -> Tensor:
    """What stands in the place of the site's vectors."""
    values = values.float()
    made = dictionary.decode(bench.codes(dictionary, values, at), values)
    return made if replacement == "reconstructed" else bench.vectors.mean(0) + (values - made)


def _squares(vectors: Tensor) -> NDArray[Any]:
    return vectors.double().square().sum(1).cpu().numpy()


Pairs = tuple[Index, Index]
"""Examples, and for each another one, both ``[pair]``."""


def counterfactuals(task: BaseTask, name: str, *, root: int, most: int) -> Pairs:
    """At most so many examples, and for each another one that differs from it in the attribute of this name alone.

    All other factors are the same, and the groups too where the task has such pairs. The same whatever a model is.
    """
    factors = {factor: values.cpu().numpy() for factor, values in sorted(task.annotations.factors.items())}
    labels = factors.pop(name)
    groups = [] if task.annotations.groups is None else [task.annotations.groups.cpu().numpy()]
    for held in ([*factors.values(), *groups], list(factors.values())):
        same = np.unique(np.stack([*held, np.zeros_like(labels)], 1), axis=0, return_inverse=True)[1].reshape(-1)
        rng, pairs = seeds.generator(root, "dictionary pairs", name), list[tuple[int, int]]()
        members = {int(one): np.flatnonzero(same == one) for one in np.unique(same)}
        for source in rng.permutation(len(labels)):
            some = members[int(same[source])]
            some = some[labels[some] != labels[source]]
            if len(some) and len(pairs) < most:
                pairs.append((int(source), int(rng.choice(some))))
        if len(pairs) > 1:
            break
    found = np.array(pairs if len(pairs) > 1 else [], dtype=np.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


def edits(
    bench: SiteBench, dictionary: Dictionary, asked: Sequence[tuple[int, int, str]], budget: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vectors of examples edited towards those of others, ``[edit, width]``; magnitudes ``[edit]``.

    Of a supervised dictionary the features of the attribute are exchanged, whatever the budget.

    Args:
        bench: The net.
        dictionary: The dictionary.
        asked: Two examples that differ in an attribute alone, and its name.
        budget: Features that an edit may change.
    """
    vectors, made, sizes = bench.vectors, list[NDArray[np.float64]](), list[float]()
    stretch = dictionary.normalized(vectors)[1].expand(len(vectors), 1)
    codes, lengths, atoms, rows = (
        one.double().cpu().numpy() for one in (bench.codes(dictionary, vectors), stretch, dictionary.W_dec, vectors)
    )
    names = dictionary.settings.attributes
    attribute = dictionary.attribute.cpu().numpy() if names else np.zeros(0)
    for source, target, name in asked:
        active = [np.flatnonzero(codes[row]) for row in (source, target)]
        removed, added = (codes[row, at, None] * atoms[at] * lengths[row]
                          for row, at in zip((source, target), active, strict=True))  # fmt: skip
        changes = np.concatenate([-removed, added])
        shares = np.concatenate([stats.weights(removed), stats.weights(added)])
        if names:
            own = names.index(name) if name in names else -1
            some = np.flatnonzero(attribute[np.concatenate(active)] == own)
        else:
            some = stats.edit(changes, rows[target] - rows[source], budget)
        made.append(rows[source] + changes[some].sum(0))
        sizes.append(float(shares[some].sum()))
    return np.stack(made), np.array(sizes)


def edited(bench: SiteBench, dictionary: Dictionary, pairs: Mapping[str, Pairs], budget: int) -> dict[str, Arrays]:
    """What the reading ``dictionary-control`` gives of each attribute that has ``pairs``; one pass over all of them."""
    asked = [(int(row), int(other), name) for name, own in pairs.items() for row, other in zip(*own, strict=True)]
    if not asked:
        return {}
    rows, others, names = (np.array(one) for one in zip(*asked, strict=True))
    made, sizes = edits(bench, dictionary, asked, budget)
    put = to_tensor(made).to(bench.vectors)
    patched = bench.patched(rows, others)
    whole: Arrays = {
        "rows": rows, "unedited": (bench.clean[to_tensor(rows)].argmax(1) == patched).numpy(),
        "agree": (bench.exchanged(put, to_tensor(rows)).argmax(1) == patched).numpy(),
        "magnitude": sizes,
    }  # fmt: skip
    return {name: {key: one[names == name] for key, one in whole.items()} for name in dict.fromkeys(names.tolist())}


@final
class DictionaryControl(EntryReading):
    """Changes a few features so that a vector comes near that of an example which differs in one attribute alone."""

    spec = specs.DICTIONARY_CONTROL

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; two passes over the pairs."""
        labels = attributes_of(task)
        bench, (dictionary,), found = self.opened(subject, task)
        pairs = {name: counterfactuals(task, name, root=root, most=self.settings.pairs) for name in labels}
        made = edited(bench, dictionary, pairs, self.settings.budget)
        for name, values in labels.items():
            arrays = {**made.get(name, {}), "status": status(values, measured=name in made)}
            found |= {f"{name}|{key}": array for key, array in arrays.items()}
        return Readings(found, bench.forwards)


@final
@dataclass(frozen=True)
class FeatureHalves:
    """Live features on the half of the examples that all is chosen on, and on the one that is scored on."""

    features: Index  # numbers of the live ones
    chosen: Flags  # [example, live] of the first half
    scored: Flags  # of the second
    first: Index  # examples of the first half
    second: Index  # of the second

    @classmethod
    def of(cls, codes: Tensor, task: BaseTask, root: int) -> "FeatureHalves":
        """Of codes ``[example, feature]``, active above 0; the halves are the same whatever a model is."""
        first, second = (half.numpy() for half in task.halves(seeds.generator(root, "dictionary halves")))
        fires = (codes > 0).cpu().numpy()
        live = np.flatnonzero(fires.any(0) & ~fires.all(0))
        return cls(live, fires[np.ix_(first, live)], fires[np.ix_(second, live)], first, second)

    def numbered(self, values: Index) -> tuple[int, Index, Index] | None:
        """How many values there are, and their numbers in both halves; ``None`` where one is missing in a half."""
        known, number = np.unique(values, return_inverse=True)
        halves = number[self.first], number[self.second]
        missing = len(known) < 2 or any(len(np.unique(half)) < len(known) for half in halves)
        return None if missing else (len(known), *halves)


@final
class DictionaryFeatures(EntryReading):
    """Features beside sets of values of attributes, chosen on one half of the examples and scored on the other."""

    spec = specs.DICTIONARY_FEATURES

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; of the entry under test five passes over the task."""
        labels = attributes_of(task)
        bench, (dictionary,), found = self.opened(subject, task)
        vectors = bench.vectors
        codes = bench.codes(dictionary, vectors)
        half, made = FeatureHalves.of(codes, task, root), dictionary.decode(codes, vectors)
        above = np.zeros(len(half.features), dtype=np.bool_)
        for name, values in labels.items():
            arrays, own = _attribute(half, values)
            above |= own
            if arrays:
                arrays |= _sizes(vectors, made, values)
            arrays["status"] = status(values, measured=bool(arrays))
            found |= {f"{name}|{key}": array for key, array in arrays.items()}
        rest = seeds.generator(root, self.name, "others", seed).permutation(half.features[~above])
        found |= {"features": half.features, "rows": half.second, "interpretable": np.array(above.sum())}
        if self.settings.entry == 0:  # with these features kept alone and removed, and as many others
            scores = [bench.clean, bench.averaged()]
            for some in (half.features[above], rest[: int(above.sum())]):
                mask = torch.zeros(codes.shape[1]).index_fill(0, to_tensor(some.astype(np.int64)), 1.0).to(codes)
                parts = (dictionary.decode(codes * one, vectors) for one in (mask, 1.0 - mask))
                scores += [bench.exchanged(one) for one in parts]
            found["margin"] = np.stack([bench.margins(one) for one in scores])
        return Readings(found, bench.forwards)


def _attribute(half: FeatureHalves, values: Index) -> tuple[Arrays, Flags]:
    """What the reading gives of one attribute, but for sizes; and which live features are interpretable by it."""
    numbered = half.numbered(values)
    if numbered is None:
        return {}, np.zeros(len(half.features), dtype=np.bool_)
    count, first, second = numbered
    if len(half.features):
        best = np.array([stats.f1(half.chosen.T, first == value).argmax() for value in range(count)])
        fires, best = half.scored[:, best].T, half.features[best]
    else:
        best, fires = np.full(count, -1), np.zeros((count, len(second)), dtype=np.bool_)
    sets = stats.best_values(half.chosen, first, values=count, most=min(specs.UNION, max(count // 2, 1)))
    fits, chance = stats.fit(half.scored, second, sets)
    arrays: Arrays = {
        "labels": second, "fires": fires, "best": best, "fits": fits,
        "needed": np.array([_needed(half, first == value, second == value) for value in range(count)]),
    }  # fmt: skip
    return arrays, (fits[0] >= specs.INTERPRETABLE) & (fits[0] > chance)


def _needed(half: FeatureHalves, first: Flags, second: Flags) -> int:
    """How many features that are precise for a value on the first half cover it on the second."""
    fires = half.chosen.sum(0)
    precise = (half.chosen[first].sum(0) >= specs.PRECISION * fires) & (fires > 1)
    return stats.cover(half.scored[second][:, precise], share=specs.COVERED)


def _sizes(vectors: Tensor, made: Tensor, values: Index) -> Arrays:
    """Share of the variance of vectors that goes with an attribute, and the share of it that reconstructions retain."""
    number, rows = np.unique(values, return_inverse=True)[1], [one.double().cpu().numpy() for one in (vectors, made)]
    counts = np.bincount(number)[:, None]
    own, left = ((np.eye(len(counts))[number].T @ one) / counts - one.mean(0) for one in rows)
    between, lost = (float((counts * np.square(one)).sum()) for one in (own, own - left))
    total = float(np.square(rows[0] - rows[0].mean(0)).sum())
    return {"size": np.array(between / total if total else 0.0),
            "retained": np.array(1.0 - lost / between if between else 0.0)}  # fmt: skip


@final
class DictionaryDisturbance(EntryReading):
    """Lets dictionaries read the vectors of disturbed copies of their net, and edit them."""

    spec = specs.DICTIONARY_DISTURBED

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; a pass, and two over the pairs, for each disturbance; training."""
        how, labels = self.settings, attributes_of(task)
        bench, dictionaries, found = self.opened(subject, task, *how.numbers)
        codes = [bench.codes(one, bench.vectors) for one in dictionaries]
        live = [((one > 0).any(0) & ~(one > 0).all(0)).nonzero()[:, 0] for one in codes]
        asked = {name: counterfactuals(task, name, root=root, most=how.pairs) for name in labels}
        rows, forwards = dict[str, list[NDArray[Any]]](), 0.0
        # Closed at once where something fails: the net is then as it was.
        with closing(self._disturbed(bench, root=root, seed=seed)) as each:
            for kind, other, turn in each:  # the last one is the twin's
                found["gauge"] = np.array(specs.GAUGES.index(kind))
                owns, means = [one if turn is None else rewritten(one, turn) for one in dictionaries], list[float]()
                for own, before, some in zip(owns, codes, live, strict=True):
                    both = (one[:, some].cpu().numpy() for one in (before, other.codes(own, other.vectors)))
                    means.append(float(stats.correlations(*both).sum()) / max(len(some), 1))
                arrays: Arrays = {"correlation": np.array(means)}
                made = [edited(other, own, asked, how.budget) for own in owns]
                for name in made[0]:
                    arrays[f"{name}|agree"] = np.stack([one[name]["agree"] for one in made])
                    arrays[f"{name}|unedited"] = made[0][name]["unedited"]
                for key, held in arrays.items():
                    rows.setdefault(key, []).append(held)
                if other is not bench:
                    forwards, other.forwards = forwards + other.forwards, 0.0
                del other
                gc.collect()  # a net may refer to itself, and the next one needs its memory
        found |= {key: np.stack(held, 0 if key.endswith("unedited") else 1) for key, held in rows.items()}
        for name, values in labels.items():
            found[f"{name}|status"] = status(values, measured=len(asked[name][0]) > 0)
            found[f"{name}|rows"] = asked[name][0]
        found["disturbances"] = np.arange(len(specs.DISTURBANCES))
        return Readings(found, bench.forwards + forwards)

    def _disturbed(self, bench: SiteBench, *, root: int, seed: int) -> Generator[tuple[str, SiteBench, Tensor | None]]:
        """Of each of ``DISTURBANCES`` a net, and how dictionaries are rewritten; last the gauge of the twin."""
        yield "none", bench, None
        how, net = self.settings, bench.subject
        grids: Mapping[str, tuple[str, dict[str, Any], float]] = {
            "weight noise": ("relative", {}, how.noise), "int4": ("quantize", {}, 4.0),
            "nf4": ("quantize", {"scale": "group", "group": 64, "grid": "nf4"}, 4.0),
        }  # fmt: skip
        for name in specs.DISTURBANCES[1:4]:
            perturbation, settings, dose = grids[name]
            with Disturbance(net, perturb.create(perturbation, settings), WHOLE) as under_way:
                under_way.apply(dose, root=root, seed=seed, keep=False)
                yield "none", bench.beside(net.model, name), None
        # Of a large model, changes of low rank.
        adapter = "full" if sum(net.sizes.values()) < LARGE else "lora"
        tuning = TuningCopy(net, bench.task, FineTuneSettings(rate=how.rate, until=2 * how.steps, adapter=adapter))
        tuning.at(how.steps, root=root, seed=seed)
        tuned = tuning.model
        del tuning
        gc.collect()  # what training held
        yield "none", bench.beside(tuned, "fine-tuning"), None
        del tuned
        twin = site_twin(bench, root=root)
        for back in (False, True):
            yield ("none", bench, None) if twin is None else (twin[1], twin[0], twin[2] if back else None)
