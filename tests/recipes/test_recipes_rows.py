"""The small GPT that reads the rows of an image."""

from typing import Any

import pytest
import torch

from wheeltap.core.errors import UsageError
from wheeltap.core.task import Task
from wheeltap.models.rows import Block, RowReader
from wheeltap.recipes.base import Given, recipe_of, spec
from wheeltap.recipes.make import make

TASK = Task(torch.rand(40, 16, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 4)


def made(**settings: Any) -> torch.nn.Module:
    """A net that was trained for one pass."""
    asked = spec("classifier", {"net": "gpt", "hidden": "8,8", "epochs": 1, **settings}, seed=0, data=TASK.digest)
    return make(Given(asked, task=TASK), recipe_of(asked)).model


def test_it_reads_flat_images_and_square_ones_alike() -> None:
    net = made()
    assert isinstance(net, RowReader) and isinstance(TASK.inputs, torch.Tensor)
    assert torch.equal(net(TASK.inputs), net(TASK.inputs.reshape(40, 4, 4))) and net(TASK.inputs).shape == (40, 4)
    assert [type(block) for block in net.blocks] == [Block, Block]


def test_no_place_sees_what_comes_after_it() -> None:
    torch.manual_seed(1)
    block = Block(8).eval()
    stream = torch.randn(2, 5, 8)
    other = stream.clone()
    other[:, 3:] += 1.0
    with torch.no_grad():
        one, two = block(stream), block(other)
    assert torch.allclose(one[:, :3], two[:, :3], atol=1e-6)
    assert (one[:, 3:] - two[:, 3:]).abs().min() > 0.0


@pytest.mark.parametrize("settings", [{"hidden": "8,12"}, {"dropout": 0.1}])
def test_what_it_cannot_be_is_said(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="reads rows"):
        made(**settings)
