"""The digits, their split, and nets that come out the same to the bit."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.models.mlp import mlp
from wheeltap.recipes.make import FOLDER
from wheeltap.recipes.train import TrainSettings, reproducible, train_classifier
from wheeltap.sources import digits


def answers(seed: int, dropout: float = 0.0) -> np.ndarray:
    task = digits.task()
    return (task.scores(digits.train(seed, dropout=dropout)).argmax(-1) == task.targets).numpy()


def test_the_split_is_stratified_and_shares_no_image() -> None:
    data = digits.split()
    assert (len(data.train_inputs), len(data.test_inputs)) == (1198, 599)
    everything = torch.cat([data.train_targets, data.test_targets])
    share = torch.bincount(data.test_targets) / torch.bincount(everything)
    assert torch.all((share - 1 / 3).abs() < 0.01)
    assert digits.task().tokens == 1797
    assert float(data.train_inputs.min()) == 0.0 and float(data.train_inputs.max()) == 1.0


def test_training_gives_the_same_bits_here_again_and_in_another_process_with_other_threads() -> None:
    here = weights_digest(digits.train(0))
    data = digits.split()
    with reproducible(seeds.derive(0, "digits", "init")):
        model = mlp((64, 128, 128, 10))
    settings = TrainSettings(seed=seeds.derive(0, "digits", "order"), epochs=40)
    train_classifier(model, data.train_inputs, targets=data.train_targets, settings=settings)
    assert weights_digest(model) == here
    code = (
        "import torch; torch.set_num_threads(2); torch.rand(7)\n"
        "from wheeltap.sources import digits; from wheeltap.core.fingerprint import weights_digest\n"
        "print(weights_digest(digits.train(0)))"
    )
    anew = {name: value for name, value in os.environ.items() if name != FOLDER}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=anew).stdout
    assert there.strip() == here


def test_seeds_and_dropout_make_different_nets() -> None:
    nets = [digits.train(0), digits.train(1), digits.train(0, dropout=digits.DROPOUT)]
    assert len({weights_digest(net) for net in nets}) == 3


def test_training_leaves_random_numbers_threads_and_grad_mode_as_they_were() -> None:
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with torch.no_grad():
        model = digits.train(3)
        assert not torch.is_grad_enabled()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)
    assert not model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


@pytest.mark.full
def test_original_other_seed_and_dropout_nets_are_equally_accurate() -> None:
    """The demo's premise: over five seeds the mean accuracies are equal within .01, and the demo's own three nets
    are not told apart by McNemar's test.
    """
    plain = [answers(seed) for seed in range(5)]
    dropped = [answers(seed, digits.DROPOUT) for seed in range(5)]
    means = [np.mean([a.mean() for a in group]) for group in (plain, dropped)]
    assert all(0.95 < mean < 0.99 for mean in means)
    assert abs(means[0] - means[1]) < 0.01
    for other in (plain[1], dropped[0]):
        discordant = int((plain[0] & ~other).sum()), int((~plain[0] & other).sum())
        assert stats.binomtest(discordant[0], sum(discordant)).pvalue > 0.05


def test_the_mlp_has_a_relu_between_layers_and_none_at_the_end() -> None:
    kinds = [type(module).__name__ for module in mlp((4, 5, 6, 2), dropout=0.5)]
    assert kinds == ["Linear", "ReLU", "Dropout", "Linear", "ReLU", "Dropout", "Linear"]
    assert [type(module).__name__ for module in mlp((4, 2))] == ["Linear"]


@pytest.mark.parametrize("widths", [(), (3,), (3, 0, 2)])
def test_a_net_without_widths_is_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="needs inputs and outputs"):
        mlp(widths)


def test_settings_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(UsageError, match="Dropout is a probability"):
        mlp((2, 2), dropout=1.0)
    with pytest.raises(UsageError, match="settings cannot be used"):
        TrainSettings(epochs=0)


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(DataError, match="nothing to train on"):
        train_classifier(mlp((2, 2)), torch.zeros(0, 2), targets=torch.zeros(0).long(), settings=TrainSettings())
    with pytest.raises(DataError, match="differ in number"):
        train_classifier(mlp((2, 2)), torch.zeros(3, 2), targets=torch.zeros(2).long(), settings=TrainSettings())
