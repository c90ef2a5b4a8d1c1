"""Readings of what is left of a dictionary on a disturbed net, and of what two dictionaries share."""

from collections.abc import Iterator, Mapping
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from wheeltap import perturb
from wheeltap.core.settings import LARGE
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import copied
from wheeltap.engine.apply import Disturbance
from wheeltap.engine.needs.tuning import TuningCopy
from wheeltap.engine.readings.base import Readings
from wheeltap.suites.dictionaries import specs, stats
from wheeltap.suites.dictionaries.edits import counterfactuals, edited
from wheeltap.suites.dictionaries.engine import Coder, SiteBench, rewritten, site_twin
from wheeltap.suites.dictionaries.readings import Arrays, EntryReading, attributes_of, status


@final
class DictionaryDisturbed(EntryReading):
    """Lets a dictionary read the vectors of disturbed copies of its net, and edit them."""

    spec = specs.DICTIONARY_DISTURBED

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; a pass, and two over the pairs of an attribute, for each disturbance; training.

        Raises:
            ModelError: As ``opened``; also if a disturbed net gives no finite numbers.
            DataError: As ``opened``, ``attributes_of``.
        """
        how, labels = self.settings, attributes_of(task)
        bench, (coder,), found = self.opened(subject, task)
        codes = coder.codes(bench.vectors[0])
        live = ((codes > 0).any(0) & ~(codes > 0).all(0)).nonzero()[:, 0]
        asked = {name: counterfactuals(task, name, root=root, most=how.pairs) for name in labels}
        rows, forwards, kind = dict[str, list[NDArray[Any]]](), 0.0, ""
        for kind, other, own in self._disturbed(bench, coder, root=root, seed=seed):  # noqa: B007
            both = (one[:, live].cpu().numpy() for one in (codes, own.codes(other.vectors[0])))
            arrays: Arrays = {"correlation": stats.correlations(*both).sum() / max(len(live), 1)}
            for name, pairs in asked.items():
                made = edited(other, [own], pairs, name, [how.budget])
                arrays |= {f"{name}|agree": made["agree"][0], f"{name}|unedited": made["unedited"]} if made else {}
            for key, held in arrays.items():
                rows.setdefault(key, []).append(held)
            forwards += 0.0 if other is bench else other.forwards
        found |= {key: np.stack(held) for key, held in rows.items()}
        for name, values in labels.items():
            found |= {
                f"{name}|status": status(values, measured=len(asked[name][0]) > 0),
                f"{name}|rows": asked[name][0],
            }
        found |= {"gauge": np.array(specs.GAUGES.index(kind)), "disturbances": np.arange(len(specs.DISTURBANCES))}
        return Readings(found, bench.forwards + forwards)

    def _disturbed(
        self, bench: SiteBench, coder: Coder, *, root: int, seed: int
    ) -> Iterator[tuple[str, SiteBench, Coder]]:
        """For each of ``DISTURBANCES`` in turn a net and the dictionary that reads it; last the gauge of the twin."""
        yield "none", bench, coder
        how, task, site = self.settings, bench.task, bench.places[0].name
        # Of a large model, changes of low rank.
        adapter = "full" if sum(bench.subject.sizes.values()) < LARGE else "lora"
        tuning = {"rate": how.rate, "until": 2 * how.steps, "adapter": adapter}
        grids: Mapping[str, tuple[str, dict[str, Any], float]] = {
            "weight noise": ("relative", {}, how.noise), "int4": ("quantize", {}, 4.0),
            "nf4": ("quantize", {"scale": "group", "group": 64, "grid": "nf4"}, 4.0),
            "fine-tuning": ("fine-tune", tuning, float(how.steps)),
        }  # fmt: skip
        for name in specs.DISTURBANCES[1:5]:
            perturbation, settings, dose = grids[name]
            disturbance = perturb.create(perturbation, settings)
            other = Subject(copied(bench.subject.model), name=f"{bench.subject.name}, {name}")
            known = TuningCopy(other, task, disturbance.settings) if disturbance.needs == "tuned" else None
            with Disturbance(other, disturbance, WHOLE, known) as under_way:
                under_way.apply(dose, root=root, seed=seed, keep=False)
                yield "none", SiteBench.of(other.model, [site], task, name=other.name), coder
        twin = site_twin(bench, root=root)
        if twin is None:
            yield from (("none", bench, coder),) * 2
            return
        net, kind, turn = twin
        turned = SiteBench.of(net, [site], task, name=f"{bench.subject.name}, gauge twin")
        yield kind, turned, coder
        yield kind, turned, Coder(rewritten(coder.dictionary, turn), coder.labels)


@final
class DictionaryMatch(EntryReading):
    """Pairs the features of two dictionaries, and compares the subspaces that matched and unmatched ones span."""

    spec = specs.DICTIONARY_MATCH

    def read(self, subject: Subject, task: BaseTask, *, root: int, seed: int) -> Readings:
        """See ``Reading.read``; one pass.

        Raises:
            ModelError: As ``opened``.
            DataError: As ``opened``.
        """
        how = self.settings
        bench, coders, found = self.opened(subject, task, how.entry, how.other)
        codes, atoms = list[NDArray[Any]](), list[NDArray[Any]]()
        for coder in coders:
            own = coder.codes(bench.vectors[0]).cpu().numpy()
            live = np.flatnonzero((own != 0).any(0))
            codes.append(own[:, live].astype(np.float64))
            atoms.append(coder.dictionary.W_dec.detach().double().cpu().numpy()[live])
        likeness = stats.cosines(*atoms)
        if any(coder.dictionary.settings.architecture == "linear" for coder in coders):
            likeness = np.abs(likeness)
        rows, columns = stats.matching(likeness)
        matched = np.zeros(len(likeness))
        matched[rows] = likeness[rows, columns]
        near = likeness[rows, columns] >= how.near
        same = [np.zeros(count, dtype=np.bool_) for count in likeness.shape]
        same[0][rows[near]] = same[1][columns[near]] = True
        parts = list[tuple[int, float]]()
        for some in ([np.ones_like(one) for one in same], same, [~one for one in same]):
            own, other = (one[:, kept] @ rows[kept] for one, rows, kept in zip(codes, atoms, some, strict=True))
            parts.append(stats.overlap(own, other, how.rank))
        ranks = np.array([rank for rank, _ in parts])
        found |= {
            "matched": matched, "mcc": np.array(float(matched.sum()) / max(*likeness.shape, 1)), "rank": ranks,
            "overlap": np.array([one for _, one in parts]), "chance": ranks / bench.vectors[0].shape[1],
        }  # fmt: skip
        return Readings(found, bench.forwards)
