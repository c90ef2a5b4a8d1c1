"""A model whose weights the forward computes from parts: the first screen names the modules, a merged one has none."""

import io

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn.utils import parametrize

import wheeltap as wt
from wheeltap.core import coverage


class Adapted(nn.Module):
    """``W x + B A x``, as people write it."""

    def __init__(self, base: nn.Linear, *, names: tuple[str, str], rank: int = 1) -> None:
        super().__init__()
        self.base, self.names = base, names
        self.register_parameter(names[0], nn.Parameter(torch.ones(rank, base.in_features)))
        self.register_parameter(names[1], nn.Parameter(torch.ones(base.out_features, rank)))

    def forward(self, inputs: Tensor) -> Tensor:
        """``[example, output]``."""
        first, second = (self.get_parameter(name) for name in self.names)
        return self.base(inputs) + inputs @ first.T @ second.T


class Added(nn.Module):
    """A parametrization: a constant beside the weight."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.more = nn.Parameter(torch.ones(shape))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that is used."""
        return weight + self.more


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 4)).eval()


def test_what_is_computed_from_parts_is_found_and_nothing_else() -> None:
    for names in (("lora_A", "lora_B"), ("lora_down", "lora_up"), ("A", "B")):
        model = net()
        model[2] = Adapted(nn.Linear(12, 4), names=names)
        assert coverage.composed(model) == ("2",)
    model = net()
    parametrize.register_parametrization(model[0], "weight", Added(model[0].weight.shape))
    assert coverage.composed(model) == ("0",)
    parametrize.remove_parametrizations(model[0], "weight")
    assert coverage.composed(model) is None
    whole = net()
    whole[2] = Adapted(nn.Linear(12, 4), names=("A", "B"), rank=4)  # of full rank
    other = nn.Sequential(Adapted(nn.Linear(12, 4), names=("first", "second")))
    lstm = nn.Sequential(nn.LSTM(4, 4), nn.MultiheadAttention(8, 2), nn.Bilinear(2, 3, 4), nn.Embedding(3, 4))
    assert [coverage.composed(one) for one in (net(), whole, other, lstm)] == [None] * 4
    merged = Adapted(nn.Linear(12, 4), names=("lora_A", "lora_B"))
    vars(merged)["merged"] = True  # as loralib and peft say that the sum is in the weight
    assert coverage.composed(merged) is None


def test_an_adapter_of_peft_is_found_until_it_is_merged() -> None:
    peft = pytest.importorskip("peft", reason="needs peft")
    model = peft.get_peft_model(net(), peft.IA3Config(target_modules=["0"], feedforward_modules=[]))
    assert coverage.composed(model) == ("base_model.model.0",)
    model.merge_adapter()
    assert coverage.composed(model) is None


def test_the_first_screen_says_that_the_parts_were_rounded() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, inputs = net(), torch.randn(100, 6)
    parametrize.register_parametrization(model[0], "weight", Added(model[0].weight.shape))
    targets = model.eval()(inputs).argmax(1)
    merged = net()
    merged.load_state_dict({"0.weight": model[0].weight, "0.bias": model[0].bias, **model[2].state_dict(prefix="2.")})
    said = list[str]()
    for one in (model, merged):
        report, buffer = wt.audit(one, (inputs, targets), name="net", schemes="int8"), io.StringIO()
        report.text(Console(file=buffer, width=100, color_system=None))
        said.append(" ".join(buffer.getvalue().split()))
    assert "Warning: weights of net are computed in the forward from parts (parametrize / LoRA: 0): rounding" in said[0]
    assert "audit the merged model" in said[0] and "audit the merged model" not in said[1]
