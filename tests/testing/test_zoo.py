"""The zoo: every member knows its lesson, is the same bits for the same seed, and is disturbed nearly everywhere.

Re-codings by hand are the same functions, and no noise tells them from the nets that they were made of.
"""

import pytest
import torch
from msgspec import structs

from benchmarks.families import recoding
from benchmarks.families_recoded import recoded
from tests.nets import zoo
from tests.nets.zoo.member import WRONG, sums
from wheeltap import gauge
from wheeltap.core.errors import UnknownName
from wheeltap.core.typed import to_array
from wheeltap.recipes.train import train_classifier
from wheeltap.testing.planted import PlantedCase

COVERED = 0.95
"""Least share of the weights that disturbances touch."""

EXACT = 1e-5
"""Largest difference of a score, in units of the logit scale."""


def accuracy(case: PlantedCase) -> float:
    return float((case.task.scores(case.subject.model).argmax(1) == case.task.targets).float().mean())


@pytest.mark.parametrize("name", ["gru", "vit", pytest.param("gpt2", marks=pytest.mark.release)])
def test_a_member_knows_its_lesson_and_is_disturbed_nearly_everywhere(name: str) -> None:
    case = zoo.made(name)
    record = case.subject.record
    assert accuracy(case) >= zoo.MEMBERS[name].least, accuracy(case)
    assert 3_000 <= record.parameters <= 60_000
    assert record.covered / record.parameters >= COVERED, record.untouched
    assert len(case.task.targets) >= 200
    assert case.task.tokens >= 1.5 * max(layer.fan_in for layer in case.subject.layers if layer.kind != "embedding")


@pytest.mark.parametrize("name", ["gru", "vit", pytest.param("gpt2", marks=pytest.mark.release)])
def test_a_recoded_member_computes_the_same_with_other_weights(name: str) -> None:
    case = zoo.made(name)
    with zoo.quiet():
        twin = recoded(name, case.subject.model, seed=1)
        alike = gauge.check(to_array(case.task.scores(case.subject.model)), to_array(case.task.scores(twin)))
    assert alike.difference <= EXACT and alike.agreement == 1.0
    before, after = case.subject.model.state_dict(), twin.state_dict()
    moved = sum(before[path].numel() for path in before if not torch.equal(before[path], after[path]))
    assert moved >= 0.5 * sum(value.numel() for value in before.values())


def test_neither_noise_tells_a_recoded_net_from_the_one_it_was_made_of() -> None:
    for row in recoding(("mlp",), 2):
        assert row["WT101"] != "found" and row["WT102"] != "found", row


def test_a_copy_in_sixteen_bits_knows_it_too() -> None:
    case = zoo.made("mlp", dtype=torch.bfloat16)
    assert {p.dtype for p in case.subject.model.parameters()} == {torch.bfloat16}
    assert accuracy(case) >= zoo.MEMBERS["mlp"].least - 0.1


def test_training_gives_the_bits_that_are_kept() -> None:
    member = zoo.MEMBERS["mlp"]
    with zoo.quiet():
        model, (inputs, targets) = member.untrained(0), member.lesson.examples(0)
        classifier = member.lesson.as_classifier(model)
        train_classifier(classifier, inputs, targets=targets, settings=structs.replace(member.training, seed=0))
    anew = model.state_dict()
    held = zoo.made("mlp").subject.model.state_dict()
    assert list(anew) == list(held)
    assert all(torch.equal(anew[path], held[path]) for path in anew)


def test_another_seed_is_another_net_and_each_call_gives_a_net_of_its_own() -> None:
    one, other, again = zoo.made("mlp"), zoo.made("mlp", seed=1), zoo.made("mlp")
    assert one.subject.record.fingerprint == again.subject.record.fingerprint != other.subject.record.fingerprint
    with torch.no_grad():
        next(one.subject.model.parameters()).zero_()
    assert again.subject.model.state_dict()["0.weight"].abs().sum() > 0
    assert zoo.made("mlp").subject.record.fingerprint == again.subject.record.fingerprint
    with pytest.raises(UnknownName):
        zoo.made("alexnet")


def test_the_sum_asked_for_is_that_of_the_two_numbers() -> None:
    tokens, answers = sums(2_000, seed=3)
    first = torch.where((tokens >= 2) & (tokens < 6), tokens - 2, 0).sum(1)
    second = torch.where((tokens >= 6) & (tokens < 10), tokens - 6, 0).sum(1)
    right = ((first + second) % 4 == answers).float().mean()
    # A quarter of the drawn answers is right by chance.
    assert float(right) == pytest.approx(1 - 0.75 * WRONG, abs=0.02)
