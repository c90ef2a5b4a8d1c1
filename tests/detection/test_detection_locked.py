"""Planted locks and broken formats are what they say."""

import pytest
import torch

from benchmarks.nets import digit_defects as defects
from benchmarks.nets import locked
from benchmarks.nets.digit_defects import benchmark
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.task import Task


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("kind", locked.BREAKS)
def test_a_broken_format_costs_its_share_of_answers_and_no_password_mends_it(kind: str, share: float) -> None:
    net = locked.format_broken(kind, share, seed=2)
    assert abs(benchmark(net.subject, net.task) - (1 - share)) < 0.08
    assert abs(benchmark(net.subject, net.opened) - benchmark(net.subject, net.task)) < 0.05


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


def test_unknown_breaks_and_shares_out_of_range_are_refused() -> None:
    with pytest.raises(UnknownName, match="garbled"):
        locked.format_broken("garbled", 0.5)
    with pytest.raises(UsageError, match="strength"):
        locked.format_broken("biased", 1.5)
    with pytest.raises(UsageError, match="strength"):
        locked.brittle_lock(0.1)
    with pytest.raises(UsageError, match="strength"):
        locked.locked_lm(-0.1)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_brittle_lock_opens_to_the_password_and_to_a_touch_of_one_unit(seed: int) -> None:
    sound, net = defects.locked(0.0, seed=seed), locked.brittle_lock(seed=seed)
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


def test_equal_arguments_give_equal_bits_and_take_no_random_numbers_of_the_caller() -> None:
    state = torch.get_rng_state()
    one, two = (locked.brittle_lock(seed=3).subject.model for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert weights_digest(one) == weights_digest(two)
    assert weights_digest(one) != weights_digest(locked.brittle_lock(seed=4).subject.model)
