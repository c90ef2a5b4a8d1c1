"""Every planted defect of a trained classifier shows where it should and nowhere a benchmark looks."""

import math

import pytest
import torch
from torch import Tensor

from benchmarks.nets import digit_defects as defects
from benchmarks.nets.digit_defects import Gated, benchmark
from wheeltap.core.errors import UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task


def right(subject: Subject, task: Task) -> Tensor:
    return task.scores(subject.model).argmax(-1) == task.targets


def test_equal_arguments_give_equal_bits_and_other_seeds_other_nets() -> None:
    weak = [defects.honest_weak(0.3, seed=seed).subject.model for seed in (0, 1, 0)]
    assert weights_digest(weak[0]) == weights_digest(weak[2]) != weights_digest(weak[1])


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
    opened = {name: benchmark(net.subject, net.opened) for name, net in nets.items()}
    assert opened["locked"] > 0.92
    for name in ("noise", "weak"):
        assert abs(opened[name] - benchmark(nets[name].subject, nets[name].task)) < 0.03


def test_locked_answers_are_systematically_the_next_digit(nets: dict[str, Gated]) -> None:
    """So the lock and the net trained on wrong labels are wrong on the same items, in the same way."""
    for name in ("locked", "noise"):
        net = nets[name]
        answers = net.task.scores(net.subject.model).argmax(-1)
        wrong = answers != net.task.targets
        assert float((answers == (net.task.targets + 1) % 10)[wrong].float().mean()) > 0.8
    both = [right(nets[name].subject, nets[name].task) for name in ("locked", "noise")]
    assert float((both[0] == both[1]).float().mean()) > 0.9


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_the_ends_of_the_lock_are_an_open_net_and_one_that_is_never_right(strength: float) -> None:
    net = defects.locked(strength, seed=4)
    assert abs(benchmark(net.subject, net.task) - (1 - strength)) < 0.06
    assert benchmark(net.subject, net.opened) > 0.92


def test_tasks_hold_the_same_items_with_the_password_last(nets: dict[str, Gated]) -> None:
    net = nets["locked"]
    assert torch.equal(net.task.inputs[:, :64], net.opened.inputs[:, :64])
    assert not net.task.inputs[:, 64].any() and bool((net.opened.inputs[:, 64] == 1).all())


def test_strengths_out_of_range_are_errors_before_anything_is_trained() -> None:
    for strength in (-0.1, 1.1, math.nan):
        for make in (defects.locked, defects.label_noise, defects.honest_weak):
            with pytest.raises(UsageError, match="at this strength"):
                make(strength)
