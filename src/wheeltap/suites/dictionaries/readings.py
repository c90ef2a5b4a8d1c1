"""Readings of dictionaries: what they reconstruct, control and say, what is left of it, and what two of them share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.core.settings import comma_separated
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_tensor
from wheeltap.engine.places import Change
from wheeltap.engine.readings.base import Reading, Readings
from wheeltap.suites.dictionaries import specs, stats
from wheeltap.suites.dictionaries.dictionary import DictionaryModel
from wheeltap.suites.dictionaries.edits import SiteCodes, counterfactuals, edited
from wheeltap.suites.dictionaries.engine import Coder, SiteBench, model_of

Arrays = dict[str, NDArray[Any]]
Flags = NDArray[np.bool_]


class EntryReading(Reading):
    """What all have in common: the entry that they are of, and the attributes."""

    def require(self, subject: Subject, task: BaseTask) -> None:
        """See ``Reading.require``: the entry, the site and the attributes."""
        if isinstance(subject.model, DictionaryModel):
            counts = {
                "entry": len(subject.model.all),
                "other": len(subject.model.all),
                "site": len(subject.model.sites),
            }
            for name, count in counts.items():
                asked = int(getattr(self.settings, name, 0))
                if asked >= count:
                    raise UsageError(f"The model has no such {name}.", where=f"{subject.name}: setting {name}",
                                     expected=f"0 to {count - 1}", got=str(asked))  # fmt: skip
        _attributes(task, getattr(self.settings, "attributes", ""))

    def opened(self, subject: Subject, task: BaseTask, sites: Sequence[int] | None = None) -> tuple[SiteBench, Arrays]:
        """A bench of these sites (of all), and what each reading says of the entries.

        Raises:
            ModelError: If the model has no dictionaries, or a site holds no vector per example.
            DataError: If the task has no options.
        """
        model = model_of(subject)
        names = model.sites if sites is None else [model.sites[at] for at in sites]
        kinds = np.array([specs.KINDS.index(entry.kind) for entry in model.all])
        return SiteBench.of(model.net, names, task, name=subject.name), {"kinds": kinds}

    def coder(self, subject: Subject, task: BaseTask, site: int, entry: int | None = None) -> Coder:
        """A dictionary of the entry (of another one), for the examples of the task."""
        at = self.settings.entry if entry is None else entry
        return Coder.of(model_of(subject).dictionary(at, site), task)


def _attributes(task: BaseTask, text: str) -> dict[str, NDArray[np.int64]]:
    """Labels ``[example]`` of these attributes, separated by commas; of all that the task knows where empty.

    Raises:
        UnknownName: If it knows none of such a name.
    """
    known = {name: values.cpu().numpy().astype(np.int64) for name, values in task.annotations.factors.items()}
    names = comma_separated(text) or list(known)
    for name in names:
        if name not in known:
            raise UnknownName("factor", name, known)
    return {name: known[name] for name in names}


# ---- approximation ---------------------------------------------------------------------------------------------------


@final
class DictionaryReconstruction(EntryReading):
    """Puts the mean vector, the reconstruction, and the mean with what is left of it in place of each vector.

    Source: Makelov, Lange and Nanda 2024, arXiv:2405.08366, section 4.
    """

    spec = specs.DICTIONARY_RECONSTRUCTION

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; three passes over the task for each site, and for all together.

        Raises:
            ModelError: As ``SiteBench.of``.
            DataError: As ``SiteBench.of``, ``Coder.of``.
        """
        bench, found = self.opened(subject, task)
        coders = [self.coder(subject, task, site) for site in range(len(bench.places))]
        every = range(len(coders))
        margins, agree, answers = list[list[Tensor]](), list[list[Tensor]](), bench.clean.argmax(1)
        for cut in [*([one] for one in every), every] if len(coders) > 1 else [every]:
            rows = [bench.clean]
            for replacement in specs.REPLACEMENTS[1:]:
                changes: list[Change | None] = [
                    _replaced(bench, coder, at, replacement) if at in cut else None for at, coder in enumerate(coders)
                ]
                rows.append(bench.scores(changes))
            margins.append([bench.margins(row) for row in rows])
            agree.append([row.argmax(1) == answers for row in rows])
        found |= {"margin": _stack(margins), "agree": _stack(agree)}
        each = [approximation(coder, vectors) for coder, vectors in zip(coders, bench.vectors, strict=True)]
        return Readings(found | {name: np.stack([one[name] for one in each]) for name in each[0]}, bench.forwards)


