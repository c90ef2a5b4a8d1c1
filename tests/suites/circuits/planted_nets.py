"""Small decoders whose circuits are known, and the pairs that they answer."""

import numpy as np
import torch
from numpy.typing import NDArray

from tests.nets.bare_transformer import BareTransformer, Shape
from tests.nets.planted_circuit import Planted, planted_circuit
from wheeltap.core.choices import ChoiceTask
from wheeltap.suites.circuits.pairs import Pairs
from wheeltap.suites.circuits.sources import task as task_of


def flags(planted: Planted) -> NDArray[np.bool_]:
    """The planted circuit, ``[unit]``."""
    return np.concatenate([np.isin(np.arange(one.units), one.kept) for one in planted.units])


def task(planted: Planted) -> ChoiceTask:
    return task_of(Pairs.of(planted.pairs), name="planted")


def true(seed: int = 3, count: int = 48) -> Planted:
    return planted_circuit(seed, fake=False, count=count)


def random_net(seed: int = 0, **sizes: int) -> BareTransformer:
    """A tiny decoder with random weights, some of them 0, in double precision."""
    tiny = {"tokens": 9, "places": 6, "classes": 9, "layers": 2, "heads": 2, "head": 3, "units": 5, "width": 6}
    shape = Shape(**{**tiny, **sizes}, causal=True)
    net, draw = BareTransformer(shape), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            drawn = torch.randn(parameter.shape, generator=draw)
            parameter.copy_(drawn * (torch.rand(parameter.shape, generator=draw) < 0.7))
    return net.double().eval()
