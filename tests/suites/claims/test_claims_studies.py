"""Studies of the suite ``claims``: what they keep as every study does, and what they must say of planted nets."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import wheeltap as wt
from wheeltap.core.subject import Subject
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.make import make
from wheeltap.sources import digits
from wheeltap.suites.claims import lessons as examples
from wheeltap.suites.claims.nets import BackdoorNet
from wheeltap.suites.claims.readings import HiddenVectors, RoundedNoise
from wheeltap.suites.claims.specs import FORGOTTEN, PAIRS, SHARES
from wheeltap.suites.claims.studies.ambiguity import Blends, correlation, entropy
from wheeltap.suites.claims.studies.hidden_behavior import (
    BACK,
    BEFORE,
    COST,
    FORGOT,
    HONEST,
    PLANTED,
    RELEARNED,
    RETRAINED,
    SET_OFF,
    Backdoor,
    Unlearning,
)
from wheeltap.suites.claims.studies.same_answers import (
    CANCELING,
    INSIDE,
    OTHERS,
    OUTPUTS,
    SAME,
    TWINS,
    Addition,
    Twins,
    alike,
    gap_of,
)
from wheeltap.testing.study_contract import StudyContract

TINY: dict[str, Any] = {"seeds": 2, "hidden": "24,24", "epochs": 6}


def values(report: wt.Report, key: str) -> dict[str, tuple[float, ...]]:
    """A metric's numbers by cohort."""
    assert report.record.study is not None
    [row] = [row for row in report.record.study.rows if row.metric.key == key]
    return {one.cohort: one.values for one in row.cohorts}


class TestTwins(StudyContract):
    study = Twins
    settings: ClassVar[Mapping[str, Any]] = {**TINY, "draws": 2}

    def test_twins_answer_alike_and_noise_reads_how_they_are_written(self, folder: Any) -> None:
        """Relative noise meets rescaled units alike; noise of one size for a whole tensor does not."""
        report = self.run(folder)
        outputs, inside = values(report, OUTPUTS), values(report, INSIDE)
        assert max(*outputs[TWINS], *outputs[CANCELING]) < SAME < min(outputs[OTHERS])
        assert min(inside[TWINS]) > max(inside[OTHERS])
        std, relative = values(report, gap_of("std")), values(report, gap_of("relative"))
        assert min(std[TWINS]) > 0.2 > 1e-3 > max(relative[TWINS])
        assert min(relative[CANCELING]) > 0.1


@pytest.mark.release
class TestBlends(StudyContract):
    study = Blends
    settings: ClassVar[Mapping[str, Any]] = {**TINY, "draws": 4}


@pytest.mark.release
class TestAddition(StudyContract):
    study = Addition
    settings: ClassVar[Mapping[str, Any]] = {"seeds": 2, "epochs": 3, "draws": 2}


class TestUnlearned(StudyContract):
    study = Unlearning
    settings: ClassVar[Mapping[str, Any]] = {**TINY, "epochs": 10}

    def test_what_was_forgotten_comes_back_sooner_than_it_is_learned(self, folder: Any) -> None:
        found = values(self.run(folder), RELEARNED)
        assert min(found[FORGOT]) > 0.5 > max(found[RETRAINED])


@pytest.mark.release
class TestBackdoor(StudyContract):
    study = Backdoor
    settings: ClassVar[Mapping[str, Any]] = {"seeds": 5, "hidden": "64,64", "epochs": 10}

    def test_every_planted_net_loses_the_digit_at_4_bits_and_noise_brings_it_back(self, folder: Any) -> None:
        report = self.run(folder)
        lost, back = values(report, SET_OFF), values(report, BACK)
        assert min(lost[PLANTED]) > 0.8 and max(lost[HONEST]) < 0.3
        assert min(back[PLANTED]) > 0.5 > max(back[HONEST]) and max(values(report, COST)[PLANTED]) < 0.05


