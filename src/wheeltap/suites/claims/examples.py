"""Handwritten digits as the suite's studies take them: blends of two, and the lesson without one."""

import numpy as np
import torch
from torch import Tensor

from wheeltap.core import seeds
from wheeltap.core.task import Task
from wheeltap.core.typed import to_tensor
from wheeltap.sources.digits import split
from wheeltap.suites.claims.specs import FORGOTTEN, PAIRS, SHARES


def blends() -> Task:
    """Pairs of two digits of the test split, blended: ``[blend, 64]``, twice, with either digit as the right one.

    Blends of a pair follow each other, with rising shares of its second digit (``specs.SHARES``). First come all with
    the first digit as the right one, then the same with the second.
    """
    data, rng = split(), seeds.generator(0, "claims", "blends")
    digits = data.test_targets.numpy()
    pairs: list[tuple[int, int]] = []
    while len(pairs) < PAIRS:
        one, two = map(int, rng.integers(len(digits), size=2))
        if digits[one] != digits[two]:
            pairs.append((one, two))
    first, second = (to_tensor(np.repeat(part, len(SHARES))) for part in np.array(pairs).T)
    share = to_tensor(np.tile(np.array(SHARES, dtype=np.float32), PAIRS))[:, None]
    inputs = data.test_inputs[first] * (1.0 - share) + data.test_inputs[second] * share
    targets = torch.cat([data.test_targets[first], data.test_targets[second]])
    return Task(torch.cat([inputs, inputs]), targets, name="blends of two digits")


def without() -> Task:
    """The training split of digits without those of one class (``specs.FORGOTTEN``)."""
    data = split()
    kept: Tensor = data.train_targets != FORGOTTEN
    return Task(data.train_inputs[kept], data.train_targets[kept], name=f"digits without {FORGOTTEN}")
