"""Readings of what is left of a dictionary on a disturbed net, and of what two dictionaries share."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wheeltap import perturb
from wheeltap.core import seeds
from wheeltap.core.settings import LARGE
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import copied
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.needs.tuning import TuningCopy
from wheeltap.engine.readings.base import Readings
from wheeltap.suites.dictionaries import specs, stats
from wheeltap.suites.dictionaries.edits import Pairs, SiteCodes, counterfactuals, edited
from wheeltap.suites.dictionaries.engine import Coder, SiteBench, rewritten, site_twin
from wheeltap.suites.dictionaries.readings import (
    Arrays,
    EntryReading,
    Flags,
    Halves,
    approximation,
    attributes_of,
    status,
)


class _Asked(NamedTuple):
    """What is asked of an attribute: pairs of examples, and its values where it can be measured (see ``Halves``)."""

    pairs: Pairs
    numbered: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None


@final
class DictionaryDisturbed(EntryReading):
    """Lets a dictionary read the vectors of disturbed copies of its net, and edit them."""

    spec = specs.DICTIONARY_DISTURBED
    settings: specs.DictionaryDisturbedSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; a pass, and three over the pairs of an attribute, for each disturbance; training.

        Raises:
            ModelError: As ``SiteBench.of``; also if a disturbed net gives no finite numbers.
            DataError: As ``SiteBench.of``, ``Coder.of``; also if the task knows no attributes.
        """
        how, labels = self.settings, attributes_of(task, self.settings.attributes)
        bench, found = self.opened(subject, task, [how.site])
        coder = self.coder(subject, task, how.site)
        codes = coder.codes(bench.vectors[0])
        half = Halves.of(coder.fires(codes), task, root)
        asked: dict[str, _Asked] = {}
        for name, values in labels.items():
            pairs, numbered = counterfactuals(task, name, values, root=root, most=how.pairs), half.numbered(values)
            asked[name] = _Asked(pairs, numbered)
            found[f"{name}|status"] = status(values, measured=numbered is not None and len(pairs[0]) > 0)
            found |= {} if numbered is None else {f"{name}|labels": numbered[2]}
            found |= {f"{name}|rows": pairs[0]} if len(pairs[0]) else {}
        rows, forwards, kind = dict[str, list[NDArray[Any]]](), 0.0, ""
        for kind, other, own in self._disturbed(bench, coder, root=root, seed=seed):  # noqa: B007
            new, near = own.codes(other.vectors[0]), approximation(own, other.vectors[0])
            arrays: Arrays = {
                "correlations": stats.correlations(*(one[:, half.features].cpu().numpy() for one in (codes, new))),
                "answers": (other.clean.argmax(1) == bench.clean.argmax(1)).numpy(),
                "error": near["error"], "spread": near["spread"], **self._left(other, own, new, half, asked),
            }  # fmt: skip
            for key, held in arrays.items():
                rows.setdefault(key, []).append(held)
            forwards += other.forwards
        found |= {key: np.stack(held) for key, held in rows.items()}
        found |= {
            "gauge": np.array(specs.GAUGES.index(kind)), "features": half.features, "half": half.second,
            "disturbances": np.arange(len(specs.DISTURBANCES)),
            "correlation": found["correlations"].sum(1) / max(len(half.features), 1),
        }  # fmt: skip
        return Readings(found, forwards)

    def _left(self, bench: SiteBench, coder: Coder, codes: Tensor, half: Halves, asked: Mapping[str, _Asked]) -> Arrays:
        """What is left of features and edits of each attribute in a disturbed net."""
        site, fires, found = SiteCodes.of(coder, bench.vectors[0]), coder.fires(codes), Arrays()
        for name, one in asked.items():
            if one.numbered is not None:
                known, first, second = one.numbered
                found[f"{name}|fires"] = active = half.fires_of(half.best(first, len(known)), fires)
                found[f"{name}|f1"] = stats.f1(active, second == np.arange(len(known))[:, None])
            rng = seeds.generator(0)  # random edits are not asked for
            made = edited(bench, [site.for_attribute(coder, name)], one.pairs, [self.settings.budget], rng)
            if made:
                found |= {f"{name}|agree": made["agree"][0], f"{name}|unedited": made["unedited"]}
        return found

    def _disturbed(
        self, bench: SiteBench, coder: Coder, *, root: int, seed: int
    ) -> Iterator[tuple[str, SiteBench, Coder]]:
        """For each of ``DISTURBANCES`` in turn a net and the dictionary that reads it; last the gauge of the twin."""
        yield "none", bench, coder
        how, task = self.settings, bench.task
        grids: Mapping[str, tuple[str, dict[str, Any], float]] = {
            "weight noise": ("relative", {}, how.noise),
            "nf4": ("quantize", {"scale": "group", "group": 64, "grid": "nf4"}, 4.0),
            "int4": ("quantize", {}, 4.0),
            "fine-tuning": ("fine-tune", self._tuning(bench.subject), float(how.steps)),
        }
        for name in specs.DISTURBANCES[1:5]:
            perturbation, settings, dose = grids[name]
            disturbance = perturb.create(perturbation, settings)
            other = Subject(copied(bench.subject.model), name=f"{bench.subject.name}, {name}")
            known = TuningCopy(other, task, disturbance.settings) if disturbance.needs == "tuned" else None
            with Disturbance(other, disturbance, WHOLE, known) as under_way:
                under_way.apply(dose, root=root, seed=seed)
                yield "none", SiteBench.of(other.model, [bench.places[0].name], task, name=other.name), coder
        twin = site_twin(bench, 0, root=root)
        if twin is None:
            yield "none", bench, coder
            yield "none", bench, coder
            return
        turned = SiteBench.of(twin.net, [bench.places[0].name], task, name=f"{bench.subject.name}, gauge twin")
        yield twin.kind, turned, coder
        yield twin.kind, turned, Coder(rewritten(coder.dictionary, twin.turn), coder.labels)

    def _tuning(self, subject: Subject) -> dict[str, Any]:
        """Settings of the fine-tuning: of a large model, changes of low rank."""
        small = sum(subject.sizes.values()) < LARGE
        return {"rate": self.settings.rate, "until": 2 * self.settings.steps, "adapter": "full" if small else "lora"}


