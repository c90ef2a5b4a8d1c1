"""The input search against a plain loop over doses and draws, on inputs, on tokens and where nothing can be moved."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core import seeds
from wheeltap.core.task import Task
from wheeltap.engine.apply import verified_restoration
from wheeltap.engine.readings.input_search import InputSearch
from wheeltap.plans.readings.input_search import ENTRANCES, KINDS
from wheeltap.testing.planted import PlantedCase, clusters, planted

SMALL = {"passes": 12, "doses": 3}


def right(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    with torch.no_grad():
        return (model(inputs).argmax(-1) == targets).float()


@pytest.fixture(scope="module")
def case() -> PlantedCase:
    return clusters()


@pytest.mark.parametrize("batch", [512, 37])
def test_every_candidate_is_that_of_a_plain_loop(case: PlantedCase, batch: int) -> None:
    assert isinstance(case.task, Task)
    inputs, targets = case.task.inputs, case.task.targets
    task = Task(inputs, targets, batch=batch)
    with verified_restoration(case.subject):
        found = InputSearch(SMALL).read(case.subject, task, root=5, seed=2)
    rows: list[Tensor] = []
    spread = float(inputs.double().std(correction=0))
    for kind in KINDS:
        for draw in range(2):
            stream = torch.Generator().manual_seed(seeds.derive(5, "input-search", kind, 2, draw))
            along = torch.randn(inputs.shape[1:] if kind == "offset" else inputs.shape, generator=stream)
            rows += [
                right(case.subject.model, inputs + dose * spread * along, targets) for dose in (0.125, 0.5**0.5, 4.0)
            ]
    assert found.values["spread"] == pytest.approx(spread)
    assert found.values["kind"].tolist() == [0.0] * 6 + [1.0] * 6
    assert found.values["dose"] == pytest.approx([0.125, 0.5**0.5, 4.0] * 4)
    # An answer at a tie within rounding may fall either way.
    assert np.abs(found.values["right"] - torch.stack(rows).numpy()).mean() < 1e-3
    assert found.values["targets"].tolist() == targets.tolist()
    assert ENTRANCES[int(found.values["entrance"])] == "input"
    assert found.forwards == 13


def test_draws_follow_from_root_and_seed_alone_and_are_hardly_more_than_asked_for(case: PlantedCase) -> None:
    def read(root: int, seed: int, passes: int = 12, doses: int = 3) -> np.ndarray:
        search = InputSearch({"passes": passes, "doses": doses})
        return search.read(case.subject, case.task, root=root, seed=seed).values["right"]

    assert np.array_equal(read(0, 0), read(0, 0))
    assert not np.array_equal(read(0, 0), read(0, 1))
    assert not np.array_equal(read(0, 0), read(1, 0))
    for passes, doses in ((1, 1), (7, 3), (100, 8)):
        assert passes <= len(read(0, 0, passes, doses)) < passes + 2 * doses


def test_of_a_model_of_tokens_the_embedding_is_moved_by_offsets() -> None:
    case = planted("embedding")
    with verified_restoration(case.subject):
        found = InputSearch(SMALL).read(case.subject, case.task, root=0, seed=0)
    assert ENTRANCES[int(found.values["entrance"])] == "embedding"
    assert set(found.values["kind"].tolist()) == {0.0} and len(found.values["kind"]) == 12
    assert isinstance(case.task, Task)
    embed, head = case.subject.model.embed, case.subject.model.head
    ids, targets = case.task.inputs, case.task.targets
    spread = float(embed(ids).detach().double().std(correction=0))
    along = torch.randn(6, generator=torch.Generator().manual_seed(seeds.derive(0, "input-search", "offset", 0, 0)))
    with torch.no_grad():
        moved = head((embed(ids) + 4.0 * spread * along).mean(1)).argmax(-1) == targets
    assert np.array_equal(found.values["right"][2], moved.float().numpy())


class _Lookup(nn.Linear):
    """Tokens to scores by a table that is no embedding: nothing continuous enters."""

    def forward(self, ids: Tensor) -> Tensor:
        return super().forward(nn.functional.one_hot(ids, 5).float())


def test_where_nothing_can_be_moved_the_targets_are_told_and_no_more() -> None:
    task = Task(torch.arange(30) % 5, torch.arange(30) % 3)
    found = InputSearch(SMALL).read(wt.Subject(_Lookup(5, 3).eval()), task, root=0, seed=0)
    assert set(found.values) == {"targets", "entrance"} and found.forwards == 1
    assert ENTRANCES[int(found.values["entrance"])] == "none"
