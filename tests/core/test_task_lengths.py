"""How long a sequence a model can read: from its configuration or its table of positions."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from task_nets import Reader, numbers, seeded
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core import inputs
from wheeltap.core.errors import DataError
from wheeltap.core.task import Task


def ids(*rows: int, width: int) -> Tensor:
    return torch.ones(len(rows), width, dtype=torch.long) * torch.tensor(rows)[:, None]


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        (lambda: Reader(6), 6),
        (lambda: Reader(6, table="pos_emb"), 6),
        (lambda: Reader(6, table="embed_positions"), 6),
        (lambda: Reader(6, table="position_embedding_table"), 6),
        (lambda: Reader(6, table="relative_position_embedding"), None),
        (lambda: Reader(6, table="compositions"), None),
        (lambda: Reader(6, max_position_embeddings=4), 4),
        (lambda: Reader(6, max_position_embeddings=40), 6),
        (lambda: Reader(6, table="tags", n_positions=5), 5),
        (lambda: Reader(6, table="tags", max_position_embeddings=-1), None),
        (lambda: Reader(6, table="tags", text_config=SimpleNamespace(max_position_embeddings=3)), 3),
        (lambda: Reader(6, table="tags", max_position_embeddings=8, rope_scaling={"factor": 4.0}), 32),
        (lambda: nn.Linear(2, 2), None),
    ],
)
def test_how_long_a_model_reads(model: Callable[[], nn.Module], tokens: int | None) -> None:
    found = inputs.longest(seeded(model))
    assert (found[0] if found else None) == tokens


def test_positions_are_counted_from_behind_the_padding() -> None:
    model = Reader(6)
    model.wpe = nn.Embedding(6, 8, padding_idx=1)
    found = inputs.longest(model)
    assert found is not None and found[0] == 4


def test_an_example_that_is_too_long_is_named() -> None:
    model = seeded(lambda: Reader(6))
    mask = torch.tensor([[1] * 4 + [0] * 4, [1] * 8, [1] * 7 + [0]])
    task = Task({"input_ids": ids(1, 2, 3, width=8), "attention_mask": mask}, torch.tensor([0, 1, 2]), name="mine")
    with pytest.raises(DataError) as caught:
        wt.audit(model, task, audits="score")
    text = str(caught.value)
    assert "mine: example 1" in text and "at most 6 tokens (wpe" in text and "8 tokens; 2 of 3" in text
    # Filling counts where no example needs it.
    mask = torch.tensor([[1] * 4 + [0] * 4] * 3)
    task = Task({"input_ids": ids(1, 2, 3, width=8), "attention_mask": mask}, torch.tensor([0, 1, 2]))
    with pytest.raises(DataError, match="8 tokens; 3 of 3"):
        task.require_readable(model)
    task = Task(ids(1, 2, 3, width=7), torch.tensor([0, 1, 2]))
    with pytest.raises(DataError, match="example 0"):
        task.require_readable(model)
    Task(ids(1, 2, 3, width=6), torch.tensor([0, 1, 2])).require_readable(model)
    Task(numbers(3, 9), torch.tensor([0, 1, 2])).require_readable(model)


class Causal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.wpe, self.out = nn.Embedding(9, 8), nn.Embedding(5, 8), nn.Linear(8, 9)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.embed(ids) + self.wpe(torch.arange(ids.shape[1])))


def test_an_item_that_is_longer_than_the_context_is_named() -> None:
    model = seeded(Causal)
    fits = wt.ChoiceTask([[1, 2, 3], [1, 2, 3, 4]], [[[1, 2, 3], [2]], [[3, 4], [4]]], [0, 1])
    assert wt.audit(model, fits, audits="score")["WT001"]
    long = wt.ChoiceTask([[1, 2, 3], [1, 2, 3, 4]], [[[1], [2]], [[3, 4, 5], [4]]], [0, 1], name="items")
    with pytest.raises(DataError, match=r"items: item 1\n  expected: at most 5 tokens(.|\n)*6 tokens; 1 of 2"):
        wt.audit(model, long, audits="score")
    more = wt.ChoiceTask([[1], [2]], [[[1], [2]]] * 2, [0, 1], more=[[1], [1] * 6])
    with pytest.raises(DataError, match="further sequence 1"):
        more.require_readable(model)
