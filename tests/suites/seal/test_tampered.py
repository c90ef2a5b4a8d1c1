"""The checks that tampered copies are shown to, against plain ones written here."""

import hashlib
from functools import cache

import numpy as np
import torch

from wheeltap.core.inputs import count
from wheeltap.suites.seal.readings import Checks, statistics, storage_hash
from wheeltap.suites.seal.specs import DETECTORS
from wheeltap.suites.seal.tampers import TAMPERS, Ground
from wheeltap.testing.planted import clusters


@cache
def made() -> Checks:
    """Of the planted net."""
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
