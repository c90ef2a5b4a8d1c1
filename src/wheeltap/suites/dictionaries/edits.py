"""Edits of a few features that bring a vector near that of an example with another value of one attribute.

Source: Makelov, Lange and Nanda 2024, arXiv:2405.08366, section 4 (sparse controllability).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self, final

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_tensor
from wheeltap.suites.dictionaries import stats
from wheeltap.suites.dictionaries.engine import Coder, SiteBench

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Examples, and for each another one, both ``[pair]``."""


def counterfactuals(task: BaseTask, name: str, labels: NDArray[np.int64], *, root: int, most: int) -> Pairs:
    """Examples, and for each another one that differs from it in this attribute alone; at most so many.

    All other factors are the same, and the groups too where the task has any such pairs. The same whatever a model is.

    Args:
        task: The examples.
        name: The attribute.
        labels: Its value of each example.
        root: Of the draws.
        most: Pairs.
    """
    others = [values.cpu().numpy() for factor, values in sorted(task.annotations.factors.items()) if factor != name]
    groups = [] if task.annotations.groups is None else [task.annotations.groups.cpu().numpy()]
    for held in ([*others, *groups], others):
        table = np.stack([*held, np.zeros(len(labels), dtype=np.int64)], 1)
        same = np.unique(table, axis=0, return_inverse=True)[1].reshape(-1)
        rng = seeds.generator(root, "dictionary pairs", name)
        sources, targets = list[int](), list[int]()
        members = {int(one): np.flatnonzero(same == one) for one in np.unique(same)}
        for source in rng.permutation(len(labels)):
            some = members[int(same[source])]
            some = some[labels[some] != labels[source]]
            if len(some):
                sources.append(int(source))
                targets.append(int(rng.choice(some)))
            if len(sources) == most:
                break
        if len(sources) > 1:
            return np.array(sources), np.array(targets)
    return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)


@final
class Edit(NamedTuple):
    """An edited vector of one pair.

    Attributes:
        vector: ``[width]``.
        changed: Features that were removed or added.
        magnitude: Sum of their weights.
        random: The vector after as many random removals and additions, ``[width]``.
    """

    vector: NDArray[np.float64]
    changed: int
    magnitude: float
    random: NDArray[np.float64]


@final
@dataclass(frozen=True)
class SiteCodes:
    """A site's vectors and codes, as edits need them.

    Attributes:
        vectors: ``[example, width]``.
        codes: ``[example, feature]``.
        stretch: Length of an atom in each vector's space, ``[example, 1]``.
        atoms: ``[feature, width]``.
        own: Of a supervised dictionary: features of the attribute ``[feature]``.
    """

    vectors: NDArray[np.float32]
    codes: Tensor
    stretch: NDArray[np.float32]
    atoms: NDArray[np.float32]
    own: NDArray[np.bool_] | None = None

    @classmethod
    def of(cls, coder: Coder, vectors: Tensor) -> Self:
        """Of the vectors ``[example, width]`` of a site."""
        stretch = coder.dictionary.stretch(vectors).expand(len(vectors), 1)
        held = [one.detach().float().cpu().numpy() for one in (vectors, stretch, coder.dictionary.atoms)]
        return cls(held[0], coder.codes(vectors).cpu(), held[1], held[2])

    def for_attribute(self, coder: Coder, name: str) -> "SiteCodes":
        """The same; of a supervised dictionary with what is of this attribute."""
        if not coder.supervised:
            return self
        how = coder.dictionary
        at = how.settings.attributes.index(name) if name in how.settings.attributes else -1
        return replace(self, own=(how.attribute == at).cpu().numpy())

    def contributions(self, row: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Active features of a vector, and what each adds to its reconstruction, ``[active, width]``."""
        at = self.codes[row].nonzero()[:, 0].numpy()
        return at, self.codes[row, at].float().numpy()[:, None] * self.atoms[at] * self.stretch[row]

    def edits(
        self, source: int, target: int, budgets: Sequence[int], rng: np.random.Generator
    ) -> tuple[list[Edit], NDArray[np.float64]]:
        """The source's vector edited towards the target's for each budget, and with all features exchanged."""
        (left, removed), (right, added) = (self.contributions(row) for row in (source, target))
        changes = np.concatenate([-removed, added]).astype(np.float64)
        shares = np.concatenate([stats.weights(removed), stats.weights(added)])
        start = self.vectors[source].astype(np.float64)
        if self.own is None:
            chosen = stats.edits(changes, self.vectors[target].astype(np.float64) - start, budgets)
        else:
            chosen = [np.flatnonzero(self.own[np.concatenate([left, right])])] * len(budgets)
        found = list[Edit]()
        for some in chosen:
            count = int((some < len(left)).sum())
            drawn = np.concatenate([
                rng.permutation(len(left))[:count], len(left) + rng.permutation(len(right))[: len(some) - count]
            ])  # fmt: skip
            vector, random = (start + changes[one].sum(0) for one in (some, drawn))
            found.append(Edit(vector, len(some), float(shares[some].sum()), random))
        return found, start + changes.sum(0)


def edited(
    bench: SiteBench,
    sites: Sequence[SiteCodes],
    pairs: Pairs,
    budgets: Sequence[int],
    rng: np.random.Generator,
) -> dict[str, NDArray[Any]]:
    """What the reading ``dictionary-control`` gives of one attribute; nothing where there are no pairs.

    Args:
        bench: The net.
        sites: Of each site.
        pairs: Examples that differ in the attribute alone.
        budgets: Features that an edit may change.
        rng: Of the random edits.
    """
    sources, targets = pairs
    if not len(sources):
        return {}
    rows = to_tensor(sources)
    patched = bench.exchanged([one[to_tensor(targets)] for one in bench.vectors], rows).argmax(1)
    made = [[site.edits(int(s), int(t), budgets, rng) for s, t in zip(sources, targets, strict=True)] for site in sites]

    def agrees(vectors: Sequence[NDArray[np.float64]]) -> NDArray[np.bool_]:
        held = [
            to_tensor(one.astype(np.float32)).to(own.device) for one, own in zip(vectors, bench.vectors, strict=True)
        ]
        return (bench.exchanged(held, rows).argmax(1) == patched).numpy()

    found: dict[str, list[Any]] = {name: [] for name in ("agree", "random", "magnitude", "distance", "changed")}
    for at in range(len(budgets)):
        edits = [[one[0][at] for one in site] for site in made]
        vectors = [np.stack([one.vector for one in site]) for site in edits]
        found["agree"].append(agrees(vectors))
        found["random"].append(agrees([np.stack([one.random for one in site]) for site in edits]))
        found["magnitude"].append(np.mean([[one.magnitude for one in site] for site in edits], 0))
        found["changed"].append(np.sum([[one.changed for one in site] for site in edits], 0))
        found["distance"].append(np.mean([
            np.linalg.norm(put - one.vectors[targets], axis=1)
            / np.maximum(np.linalg.norm(one.vectors[sources] - one.vectors[targets], axis=1), 1e-30)
            for put, one in zip(vectors, sites, strict=True)
        ], 0))  # fmt: skip
    return {name: np.stack(rows) for name, rows in found.items()} | {
        "rows": sources,
        "target": targets,
        "unedited": (bench.clean[rows].argmax(1) == patched).numpy(),
        "whole": agrees([np.stack([one[1] for one in site]) for site in made]),
    }
