"""How what a language model says next changes over its vocabulary, against a loop in double precision."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.typed import to_array
from wheeltap.engine.next_tokens import NextTokens

VOCABULARY, ITEMS = 40, 60


class Chain(nn.Module):
    """Says what comes next from the last two tokens."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.embed, self.head = nn.Embedding(VOCABULARY, 16), nn.Linear(16, VOCABULARY)
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        self.mix = nn.Linear(16, 16, bias=False)
        self.mix.weight.data = torch.randn(16, 16, generator=generator) / 4

    def forward(self, ids: Tensor) -> Tensor:
        held = self.embed(ids)
        return self.head((self.mix(held) + held.roll(1, 1) * (torch.arange(ids.shape[1]) > 0)[:, None]).tanh())


def task_of(model: nn.Module) -> ChoiceTask:
    """Options of one and two tokens, of which the model's own answers are right; two items share a context."""
    rng = np.random.default_rng(1)
    contexts = [[int(one) for one in row] for row in rng.integers(0, VOCABULARY, (ITEMS, 3))]
    contexts[1] = contexts[0]
    choices = [[[int(one) for one in part] for part in rng.integers(0, VOCABULARY, (2, 1 + at % 2))]
               for at in range(ITEMS)]  # fmt: skip
    right = ChoiceTask(contexts, choices, [0] * ITEMS).scores(model).argmax(1)
    return ChoiceTask(contexts, choices, right.tolist(), name="own answers")


def places(task: ChoiceTask) -> list[tuple[int, ...]]:
    read = [c + o[:k] for c, options in zip(task.contexts, task.choices, strict=True) for o in options
            for k in range(len(o))]  # fmt: skip
    return list(dict.fromkeys(read))


def by_loop(clean: nn.Module, other: nn.Module, task: ChoiceTask) -> tuple[list[float], list[float]]:
    """Divergence at each place, and whether the likeliest token is the same."""
    divergences, same = list[float](), list[float]()
    for place in places(task):
        p, q = (to_array(model(torch.tensor([place]))[0, -1].detach().double()) for model in (clean, other))
        p, q = (np.exp(one - one.max()) / np.exp(one - one.max()).sum() for one in (p, q))
        divergences.append(sum(a * float(np.log(a / b)) for a, b in zip(p, q, strict=True)))
        same.append(float(p.argmax() == q.argmax()))
    return divergences, same


def rounded() -> nn.Module:
    """The net as ``int4`` makes it: one grid for each row, and embeddings and head as they were."""
    made = Chain().eval()
    weight = made.mix.weight.data
    step = weight.abs().amax(1, keepdim=True) / 7
    made.mix.weight.data = (weight / step).round() * step
    return made


def test_a_row_says_how_next_tokens_change_of_schemes_and_of_files() -> None:
    model = Chain().eval()
    task = task_of(model)
    report: Any = wt.audit(model, task, schemes=["int4", "noise5", rounded])
    divergences, same = by_loop(model, rounded(), task)
    for scheme in ("int4", "rounded"):
        row = next(found for found in report.findings if found.scheme.endswith(scheme))
        known = {one.name: one for one in row.estimates}
        assert known["same top token"].value == pytest.approx(np.mean(same), abs=1e-6)
        assert known["mean KL divergence per token"].value == pytest.approx(np.mean(divergences), abs=1e-6)
        assert known["99 % KL divergence per token"].value == pytest.approx(np.quantile(divergences, 0.99), abs=1e-6)
        mean = known["mean KL divergence per token"]
        assert mean.n == len(divergences) and mean.low < mean.value < mean.high and "groups" in mean.method
    noise = next(found for found in report.findings if found.scheme == "noise5")
    assert not any("token" in one.name for one in noise.estimates)  # draws are not compared


def test_where_all_do_not_fit_evenly_spaced_places_are_compared() -> None:
    model, other = Chain().eval(), rounded()
    task = task_of(model)
    few = NextTokens(task, memory=8 * 4 * VOCABULARY * 20)
    few.clean("model", lambda: task.scores(model))
    scores, values = few.compared(lambda: task.scores(other))
    every, same = by_loop(model, other, task)
    chosen = [at * len(every) // 20 for at in range(20)]
    assert torch.equal(scores, task.scores(other)) and task.watch is None
    assert np.allclose(values["token_kl"], [every[at] for at in chosen], rtol=0.0, atol=1e-6)
    assert values["token_top"].tolist() == [bool(same[at]) for at in chosen]
    assert int(values["tokens"]) == len(every) > 20
    items = [task.contexts[at] + option for at in values["token_item"] for option in [()]]
    assert all(places(task)[at][:3] == item for at, item in zip(chosen, items, strict=True))


def test_the_same_model_has_no_divergence_and_one_that_gives_no_numbers_none_is_said_of() -> None:
    model = Chain().eval()
    task = task_of(model)
    known = NextTokens(task)
    known.clean("model", lambda: task.scores(model))
    same = known.compared(lambda: task.scores(model))[1]
    assert not same["token_kl"].any() and same["token_top"].all()
    broken = Chain().eval()
    broken.head.bias.data[0] = torch.nan
    assert known.compared(lambda: broken(torch.zeros(1, 3, dtype=torch.long)))[1] == {}
