"""What a layer holds of each example: read, changed and differentiated; and the reading that is made of it."""

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.nets.decodable import UNUSED, USED, Design, constructed
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import DataError, ModelError, UnknownName
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.records import OWN
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.engine.places import Place, apart, changed, distinct, places, read, slopes
from wheeltap.models.mlp import mlp
from wheeltap.sources import hf
from wheeltap.suites.decodable.readings import Decodable
from wheeltap.suites.decodable.specs import STATUSES
from wheeltap.testing import planted

CONTEXTS = ((1, 2, 3), (1, 2, 3, 4, 5), (6, 7), (1, 2, 3), (8, 9, 4, 2, 1))


@pytest.fixture(scope="module")
def llama() -> Subject:
    if importlib.util.find_spec("transformers") is None:
        pytest.skip("needs the extra llm")
    transformers: Any = hf.library(needed_for="tests")
    config = transformers.LlamaConfig(
        vocab_size=16, hidden_size=16, intermediate_size=24, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=32, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Subject(transformers.LlamaForCausalLM(config).eval(), name="llama")


def made(**changes: Any) -> ChoiceTask:
    choices = [[(10,), (11,)]] * len(CONTEXTS)
    return ChoiceTask(CONTEXTS, changes.pop("choices", choices), [0, 1, 0, 1, 0], **changes)


def hidden(model: nn.Module, context: tuple[int, ...], block: int) -> Tensor:
    with torch.no_grad():
        got: Any = model(torch.tensor([context]), output_hidden_states=True)
    return got.hidden_states[block + 1][0, -1].double()


def test_blocks_are_read_at_the_end_of_each_context(llama: Subject) -> None:
    where = places(llama, made())
    assert (where.kind, [place.name for place in where.all]) == ("blocks", [f"model.layers.{at}" for at in range(3)])
    held, scores = read(llama, made(), where)
    assert torch.equal(scores, made().scores(llama.model))
    for at, context in enumerate(CONTEXTS):
        assert torch.allclose(held[where.all[0]][at], hidden(llama.model, context, 0), atol=1e-5)
        assert torch.allclose(held[where.all[1]][at], hidden(llama.model, context, 1), atol=1e-5)


@pytest.mark.parametrize("choices", [[[(10,), (11,)]] * 5, [[(10, 3), (11, 2)]] * 5])
def test_a_change_of_one_items_vector_moves_its_scores_alone(llama: Subject, choices: Any) -> None:
    task = made(choices=choices)
    where, clean = places(llama, task), task.scores(llama.model)

    def push(values: Tensor, examples: Tensor) -> Tensor:
        return values + 5.0 * (examples == 4).to(values)[:, None]

    with changed(llama, task, [(where.all[1], push)]):
        moved = (task.scores(llama.model) - clean).abs().sum(1)
    assert moved[4] > 1e-3
    assert float(moved[:4].max()) < 1e-5
    assert torch.equal(task.scores(llama.model), clean), "the hooks are gone"


def test_contexts_that_others_begin_with_are_left_out() -> None:
    # Items 0 and 3 share a context: whatever is done to one is done to the other alike.
    assert apart(made()).tolist() == [1, 2, 4]
    assert distinct(made()).tolist() == [0, 1, 2, 0, 3]
    rows = Task(torch.tensor([[1.0], [2.0], [1.0]]), torch.tensor([0, 1, 0]))
    assert apart(rows).tolist() == [0, 1, 2]
    assert len(distinct(rows).unique()) == 2


def test_slopes_are_the_change_of_the_loss_to_first_order(llama: Subject) -> None:
    task = made()
    where, target = places(llama, task), torch.zeros(5, dtype=torch.long)
    found = slopes(llama, task, where.all, target)
    along = planted.numbers(5, 16, seed=4)

    def loss(step: float) -> Tensor:
        def push(values: Tensor, examples: Tensor) -> Tensor:
            return values + step * along[examples].to(values)

        with torch.no_grad(), changed(llama, task, [(where.all[1], push)]):
            return -task.scores(llama.model)[:, 0].double()

    steps = (loss(5e-4) - loss(-5e-4)) / 1e-3
    mine = (found[where.all[1]] * along).sum(1)
    own = [2, 4]  # the others share a position
    assert torch.allclose(mine[own], steps[own], rtol=5e-3)


def test_hidden_layers_are_what_their_readers_take_in() -> None:
    model = mlp((6, 12, 8, 3)).eval()
    subject, task = (
        Subject(model, name="mlp"),
        Task(planted.numbers(50, 6, seed=1).float(), torch.arange(50) % 3, batch=7),
    )
    where = places(subject, task)
    held, _ = read(subject, task, where)
    with torch.no_grad():
        wanted = model[:2](task.inputs).double()
    assert [held[place].shape[1] for place in where.all] == [12, 8]
    assert torch.allclose(held[where.all[0]], wanted)
    loss = slopes(subject, task, where.all, task.targets)
    inner = wanted.float().requires_grad_()
    torch.nn.functional.cross_entropy(model[2:](inner), task.targets, reduction="sum").backward()
    assert inner.grad is not None
    assert torch.allclose(loss[where.all[0]], inner.grad.double(), atol=1e-6)


def test_some_layers_are_evenly_spaced() -> None:
    case = planted.planted("mlp")
    where = places(case.subject, case.task, "0, 2,4,2")
    assert [place.name for place in where.all] == ["0", "2", "4"] and where.kind == "named"
    assert [place.name for place in where.some(1).all] == ["2"] and where.some(3) == where
    assert where.without([Place("2", "2")]).index == (0, 2)


def read_of(task: Any, subject: Subject, **settings: Any) -> dict[str, Any]:
    return Decodable(settings).read(subject, task, root=0, seed=0).values


def test_the_reading_tells_what_was_built() -> None:
    case = constructed(seed=3)
    before = weights_digest(case.subject.model)
    values = read_of(case.task, case.subject)
    assert weights_digest(case.subject.model) == before
    assert all(np.isfinite(array).all() for array in values.values())
    for name in (USED, UNUSED):
        assert values[f"{name}|correct"].mean() > 0.8
        assert values[f"{name}|control"].mean() == pytest.approx(0.5, abs=0.05)
        assert values[f"{name}|left"].mean() < 0.7
    steepest = values[f"{USED}|steepest"].mean()
    assert values[f"{USED}|erased"].mean() > 0.4 * steepest > 20 * values[f"{UNUSED}|erased"].mean()
    assert values[f"{OWN}|erased"].mean() > 0.5 * steepest
    assert values[f"{USED}|angles"][0, 0] < 70 < values[f"{UNUSED}|angles"][0, 0]
    again = read_of(case.task, case.subject)
    assert all(np.array_equal(values[name], again[name]) for name in values)


def test_copies_of_examples_change_nothing() -> None:
    """Every input about four times, the copies in any order: what is read is what is read of each once."""
    case = constructed(seed=3)
    once = read_of(case.task, case.subject)
    again = torch.cat([torch.arange(300), torch.randperm(900, generator=torch.Generator().manual_seed(0)) % 300])
    copied = read_of(case.task.part(again), case.subject)
    assert float(copied.pop("copies")) == 900.0 and float(once.pop("copies")) == 0.0
    assert once.keys() == copied.keys()
    assert all(np.allclose(once[name], copied[name], atol=1e-9) for name in once)


def test_factors_of_a_rank_share_their_random_subspaces() -> None:
    case = constructed(seed=1)
    values = read_of(case.task, case.subject, draws=8, held=2)
    assert values[f"{USED}|moved"].shape == (1, 1 + 2 + 2 * 8) and values[f"{USED}|random"].shape == (1, 8, 150)
    assert np.array_equal(values[f"{USED}|moved"][:, 3:], values[f"{UNUSED}|moved"][:, 3:])
    assert not np.array_equal(values[f"{USED}|held"], values[f"{UNUSED}|held"])
    for at, array in enumerate((values[f"{USED}|erased"][:, None], values[f"{USED}|held"], values[f"{USED}|random"])):
        start = (0, 1, 3)[at]
        assert np.allclose(array.mean(2), values[f"{USED}|moved"][:, start : start + array.shape[1]])


def test_what_random_subspaces_should_move_is_what_they_do_where_outputs_are_linear() -> None:
    case = constructed(seed=2, design=Design(outputs="numbers", examples=2000))
    values = read_of(case.task, case.subject, draws=200)
    moved = values[f"{USED}|moved"][0, 5:].mean() / values[f"{USED}|steepest"].mean()
    assert moved == pytest.approx(float(values[f"{USED}|expected"][0]), rel=0.15)


def test_factors_that_cannot_be_measured_say_why() -> None:
    case = constructed(seed=0)
    rare = torch.zeros(300, dtype=torch.long)
    rare[:4] = 1
    task = case.task.with_factors({"one": torch.ones(300).long(), "rare": rare, "many": torch.arange(300) % 150})
    values = read_of(task, case.subject, factors="one,rare,many")
    got = [STATUSES[int(values[f"{name}|status"])] for name in ("one", "rare", "many")]
    assert got == ["one class", "too few examples", "too many classes"]
    assert f"{USED}|status" not in values


def test_a_layer_narrower_than_the_factor_needs() -> None:
    model = nn.Sequential(nn.Linear(8, 2), nn.Tanh(), nn.Linear(2, 4)).eval()
    task = Task(planted.numbers(200, 8, seed=1).float(), torch.arange(200) % 4)
    known = task.with_factors({"four": torch.arange(200) % 4})
    assert float(read_of(known, Subject(model, name="narrow"))["four|rank"][0]) < 0.0


def test_mistakes_are_named() -> None:
    case = constructed(seed=0)
    for ask in (
        lambda **names: read_of(case.task, case.subject, **names),
        lambda **names: Decodable(names).require(case.subject, case.task),
    ):
        with pytest.raises(UnknownName, match="'used'"):
            ask(factors="unused, usd")
        with pytest.raises(UnknownName, match="'7'"):
            ask(layers="0,7")
    with pytest.raises(DataError):
        read_of(case.task.part(torch.arange(30)), case.subject)
    with pytest.raises(DataError):
        case.task.with_factors({OWN: torch.arange(300) % 2})


def test_a_model_without_vectors_per_example() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, inputs: Tensor) -> Tensor:
            doubled = self.first(torch.cat([inputs, inputs]))  # twice as many rows as examples
            return self.last(torch.relu(doubled)[: len(inputs)])

    task = Task(planted.numbers(80, 4, seed=0).float(), torch.arange(80) % 2)
    with pytest.raises(ModelError):
        read_of(
            task.with_factors({"odd": torch.arange(80) % 2}),
            Subject(Mixed().eval(), name="mixed"),
            layers="first,last",
        )
    with pytest.raises(ModelError):
        read_of(task.with_factors({"odd": torch.arange(80) % 2}), Subject(Mixed().eval(), name="mixed"), layers="first")


def test_a_language_task_is_read_at_its_blocks(llama: Subject) -> None:
    rng = np.random.default_rng(0)
    contexts = [tuple(int(t) for t in rng.integers(1, 16, size=int(rng.integers(2, 7)))) for _ in range(90)]
    contexts = [(*context, int(at % 2) + 1) for at, context in enumerate(contexts)]  # the last token tells the factor
    task = ChoiceTask(contexts, [[(10,), (11, 3)]] * 90, [0, 1] * 45).with_factors({"last": torch.arange(90) % 2})
    values = read_of(task, llama, draws=8, matched=2)
    assert [llama.record.blocks[int(at)] for at in values["layers"]] == [f"model.layers.{at}" for at in range(3)]
    assert (values["last|correct"].mean(1) > 0.9).all() and (values["last|rank"] == 1).all()
    assert (values["last|erased"].mean(1) > 0.0).all()
    assert f"{OWN}|status" not in values, "an option means something else in each item"
