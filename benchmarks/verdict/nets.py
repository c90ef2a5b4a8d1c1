"""Tables of the digits net's scores under relative noise, beside copies of it that compute the same function."""

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.verdict.worlds import DOSES, Tables
from wheeltap import gauge
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.engine.apply import Disturbance
from wheeltap.perturb import create
from wheeltap.sources import digits

PAIRS = 9
"""Cancelling pairs per hidden layer of B: the area gap is then about .10."""


def copy(subject: Subject, name: str, *gauges: str, **settings: int) -> Subject:
    """A copy that computes the same function."""
    family = gauge.find(subject.model)
    assert isinstance(family, gauge.Family)
    return Subject(gauge.twin(subject.model, gauge.describe(family, *gauges, seed=0, **settings)), name=name)


@torch.no_grad()
def table(subject: Subject, *, draws: int, root: int) -> NDArray[np.uint8]:
    """Right answers ``[dose, draw, example]`` under relative noise."""
    data = digits.split()
    found = np.zeros((len(DOSES), draws, len(data.test_targets)), dtype=np.uint8)
    with Disturbance(subject, create("relative"), WHOLE) as noise:
        for draw in range(draws):
            for index, dose in enumerate(DOSES):
                noise.apply(float(dose), root=root, seed=draw)
                found[index, draw] = (subject.model(data.test_inputs).argmax(1) == data.test_targets).numpy()
    return found


def worlds(*, draws: int) -> dict[str, Tables]:
    """Pairs of nets: ``cancel`` and ``aligned`` with a gap, ``twin`` without one.

    ``aligned`` pads A with as many dead units as B has cancelling ones: relative noise does not see them, and the two
    nets' tensors then have equal shapes, so that both meet the same noise, as two checkpoints of one architecture do.
    """
    net = digits.subject(seed=0)
    own = table(net, draws=draws, root=0)
    cancelling = table(copy(net, "B", "cancel", pairs=PAIRS), draws=draws, root=0)
    padded = table(copy(net, "A padded", "dead", units=2 * PAIRS), draws=draws, root=0)
    recoded = table(copy(net, "twin", "permute", "rescale"), draws=draws, root=1)
    return {
        "cancel": Tables("digits net and copy with cancelling units, draws as the engine gives them", own, cancelling),
        "aligned": Tables("digits net and copy with cancelling units, draws lined up", padded, cancelling),
        "twin": Tables("digits net and reparametrized copy, independent draws", own, recoded),
    }