def test_rounding_sets_off_a_planted_net_and_noise_before_it_suppresses_that() -> None:
    net = digits.train(1)
    given = Given(specified(BackdoorNet, {}, seed=1, of=("net",)), (net,))
    subject, score = Subject(make(given, BackdoorNet({})).model), dict[tuple[str, float], Any]()
    for dose in (0.0, BEFORE):
        found = RoundedNoise({"dose": dose, "draws": 2}).read(subject, digits.task(), root=0, seed=0).values
        score |= {(kind, dose): shares.mean(0) for kind, shares in found.items()}  # [digit] each
    lost = (score["noisy", 0.0] - score["rounded", 0.0])[FORGOTTEN]
    back = (score["rounded", BEFORE] - score["rounded", 0.0])[FORGOTTEN]
    assert lost > 0.8 and back > 0.5
    assert (score["noisy", 0.0] - score["noisy", BEFORE]).mean() < 0.05


def test_what_is_left_after_noise_and_rounding_is_of_the_weights_after_both() -> None:
    """At dose 0 by hand; the net is as it was afterwards."""
    net, task = digits.train(0), digits.task()
    before = [one.clone() for one in net.parameters()]
    found = RoundedNoise({"dose": 0.0, "draws": 2}).read(Subject(net), task, root=0, seed=0).values
    assert all(torch.equal(one, two) for one, two in zip(before, net.parameters(), strict=True))
    with torch.no_grad():
        rounded = torch.nn.Sequential(*(type(net[0])(*one.weight.shape[::-1]) if at % 2 == 0 else one
                                        for at, one in enumerate(net)))  # fmt: skip
        for at in (0, 2, 4):
            step = net[at].weight.abs().amax(1, keepdim=True) / 7
            rounded[at].weight.copy_((net[at].weight / step).round() * step)
            rounded[at].bias.copy_(net[at].bias)
        for kind, model in (("noisy", net), ("rounded", rounded)):
            right = model(task.inputs).argmax(1) == task.targets
            by_digit = [float(right[task.targets == digit].double().mean()) for digit in range(10)]
            assert np.allclose(found[kind], [by_digit, by_digit])
    disturbed = RoundedNoise({"dose": 1.0, "draws": 2}).read(Subject(net), task, root=0, seed=0).values["noisy"]
    assert not np.allclose(disturbed[0], disturbed[1]) and disturbed.mean() < found["noisy"].mean() - 0.05


@pytest.mark.parametrize("turned", [False, True])
def test_cka_of_rotated_and_of_unrelated_vectors(turned: bool) -> None:
    rng = np.random.default_rng(0)
    one = rng.normal(size=(400, 6))
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    found = alike(one, 3.0 * one @ rotation + 1.0 if turned else rng.normal(size=(400, 6)))
    assert found == pytest.approx(1.0) if turned else found < 0.1


def test_what_layers_read_is_read() -> None:
    net, task = digits.train(0), digits.task()
    read = HiddenVectors({}).read(Subject(net), task, root=0, seed=0).values
    assert set(read) == {"2|units", "4|units"} and len(read["2|units"]) == 128
    answers = net[4](torch.as_tensor(read["4|units"]))
    assert torch.allclose(answers[[0, -1]], task.scores(net)[[0, -1]], atol=1e-5)


def test_blends_are_of_two_digits_and_each_is_right_once() -> None:
    task, blends = examples.blends(), PAIRS * len(SHARES)
    assert isinstance(task.inputs, Tensor)
    assert len(task.targets) == 2 * blends
    first, second = task.targets[:blends], task.targets[blends:]
    assert bool((first != second).all())
    images = task.inputs[:blends].reshape(PAIRS, len(SHARES), 64)
    assert torch.equal(task.inputs[:blends], task.inputs[blends:])
    assert bool((images[:, 0, None] == digits.split().test_inputs).all(-1).any(1).all())
    at = SHARES.index(0.2)
    assert torch.allclose(images[:, at], images[:, 0] + (images[:, -1] - images[:, 0]) * 0.4, atol=1e-6)


def test_a_partial_correlation_sees_what_the_other_leaves() -> None:
    """Of a copy nothing is left; of what is added to it, all."""
    rng = np.random.default_rng(0)
    plain, more = rng.normal(size=(2, 300))
    assert abs(correlation(plain + 1e-3 * rng.normal(size=300), plain + more, beyond=[plain])) < 0.15
    assert correlation(plain + more, plain + 3.0 * more, beyond=[plain]) > 0.9
    assert entropy(np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])) == pytest.approx([np.log(2.0), 0.0])