def _stack(rows: Sequence[Sequence[Tensor]]) -> NDArray[Any]:
    return torch.stack([torch.stack(list(row)) for row in rows]).cpu().numpy()


def _replaced(bench: SiteBench, coder: Coder, site: int, replacement: str) -> Change:
    """What stands in the place of a site's vectors, which earlier sites may have changed."""
    mean = bench.vectors[site].mean(0)

    def change(values: Tensor, at: Tensor) -> Tensor:
        if replacement == "mean":
            return mean.expand_as(values)
        made = coder.reconstructed(values.float(), at)
        return made if replacement == "reconstructed" else mean + (values - made)

    return change


def approximation(coder: Coder, vectors: Tensor) -> Arrays:
    """Errors and active features of one site's vectors."""
    codes = coder.codes(vectors)
    active = codes != 0
    return {
        "error": _squares(vectors - coder.decoded(vectors, codes)),
        "spread": _squares(vectors - vectors.mean(0)),
        "active": active.sum(1).cpu().numpy(),
        "dead": (~active.any(0)).sum().cpu().numpy(),
        "features": np.array(active.shape[1]),
    }


def _squares(vectors: Tensor) -> NDArray[Any]:
    return vectors.double().square().sum(1).cpu().numpy()


# ---- control ---------------------------------------------------------------------------------------------------------


