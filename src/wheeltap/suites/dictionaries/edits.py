"""Edits of a few features that bring a vector near that of an example with another value of one attribute.

Source: Makelov, Lange and Nanda 2024, arXiv:2405.08366, section 4 (sparse controllability).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.task import BaseTask
from wheeltap.core.typed import to_tensor
from wheeltap.suites.dictionaries import stats
from wheeltap.suites.dictionaries.engine import Coder, SiteBench

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Examples, and for each another one, both ``[pair]``."""


def counterfactuals(task: BaseTask, name: str, *, root: int, most: int) -> Pairs:
    """Examples, and for each another one that differs from it in this attribute alone; at most so many.

    All other factors are the same, and the groups too where the task has such pairs. The same whatever a model is.

    Args:
        task: The examples.
        name: The attribute.
        root: Of the draws.
        most: Pairs.
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
    coder: Coder, vectors: Tensor, pairs: Pairs, name: str, budgets: Sequence[int]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """First vectors of pairs edited towards second ones, ``[budget, pair, width]``; magnitudes ``[budget, pair]``.

    Of a supervised dictionary the features of the attribute are exchanged, whatever the budget.

    Args:
        coder: The dictionary.
        vectors: ``[example, width]``.
        pairs: Examples that differ in the attribute alone.
        name: The attribute.
        budgets: Features that an edit may change.
    """
    how, made, sizes = coder.dictionary, list[NDArray[np.float64]](), list[list[float]]()
    stretch = how.normalized(vectors)[1].expand(len(vectors), 1)
    codes, lengths, atoms, rows = (
        one.detach().double().cpu().numpy() for one in (coder.codes(vectors), stretch, how.W_dec, vectors)
    )
    names = how.settings.attributes
    own = (how.attribute == (names.index(name) if name in names else -1)).cpu().numpy() if names else None
    for source, target in zip(*pairs, strict=True):
        active = [np.flatnonzero(codes[row]) for row in (source, target)]
        removed, added = (codes[row, at, None] * atoms[at] * lengths[row]
                          for row, at in zip((source, target), active, strict=True))  # fmt: skip
        changes, shares = (
            np.concatenate([-removed, added]),
            np.concatenate([stats.weights(removed), stats.weights(added)]),
        )
        if own is None:
            chosen = stats.edits(changes, rows[target] - rows[source], budgets)
        else:
            chosen = [np.flatnonzero(own[np.concatenate(active)])] * len(budgets)
        made.append(np.stack([rows[source] + changes[some].sum(0) for some in chosen]))
        sizes.append([float(shares[some].sum()) for some in chosen])
    return np.stack(made, 1), np.array(sizes).T


def edited(
    bench: SiteBench, coders: Sequence[Coder], pairs: Pairs, name: str, budgets: Sequence[int]
) -> dict[str, NDArray[Any]]:
    """What the reading ``dictionary-control`` gives of one attribute; nothing where there are no pairs.

    Args:
        bench: The net.
        coders: Of each site.
        pairs: Examples that differ in the attribute alone.
        name: The attribute.
        budgets: Features that an edit may change.
    """
    rows, targets = (to_tensor(one) for one in pairs)
    if not len(rows):
        return {}
    patched = bench.exchanged([one[targets.to(one.device)] for one in bench.vectors], rows).argmax(1)
    made = [edits(coder, own, pairs, name, budgets) for coder, own in zip(coders, bench.vectors, strict=True)]
    answers = [
        bench.exchanged([to_tensor(one[0][at]).to(own) for one, own in zip(made, bench.vectors, strict=True)], rows)
        for at in range(len(budgets))
    ]
    return {
        "rows": pairs[0], "unedited": (bench.clean[rows].argmax(1) == patched).numpy(),
        "agree": (torch.stack(answers).argmax(2) == patched).numpy(),
        "magnitude": np.mean([one[1] for one in made], 0),
    }  # fmt: skip
