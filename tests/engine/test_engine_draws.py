"""A draw for one dose alone, written where it is used, gives the very weights that a kept one gives."""

import copy
from typing import Any

import pytest
import torch
from engine_nets import ConvNet, TiedLanguageModel, seeded
from torch import nn

from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.engine.apply import Disturbance
from wheeltap.perturb import create


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("draw", ["gaussian", "sign"])
@pytest.mark.parametrize("name", ["relative", "std"])
@pytest.mark.parametrize("make", [ConvNet, TiedLanguageModel])
def test_kept_or_not_the_weights_are_the_same_to_the_bit(
    make: type[nn.Module], name: str, draw: str, dtype: torch.dtype
) -> None:
    subject = Subject(seeded(make).to(dtype))
    before, found = weights_digest(subject.model), list[Any]()
    for keep in (True, False):
        with Disturbance(subject, create(name, {"draw": draw}), WHOLE) as disturbance:
            for seed, dose in ((0, 0.1), (1, 0.1), (1, 0.3)):
                disturbance.apply(dose, root=5, seed=seed, keep=keep)
                found.append((weights_digest(subject.model), disturbance.relative_norm))
        assert weights_digest(subject.model) == before
    for (kept, norm), (fresh, same) in zip(found[:3], found[3:], strict=True):
        assert kept == fresh and norm == pytest.approx(same, rel=1e-6)
    assert len({digest for digest, _ in found}) == 3


def test_a_weight_that_is_not_contiguous_is_drawn_alike() -> None:
    plain = Subject(seeded(ConvNet))
    turned = copy.deepcopy(plain.model)
    head = turned.get_submodule("head")
    assert isinstance(head, nn.Linear)
    head.weight.data = head.weight.data.T.contiguous().T
    for draw in ("gaussian", "sign"):
        weights = []
        for subject in (plain, Subject(turned)):
            with Disturbance(subject, create("relative", {"draw": draw}), WHOLE) as disturbance:
                disturbance.apply(0.1, root=0, seed=0, keep=False)
                weights.append(subject.parameter("head.weight").detach().clone())
        assert torch.equal(*weights)