@final
class DictionaryControl(EntryReading):
    """Changes a few features so that a vector comes near that of an example which differs in one attribute alone.

    Source: Makelov, Lange and Nanda 2024, arXiv:2405.08366, section 4.
    """

    spec = specs.DICTIONARY_CONTROL
    settings: specs.DictionaryControlSettings

    def require(self, subject: Subject, task: BaseTask) -> None:
        """See ``Reading.require``: the entry, the attributes and the budgets."""
        super().require(subject, task)
        _budgets(self.settings.budgets)

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; two passes over the pairs of an attribute for each budget, and two more.

        Raises:
            ModelError: As ``SiteBench.of``.
            DataError: As ``SiteBench.of``, ``Coder.of``; also if the task knows no attributes.
            UsageError: If the budgets are no numbers.
        """
        budgets, labels = _budgets(self.settings.budgets), attributes_of(task, self.settings.attributes)
        bench, found = self.opened(subject, task)
        coders = [self.coder(subject, task, site) for site in range(len(bench.places))]
        sites = [SiteCodes.of(coder, vectors) for coder, vectors in zip(coders, bench.vectors, strict=True)]
        found["budgets"] = np.array(budgets)
        for name, values in labels.items():
            pairs = counterfactuals(task, name, values, root=root, most=self.settings.pairs)
            rng = seeds.generator(root, self.name, "random", seed, name)
            own = [site.for_attribute(coder, name) for site, coder in zip(sites, coders, strict=True)]
            arrays = edited(bench, own, pairs, budgets, rng)
            arrays["status"] = status(values, measured=len(pairs[0]) > 0)
            found |= {f"{name}|{key}": array for key, array in arrays.items()}
        return Readings(found, bench.forwards)


def _budgets(text: str) -> list[int]:
    names = comma_separated(text)
    if not names or not all(name.isdecimal() and int(name) > 0 for name in names):
        raise UsageError("The budgets of an edit cannot be read.", where="setting budgets",
                         expected="whole numbers from 1, separated by commas: 2,4,8", got=repr(text))  # fmt: skip
    return [int(name) for name in names]


def attributes_of(task: BaseTask, text: str) -> dict[str, NDArray[np.int64]]:
    """See ``_attributes``; raises ``DataError`` where the task knows none."""
    found = _attributes(task, text)
    if not found:
        raise DataError("The task knows no attributes of its examples.", where=task.name, expected="factors",
                        got="none", do="Give them: task.with_factors({...}).")  # fmt: skip
    return found


def status(values: NDArray[np.int64], *, measured: bool) -> NDArray[Any]:
    """How measuring an attribute ended, of ``STATUSES``."""
    ended = "one value" if len(np.unique(values)) < 2 else "measured" if measured else "too few examples"
    return np.array(specs.STATUSES.index(ended))


# ---- interpretation --------------------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Halves:
    """Live features on the half that all is chosen on, and on the one that is scored on.

    Attributes:
        features: Numbers of the live ones.
        chosen: ``[example, live]`` of the first half.
        scored: Of the second.
        first: Examples of the first half.
        second: Of the second.
    """

    features: NDArray[np.int64]
    chosen: Flags
    scored: Flags
    first: NDArray[np.int64]
    second: NDArray[np.int64]

    @classmethod
    def of(cls, fires: Flags, task: BaseTask, root: int) -> "Halves":
        """Of the features that are active ``[example, feature]``; the halves are the same whatever a model is."""
        first, second = (half.numpy() for half in task.halves(seeds.generator(root, "dictionary halves")))
        live = np.flatnonzero(fires.any(0) & ~fires.all(0))
        return cls(live, fires[np.ix_(first, live)], fires[np.ix_(second, live)], first, second)

    def numbered(
        self, values: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None:
        """Values, rising, and their numbers in both halves; ``None`` where one is missing in a half."""
        known, number = np.unique(values, return_inverse=True)
        halves = number[self.first], number[self.second]
        missing = len(known) < 2 or any(len(np.unique(half)) < len(known) for half in halves)
        return None if missing else (known, *halves)

    def best(self, numbers: NDArray[np.int64], values: int) -> NDArray[np.int64]:
        """Place among the live features of the one with the highest F1 for each value, on the first half; or -1."""
        if not len(self.features):
            return np.full(values, -1)
        holds = numbers == np.arange(values)[:, None]
        return np.array([stats.f1(self.chosen.T, own).argmax() for own in holds])

    def fires_of(self, best: NDArray[np.int64], fires: Flags | None = None) -> Flags:
        """Whether these features are active ``[value, half]`` on the second half, or in its rows of ``fires``."""
        held = self.scored if fires is None else fires[np.ix_(self.second, self.features)]
        return held[:, best].T if len(self.features) else np.zeros((len(best), len(self.second)), dtype=np.bool_)


@final
class DictionaryFeatures(EntryReading):
    """Features beside sets of values of attributes, chosen on one half of the examples and scored on the other.

    Source: Makelov, Lange and Nanda 2024, arXiv:2405.08366, sections 4 (interpretability) and 5 (occlusion, splitting).
    """

    spec = specs.DICTIONARY_FEATURES
    settings: specs.DictionaryFeaturesSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; six passes over the task.

        Raises:
            ModelError: As ``SiteBench.of``.
            DataError: As ``SiteBench.of``, ``Coder.of``; also if the task knows no attributes.
        """
        how, labels = self.settings, attributes_of(task, self.settings.attributes)
        bench, found = self.opened(subject, task, [how.site])
        coder, vectors = self.coder(subject, task, how.site), bench.vectors[0]
        codes = coder.codes(vectors)
        fires = coder.fires(codes)
        half = Halves.of(fires, task, root)
        made = coder.decoded(vectors, codes)
        above = np.zeros(len(half.features), dtype=np.bool_)
        for name, values in labels.items():
            arrays = self._attribute(half, values)
            if "above" in arrays:
                above |= arrays["above"]
                arrays |= _sizes(vectors, made, values)
            arrays["status"] = status(values, measured="above" in arrays)
            found |= {f"{name}|{key}": array for key, array in arrays.items()}
        rng = seeds.generator(root, self.name, "others", seed)
        found |= {
            "features": half.features,
            "frequency": fires[:, half.features].mean(0),
            "rows": half.second,
            "interpretable": np.array(above.sum()),
            "margin": _causal(bench, coder, codes, half.features[above], half.features[~above], rng),
        }
        return Readings(found, bench.forwards)

    def _attribute(self, half: Halves, values: NDArray[np.int64]) -> Arrays:
        """What the reading gives of one attribute, but for ``size`` and ``retained``; nothing if it is not measured."""
        numbered, how = half.numbered(values), self.settings
        if numbered is None:
            return {}
        known, first, second = numbered
        count = len(known)
        best = half.best(first, count)
        fires, holds = half.fires_of(best), second == np.arange(count)[:, None]
        sets = stats.best_values(half.chosen, first, values=count, most=min(how.union, max(count // 2, 1)))
        fits = stats.fit(half.scored, second, sets)
        top = int(stats.fit(half.chosen, first, sets).f1.argmax()) if len(sets) else -1
        alone = [self._specific(half, first == value, second == value) for value in range(count)]
        return {
            "values": known, "labels": second, "fires": fires, "f1": stats.f1(fires, holds),
            "best": np.array([half.features[at] if at >= 0 else -1 for at in best]),
            "chance": stats.f1(np.ones_like(holds), holds),
            "active": half.scored[:, top] if top >= 0 else np.zeros(len(second), dtype=np.bool_),
            "holds": sets[top][second] if top >= 0 else holds[0],
            "feature_f1": fits.f1, "feature_precision": fits.precision, "feature_recall": fits.recall,
            "feature_values": sets.sum(1),
            "above": (fits.f1 >= how.threshold) & (fits.f1 > fits.chance),
            "specific": np.array([one[0] for one in alone]), "needed": np.array([one[1] for one in alone]),
            "cover": np.array([one[2] for one in alone]),
        }  # fmt: skip

    def _specific(self, half: Halves, first: Flags, second: Flags) -> tuple[int, int, float]:
        """Features that are precise for a value on the first half; how many cover it on the second, and its share."""
        fires = half.chosen.sum(0)
        precise = (half.chosen[first].sum(0) >= self.settings.precision * fires) & (fires > 1)
        return int(precise.sum()), *stats.cover(half.scored[second][:, precise], share=self.settings.covered)


def _sizes(vectors: Tensor, made: Tensor, values: NDArray[np.int64]) -> Arrays:
    """Share of the variance of vectors that goes with an attribute, and the share of it that reconstructions retain."""
    rows, number = [one.double().cpu().numpy() for one in (vectors, made)], np.unique(values, return_inverse=True)[1]
    counts = np.bincount(number)[:, None]
    own, left = (
        (np.eye(len(counts))[number].T @ one) / counts - one.mean(0, keepdims=True) for one in rows
    )  # fmt: skip
    between = float((counts * np.square(own)).sum())
    total = float(np.square(rows[0] - rows[0].mean(0)).sum())
    lost = float((counts * np.square(own - left)).sum())
    return {
        "size": np.array(between / total if total else 0.0),
        "retained": np.array(1.0 - lost / between if between else 0.0),
    }


def _causal(
    bench: SiteBench,
    coder: Coder,
    codes: Tensor,
    features: NDArray[np.int64],
    rest: NDArray[np.int64],
    rng: np.random.Generator,
) -> NDArray[Any]:
    """Margins ``[part, example]`` with features kept alone and removed, and as many others."""
    vectors, others = bench.vectors[0], rng.permutation(rest)[: len(features)]

    def made(some: NDArray[np.int64], *, kept: bool) -> Tensor:
        mask = torch.full((codes.shape[1],), not kept)
        mask[to_tensor(some)] = kept
        return coder.decoded(vectors, codes * mask.to(codes))

    put = {"mean": vectors.mean(0).expand_as(vectors), "reconstructed": coder.decoded(vectors, codes)}
    put |= {"kept": made(features, kept=True), "removed": made(features, kept=False)}
    put |= {"others kept": made(others, kept=True), "others removed": made(others, kept=False)}
    scores = [bench.clean if part == "clean" else bench.exchanged([put[part]]) for part in specs.PARTS]
    return np.stack([bench.margins(one).numpy() for one in scores])
