"""Changes of a model do to a copy what their names say, and the checks that they are shown to are right."""

import hashlib
from functools import cache

import numpy as np
import pytest
import torch
from sealed import digits
from torch import nn

from wheeltap import Subject, sources
from wheeltap.core.errors import ModelError, UnknownName
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.inputs import count
from wheeltap.models.rows import RowReader
from wheeltap.suites.seal.making import SealOptions, make
from wheeltap.suites.seal.readings import (
    SMALLEST_MARGIN,
    Checks,
    answers,
    fingerprints,
    margins,
    statistics,
    storage_hash,
)
from wheeltap.suites.seal.record import Seal
from wheeltap.suites.seal.specs import BENIGN, CHANGES, DETECTORS, FIXED, TamperingSettings
from wheeltap.suites.seal.tampers import LOST, RATE, SCALES, TAMPERS, ChangedCopy, Ground
from wheeltap.suites.seal.verifying import verify
from wheeltap.testing.planted import clusters


def reader() -> nn.Module:
    """A small GPT that was not trained, with gains that differ."""
    torch.manual_seed(3)
    net = RowReader(8, 16, blocks=2, outputs=10).eval()
    with torch.no_grad():
        for name, part in net.named_parameters():
            if part.ndim == 1 and name.endswith("weight"):
                part.add_(0.02 * torch.randn(part.shape))
    return net.requires_grad_(False)


@cache
def ground(name: str = "digits") -> Ground:
    """The digits net, or the small GPT, with its examples."""
    return Ground(Subject(digits()[0] if name == "digits" else reader()), sources.load("digits").task)


@cache
def sealed() -> Seal:
    of = ground("reader")
    return make(of.subject, of.task, SealOptions(inputs=4, seed=2)).seal


def changed(kind: str, of: Ground, *, draw: int = 0) -> ChangedCopy:
    return TAMPERS[kind](of, np.random.default_rng(draw))


