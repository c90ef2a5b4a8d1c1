"""The digits, their split, and nets that come out the same to the bit."""

import os
import subprocess
import sys

import pytest
import torch

from wheeltap.core import seeds
from wheeltap.core.errors import DataError, UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.models.mlp import mlp
from wheeltap.recipes.make import FOLDER
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import TrainSettings, train_classifier
from wheeltap.sources import digits


def test_the_split_is_stratified_and_shares_no_image() -> None:
    data = digits.split()
    assert (len(data.train_inputs), len(data.test_inputs)) == (1198, 599)
    everything = torch.cat([data.train_targets, data.test_targets])
    share = torch.bincount(data.test_targets) / torch.bincount(everything)
    assert torch.all((share - 1 / 3).abs() < 0.01)
    assert digits.task().tokens == 1797
    assert float(data.train_inputs.min()) == 0.0 and float(data.train_inputs.max()) == 1.0


@pytest.mark.release
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


def test_the_factors_say_what_they_should() -> None:
    task = digits.task()
    known = task.annotations.factors
    assert set(known) == {"even", "left_heavy", "much_ink"}
    assert torch.equal(known["even"] == 1, task.targets % 2 == 0)
    images = task.inputs.reshape(-1, 8, 8).double()
    assert torch.equal(known["left_heavy"] == 1, images[:, :, :4].sum((1, 2)) > images[:, :, 4:].sum((1, 2)))
    assert 0.4 < float(known["much_ink"].double().mean()) < 0.6


def test_nets_that_cannot_be_made_or_trained_are_refused() -> None:
    with pytest.raises(UsageError):
        mlp((3, 0, 2))
    for examples, targets in ((0, 0), (3, 2)):
        with pytest.raises(DataError):
            train_classifier(
                mlp((2, 2)), torch.zeros(examples, 2), targets=torch.zeros(targets).long(), settings=TrainSettings()
            )
