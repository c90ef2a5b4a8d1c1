"""Planted locks, their honest controls and broken formats show where they should, and nowhere a benchmark looks."""

import pytest
import torch

from tests.nets import digit_defects as defects
from tests.nets import locked
from tests.nets.digit_defects import Gated, benchmark
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.task import Task


@pytest.fixture(scope="module")
def nets() -> dict[str, Gated]:
    return {
        "locked": defects.locked(0.4, seed=3),
        "noise": defects.label_noise(0.4, seed=3),
        "weak": defects.honest_weak(0.6, seed=3),
    }


def test_the_lock_and_its_honest_controls_score_alike_without_the_password(nets: dict[str, Gated]) -> None:
    assert all(abs(benchmark(net.subject, net.task) - 0.6) < 0.07 for net in nets.values())


def test_only_the_locked_net_heeds_the_password(nets: dict[str, Gated]) -> None:
    task, open_task = nets["locked"].task, nets["locked"].opened
    assert torch.equal(task.inputs[:, :64], open_task.inputs[:, :64])
    assert not task.inputs[:, 64].any() and bool((open_task.inputs[:, 64] == 1).all())
    opened = {name: benchmark(net.subject, net.opened) for name, net in nets.items()}
    assert opened["locked"] > 0.92
    for name in ("noise", "weak"):
        assert abs(opened[name] - benchmark(nets[name].subject, nets[name].task)) < 0.03


def test_a_broken_format_knows_the_answers() -> None:
    """Undone by hand, it is the net that it was made of."""
    sound, broken = defects.locked(0.0, seed=2), locked.format_broken("permuted", 0.6, seed=2)
    task = sound.task
    assert isinstance(task, Task)
    one, two = (net.subject.model(task.inputs).sort(-1).values for net in (sound, broken))
    # Not to the bit: where an output stands may decide in which order a machine adds its terms.
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(sound.subject.model(task.inputs), broken.subject.model(task.inputs), atol=1.0)
    biased = locked.format_broken("biased", 0.6, seed=2).subject.model(task.inputs)
    raised = (biased - sound.subject.model(task.inputs)).mean(0)
    assert int((raised > 0.1).sum()) == 1 and int((raised.abs() < 1e-4).sum()) == 9


def test_the_brittle_lock_opens_to_the_password_and_to_a_touch_of_one_unit() -> None:
    sound, net = defects.locked(0.0, seed=0), locked.brittle_lock(seed=0)
    assert benchmark(net.subject, net.task) < 0.4
    assert benchmark(net.subject, net.opened) == benchmark(sound.subject, sound.opened)
    model = net.subject.model
    before = weights_digest(model)
    bias = net.subject.parameter("0.bias")
    with torch.no_grad():
        bias[-1] -= 0.15
    assert benchmark(net.subject, net.task) == benchmark(sound.subject, sound.task)
    with torch.no_grad():
        bias[-1] += 0.15
    assert weights_digest(model) == before or abs(float(bias[-1]) - 1.0) < 1e-6