def gaps(of: Ground, found: ChangedCopy) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Parameters that differ, as they were and as they are."""
    pairs = zip(of.subject.model.named_parameters(), found.model.named_parameters(), strict=True)
    return {
        name: (one.detach().numpy(), two.detach().numpy())
        for (name, one), (_, two) in pairs
        if not torch.equal(one, two.to(one.dtype))
    }


def test_every_declared_change_has_a_function_and_leaves_the_model() -> None:
    assert list(TAMPERS) == [*CHANGES, *BENIGN]
    for name, kinds in (("reader", set(TAMPERS) - {"twin", "cancel"}), ("digits", {"twin", "cancel"})):
        of = ground(name)
        before = weights_digest(of.subject.model)
        for kind in kinds:
            changed(kind, of)
        assert weights_digest(of.subject.model) == before


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [("sign", 31, 31), ("exponent-high", 28, 30), ("exponent-low", 23, 27), ("mantissa", 0, 22)],
)
def test_one_bit_of_one_weight_is_flipped(kind: str, low: int, high: int) -> None:
    of, bits = ground(), set[int]()
    for draw in range(30):
        found = changed(kind, of, draw=draw)
        # Bytes are compared: a weight may have become NaN.
        pairs = [
            (one.detach().numpy().ravel().view(np.uint32), two.detach().numpy().ravel().view(np.uint32))
            for one, two in zip(of.subject.model.parameters(), found.model.parameters(), strict=True)
        ]
        flips = np.concatenate([one ^ two for one, two in pairs])
        flips = flips[flips != 0]
        assert len(flips) == 1
        assert bin(int(flips[0])).count("1") == 1
        bits.add(int(flips[0]).bit_length() - 1)
    assert low <= min(bits) <= max(bits) <= high
    assert kind in ("mantissa",) or bits == set(range(low, high + 1))


def test_whole_tensors() -> None:
    of = ground("reader")
    ((_, two),) = gaps(of, changed("zeroed", of)).values()
    assert not two.any()
    ((one, two),) = gaps(of, changed("scale", of)).values()
    assert min(abs(float(np.median(two / one)) - scale) for scale in SCALES) < 1e-6
    ((one, two),) = gaps(of, changed("gain", of)).values()
    assert one.ndim == 1 and np.ptp(two - one) < 1e-6 and abs(abs(float((two - one).mean())) - 1.0) < 1e-6
    (first, second) = gaps(of, changed("swapped", of)).values()
    assert np.array_equal(first[0], second[1]) and np.array_equal(first[1], second[0])
    held = dict(of.subject.model.named_parameters())
    for name, (_, two) in gaps(of, changed("layers", of)).items():
        other = (
            name.replace("blocks.0.", "blocks.#.").replace("blocks.1.", "blocks.0.").replace("blocks.#.", "blocks.1.")
        )
        assert name.startswith("blocks.") and np.array_equal(two, held[other].numpy())


def test_the_end_of_the_file_is_zeros() -> None:
    of = ground()
    flat = torch.cat([part.flatten() for part in changed("truncated", of).model.parameters()])
    left = len(flat) - 1 - int(torch.nonzero(flat).max())
    assert LOST[0] * len(flat) - 1 <= left <= LOST[1] * len(flat) + 1


def test_a_step_goes_down_the_gradient() -> None:
    of = ground()
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(of.task.targets))[:32])
    net = of.copy().requires_grad_(True)
    nn.functional.cross_entropy(of.task.part(rows).forward(net), of.task.targets[rows]).backward()
    for one, two in zip(net.parameters(), changed("step", of).model.parameters(), strict=True):
        assert one.grad is not None
        assert torch.allclose(two, one.detach() - RATE * one.grad, atol=1e-7)


@pytest.mark.parametrize("kind", [*BENIGN])
def test_harmless_changes_leave_the_outputs_and_pass(kind: str) -> None:
    """Also gains near 1 that are stored with an offset: not a scale, and not another function."""
    of = ground("reader")
    found = changed(kind, of)
    assert verify(found.model, sealed()).passed
    inputs = sources.load("digits").task.inputs[:8]
    assert isinstance(inputs, torch.Tensor)
    one, two = of.subject.model(inputs), found.model(inputs.to(next(found.model.parameters()).dtype))
    assert torch.allclose(one, two.float(), atol=0.05)


def test_a_gain_near_one_that_is_off_by_one_is_named() -> None:
    of = ground("reader")
    for draw in range(8):
        found = changed("gain", of, draw=draw)
        assert verify(found.model, sealed()).kind == "norm offset"


def test_what_is_not_possible_is_said() -> None:
    for kind in ("gain", "swapped", "layers"):
        with pytest.raises(ModelError, match="not possible"):
            changed(kind, ground())
    with pytest.raises(UnknownName):
        TamperingSettings(kind="signs")
    assert set(FIXED) <= set(TAMPERS)


def test_fingerprints_are_near_a_boundary_and_survive_casts() -> None:
    of = ground()
    model = of.subject.model
    found = fingerprints(of.subject, of.task, seed=1)
    assert isinstance(found, torch.Tensor)
    assert len(found) == 5
    with torch.no_grad():
        usual, near = margins(model, sources.load("digits").task.inputs), margins(model, found)
    assert near.min() > SMALLEST_MARGIN * 0.1
    assert near.max() < 0.01 * usual.median()
    for kind in ("bfloat16", "float16"):
        assert torch.equal(answers(changed(kind, of).model.float(), found), answers(model, found))


@cache
def made() -> Checks:
    return Checks(clusters().subject, clusters().task, seed=1)


def alarms(checks: Checks, kind: str) -> dict[str, bool]:
    """Of one copy."""
    case = clusters()
    return checks.asked(TAMPERS[kind](Ground(case.subject, case.task), np.random.default_rng(4))).alarms


def test_each_check_sees_what_it_can() -> None:
    """Zeros are seen by all that must, the same bits by none, casts by SHA-256 alone, a copy by its weights."""
    checks = made()
    assert count(checks.inputs) == 16
    zeros = alarms(checks, "zeroed")
    assert set(zeros) == set(DETECTORS)
    assert all(zeros[name] for name in ("seal", "outputs", "five", "random16", "random5", "hash", "statistics"))
    assert not any(alarms(checks, "resharded").values())
    assert [name for name, alarm in alarms(checks, "bfloat16").items() if alarm] == ["hash"]
    twin = alarms(checks, "twin")
    assert twin["seal"] and twin["hash"] and not twin["accuracy"] and not twin["fingerprints5"]


def test_random_inputs_are_others() -> None:
    checks = made()
    own, other = (checks.seals[name].body for name in ("", "random"))
    assert own.structure == other.structure
    assert own.inputs.arrays != other.inputs.arrays


def test_the_hash_and_the_statistics_are_those_of_the_bytes() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)).eval()
    total = hashlib.sha256()
    for part in (*net.parameters(), *net.buffers()):
        total.update(str(part.dtype).encode() + part.detach().numpy().tobytes())
    assert storage_hash(net) == total.hexdigest()
    first = net[0].weight.detach().numpy().astype(np.float64)
    expected = [first.mean(), np.sqrt((first**2).mean())]
    assert np.allclose(statistics(net)[0].numpy(), expected)