# ---- two dictionaries ------------------------------------------------------------------------------------------------


@final
class DictionaryMatch(EntryReading):
    """Pairs the features of two dictionaries, and compares the subspaces that matched and unmatched ones span."""

    spec = specs.DICTIONARY_MATCH
    settings: specs.DictionaryMatchSettings

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; one pass.

        Raises:
            ModelError: As ``SiteBench.of``; also if one of the two is supervised and the task knows no attributes.
        """
        how = self.settings
        bench, found = self.opened(subject, task, [how.site])
        vectors = bench.vectors[0]
        both = [self.coder(subject, task, how.site, entry) for entry in (how.entry, how.other)]
        held = [coder.codes(vectors).cpu().numpy() for coder in both]
        live = [np.flatnonzero((codes != 0).any(0)) for codes in held]
        codes = [one[:, some] for one, some in zip(held, live, strict=True)]
        atoms = [
            coder.dictionary.atoms.detach().float().cpu().numpy()[some] for coder, some in zip(both, live, strict=True)
        ]
        likeness = stats.cosines(*atoms)
        if any(coder.dictionary.settings.architecture == "linear" for coder in both):
            likeness = np.abs(likeness)
        rows, columns = stats.matching(likeness)
        partner, matched, correlation = np.full(len(live[0]), -1), np.zeros(len(live[0])), np.zeros(len(live[0]))
        partner[rows], matched[rows] = live[1][columns], likeness[rows, columns]
        correlation[rows] = stats.correlations(codes[0][:, rows], codes[1][:, columns])
        near = likeness[rows, columns] >= how.near
        chosen = [np.isin(np.arange(len(live[0])), rows[near]), np.isin(np.arange(len(live[1])), columns[near])]
        parts = [_shared(codes, atoms, some, how.rank) for some in _matchings(chosen)]
        size = np.square(codes[0].astype(np.float64)).sum(0) * np.square(atoms[0].astype(np.float64)).sum(1)
        found |= {
            "features": live[0], "partner": partner, "matched": matched, "correlation": correlation,
            "mcc": np.array(float(matched.sum()) / max(*map(len, live), 1)),
            "weight": size / max(float(size.sum()), 1e-300),
            "count": np.array([[int(one.sum()) for one in some] for some in _matchings(chosen)]),
            "rank": np.array([one[0] for one in parts]), "overlap": np.array([one[1] for one in parts]),
            "chance": np.array([one[0] / vectors.shape[1] for one in parts]),
        }  # fmt: skip
        return Readings(found, bench.forwards)


def _matchings(chosen: Sequence[Flags]) -> list[list[Flags]]:
    """Live features of both dictionaries: all, the matched, the unmatched; as ``MATCHES``."""
    return [[np.ones_like(one) for one in chosen], list(chosen), [~one for one in chosen]]


def _shared(
    codes: Sequence[NDArray[Any]], atoms: Sequence[NDArray[Any]], some: Sequence[Flags], rank: int
) -> tuple[int, float]:
    """Rank and overlap of the subspaces that contributions of some features of both span most."""
    spans = [
        stats.subspace(one[:, own].astype(np.float64) @ rows[own], rank)
        for one, rows, own in zip(codes, atoms, some, strict=True)
    ]
    fewer = min(span.shape[1] for span in spans)
    if not fewer:
        return 0, 0.0
    return fewer, stats.overlap(*(span[:, :fewer] for span in spans))
