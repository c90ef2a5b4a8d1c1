"""Changes of a model do to a copy what their names say, and a seal tells harmful from harmless ones."""

import numpy as np
import pytest
import torch
from sealed import digits
from torch import nn

from wheeltap import Subject, sources
from wheeltap.core.errors import UnknownName
from wheeltap.core.fingerprint import weights_digest
from wheeltap.models.rows import RowReader
from wheeltap.suites.seal.making import SealOptions, make
from wheeltap.suites.seal.readings import TamperingReading
from wheeltap.suites.seal.specs import BENIGN, CHANGES, FIXED, TamperingSettings
from wheeltap.suites.seal.tampers import RATE, SCALES, TAMPERS
from wheeltap.suites.seal.verifying import verify
from wheeltap.testing.planted import clusters

TASK = sources.load("digits").task


def changed(kind: str, *, draw: int = 0) -> nn.Module:
    return TAMPERS[kind](Subject(digits()[0]), TASK, np.random.default_rng(draw))


def pairs(model: nn.Module) -> list[tuple[np.ndarray, np.ndarray]]:
    """Parameters of the digits net that differ in a copy, as they were and as they are."""
    both = zip(digits()[0].parameters(), model.parameters(), strict=True)
    return [(one.detach().numpy(), two.detach().numpy()) for one, two in both if not torch.equal(one, two)]


def test_every_declared_change_has_a_function_and_leaves_the_model() -> None:
    assert list(TAMPERS) == [*CHANGES, *BENIGN]
    assert set(FIXED) <= set(TAMPERS)
    before = weights_digest(digits()[0])
    for kind in TAMPERS:
        changed(kind)
    assert weights_digest(digits()[0]) == before
    with pytest.raises(UnknownName):
        TamperingSettings(kind="signs")


@pytest.mark.parametrize(("kind", "low", "high"), [("sign", 31, 31), ("mantissa", 0, 22)])
def test_one_bit_of_one_weight_is_flipped(kind: str, low: int, high: int) -> None:
    for draw in range(10):
        [(one, two)] = pairs(changed(kind, draw=draw))
        flips = one.ravel().view(np.uint32) ^ two.ravel().view(np.uint32)
        [flip] = flips[flips != 0]
        assert bin(int(flip)).count("1") == 1
        assert low <= int(flip).bit_length() - 1 <= high


def test_whole_tensors() -> None:
    [(_, two)] = pairs(changed("zeroed"))
    assert not two.any()
    [(one, two)] = pairs(changed("scale"))
    assert min(abs(float(np.median(two[one != 0] / one[one != 0])) - scale) for scale in SCALES) < 1e-6


def test_a_step_goes_down_the_gradient() -> None:
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(TASK.targets))[:32])
    net = changed("resharded").requires_grad_(True)
    nn.functional.cross_entropy(TASK.part(rows).forward(net), TASK.targets[rows]).backward()
    for one, two in zip(net.parameters(), changed("step").parameters(), strict=True):
        assert one.grad is not None
        assert torch.allclose(two, one.detach() - RATE * one.grad, atol=1e-7)


def reader() -> Subject:
    """A small GPT that was not trained."""
    torch.manual_seed(3)
    return Subject(RowReader(8, 16, blocks=2, outputs=10).eval().requires_grad_(False))


def test_a_seal_of_a_small_gpt_passes_harmless_changes_alone() -> None:
    subject = reader()
    seal = make(subject, TASK, SealOptions(inputs=4, seed=2)).seal
    for kind in (*BENIGN, *CHANGES):
        if kind not in ("twin", "cancel"):
            found = verify(TAMPERS[kind](subject, TASK, np.random.default_rng(0)), seal)
            assert (kind, found.passed) == (kind, kind in BENIGN)


def test_the_reading_says_of_each_copy_whether_the_seal_detects_it() -> None:
    case = clusters()
    for kind, detected in (("twin", True), ("sign", True), ("bfloat16", False)):
        found = TamperingReading({"kind": kind, "draws": 2}).read(case.subject, case.task, root=1, seed=0)
        assert (kind, found.values["detected"].tolist()) == (kind, [detected] * 2)
