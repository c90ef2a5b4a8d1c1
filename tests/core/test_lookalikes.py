"""Examples of one template, prefix or passage are seen to be groups; those of one form, or of none, are not."""

import random
from itertools import chain

import numpy as np
import pytest
import torch

import wheeltap as wt
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.repeats import Words, lookalikes, sizes_of, words_of

VOCABULARY = [f"w{at}" for at in range(4000)]
FREQUENCIES = [1.0 / (1 + at) for at in range(4000)]
GROUPS, EACH = 8, 12
SAID = f"{GROUPS} groups of {EACH} that share a template, prefix or passage"


def text(rng: random.Random, length: int) -> list[str]:
    """Words as often as in a language: the first ones nearly everywhere."""
    return rng.choices(VOCABULARY, FREQUENCIES, k=length)


def filled(rng: random.Random, template: list[str]) -> list[str]:
    """The template with two words of its own."""
    return [*template[:4], rng.choice(VOCABULARY), *template[5:8], rng.choice(VOCABULARY), *template[9:]]


def of(kind: str, rng: random.Random) -> list[list[str]]:
    bases = [text(rng, 14 if kind == "template" else 60) for _ in range(GROUPS)]
    several = chain.from_iterable([base] * EACH for base in bases)
    if kind == "template":
        return [filled(rng, base) for base in several]
    return [[*base, *text(rng, 12)] for base in several]


def numbered(texts: list[list[str]]) -> list[Words]:
    return [words_of(" ".join(words)) for words in texts]


@pytest.mark.parametrize(("kind", "instruction"), [("template", 0), ("passage", 40)])
def test_groups_are_found_also_behind_an_instruction(kind: str, instruction: int) -> None:
    rng = random.Random(3)
    before = text(rng, instruction)
    found = lookalikes(numbered([[*before, *words] for words in of(kind, rng)]))
    assert found is not None
    assert np.array_equal(found, np.repeat(np.arange(GROUPS), EACH))
    assert sizes_of(found) == f"{GROUPS} groups of {EACH}"


def test_what_is_no_group() -> None:
    rng, numbers = random.Random(4), np.random.default_rng(4)
    names, places = text(rng, 6), text(rng, 4)
    one_form = [["when", rng.choice(names), "and", rng.choice(names), "went", "to", "the", rng.choice(places), "then",
                 rng.choice(names), "gave", "it", "to"] for _ in range(200)]  # fmt: skip
    instruction, template = text(rng, 80), text(rng, 12)
    for texts in (
        [text(rng, 25) for _ in range(300)],
        [[*instruction, *text(rng, 15)] for _ in range(300)],
        [filled(rng, template) for _ in range(300)],
        one_form,
        [["same"]] * 5,
    ):
        assert lookalikes(numbered(texts)) is None
    for symbols, length in ((2, 12), (50, 24)):
        rows = torch.tensor(numbers.integers(symbols, size=(400, length)))
        assert wt.Task(rows, torch.zeros(400).long()).once().clusters is None


def test_a_task_counts_them_as_groups_and_not_as_behaviors() -> None:
    numbers = np.random.default_rng(5)
    prefixes = np.repeat(numbers.integers(60, size=(GROUPS, 14)), EACH, axis=0)
    rows = torch.tensor(np.concatenate([prefixes, numbers.integers(60, size=(GROUPS * EACH, 8))], axis=1))
    task = wt.Task(rows, torch.arange(len(rows)) % 3)
    found = task.once()
    assert task.clusters is None and found.clusters is not None
    assert np.array_equal(found.clusters.numpy(), np.repeat(np.arange(GROUPS), EACH))
    assert found.record.found == SAID and found.digest != task.digest
    assert found.once().digest == found.digest
    assert torch.equal(found.behaviors, task.targets)
    assert found.part(torch.arange(24)).annotations.found
    # Whoever says that each is a group of its own is believed.
    alone = task.with_groups(range(len(rows))).once()
    assert alone.clusters is None and alone.record.found is None
    named = {"input_ids": rows, "attention_mask": torch.ones_like(rows)}
    assert wt.Task(named, task.targets).once().record.found == SAID
    assert wt.Task(rows.float(), task.targets).once().clusters is None
    options = [[[1], [2], [3]]] * len(rows)
    choices = ChoiceTask(rows.tolist(), options, task.targets.tolist()).once()
    assert choices.record.found == SAID


def test_halves_divide_no_group() -> None:
    numbers = torch.arange(40.0)[:, None]
    task = wt.Task(numbers, torch.arange(40) % 2)
    groups = torch.arange(40) // 4
    first, second = task.with_groups(groups).halves(np.random.default_rng(0))
    assert len(first) == len(second) == 20
    assert not set(groups[first].tolist()) & set(groups[second].tolist())
    # Of one group alone the examples are divided.
    parts = task.with_groups(groups).halves(np.random.default_rng(0), np.arange(4))
    assert sorted(torch.cat(parts).tolist()) == [0, 1, 2, 3] and len(parts[0]) == 2
    assert sorted(torch.cat(task.halves(np.random.default_rng(0))).tolist()) == list(range(40))
