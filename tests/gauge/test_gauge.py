"""The door of the gauge package: derivations, their checks, and the comparison of outputs."""

import threading

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from wheeltap import gauge
from wheeltap.errors import DataError, ModelError, UnknownName, UsageError
from wheeltap.records import Derivation


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


def test_describe_writes_every_default() -> None:
    made = gauge.describe("relu-chain", "recode", seed=5)
    assert made == Derivation(
        family="relu-chain", operation="recode", settings={"spread": 1.0, "permute": True}, seed=5
    )
    made = gauge.describe(gauge.find(net()), "cancel", seed=5, pairs=8)
    assert made.settings == {"pairs": 8, "scale": 4.0, "jitter": 0.5}
    assert msgspec.json.decode(msgspec.json.encode(made), type=Derivation) == made


def test_left_out_settings_are_defaults() -> None:
    short = Derivation(family="relu-chain", operation="recode", settings={}, seed=5)
    a, b = gauge.twin(net(), short), gauge.twin(net(), gauge.describe("relu-chain", "recode", seed=5))
    assert torch.equal(a[0].weight, b[0].weight)


@pytest.mark.parametrize(
    ("family", "operation", "settings", "message"),
    [
        ("relu", "recode", {}, "Did you mean 'relu-chain'"),
        ("relu-chain", "recoded", {}, "Did you mean 'recode'"),
        ("relu-chain", "recode", {"spred": 1.0}, "Did you mean 'spread'"),
        ("relu-chain", "recode", {"pairs": 1}, "no setting of the gauge operation recode"),
        ("relu-chain", "recode", {"spread": -1.0}, ">= 0"),
        ("relu-chain", "recode", {"spread": "wide"}, "expected: `float`"),
        ("relu-chain", "recode", {"spread": float("nan")}, ">= 0"),
        ("relu-chain", "recode", {"spread": 0.0, "permute": False}, "must change something"),
        ("relu-chain", "cancel", {"pairs": 0}, ">= 1"),
        ("relu-chain", "cancel", {"pairs": True}, "got `bool`"),
        ("relu-chain", "cancel", {"scale": 0.0}, "> 0"),
    ],
)
def test_bad_derivations(family: str, operation: str, settings: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        gauge.describe(family, operation, seed=0, **settings)
    assert message in str(caught.value)
    with pytest.raises(UsageError):
        gauge.twin(net(), Derivation(family=family, operation=operation, settings=settings, seed=0))


def test_another_version_is_an_error() -> None:
    with pytest.raises(UsageError, match="another version"):
        gauge.twin(net(), Derivation(family="relu-chain", operation="recode", settings={}, seed=0, version=2))


def test_another_family_is_an_error() -> None:
    with pytest.raises(ModelError, match="no module has gate_proj"):
        gauge.twin(net(), gauge.describe("swiglu", "recode", seed=0))
    with pytest.raises(UnknownName):
        gauge.describe("gpt2", "recode", seed=0)


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(torch.relu(self.gate_proj(x)) * self.up_proj(x))


@pytest.mark.parametrize(("family", "model"), [("relu-chain", net()), ("swiglu", nn.Sequential(Gated()).eval())])
def test_a_model_that_cannot_be_copied(family: str, model: nn.Module) -> None:
    model.lock = threading.Lock()
    with pytest.raises(ModelError, match="cannot be copied"):
        gauge.twin(model, gauge.describe(family, "recode", seed=0))


def test_check_by_hand() -> None:
    ours = np.array([[0.0, 2.0], [5.0, 3.0]])  # About each example's mean: +-1, so the logit scale is 1.
    assert gauge.check(ours, ours) == (0, 1)
    assert gauge.check(ours, ours + np.array([[0.25, 0], [0, 0]])) == (0.25, 1)
    assert gauge.check(ours, ours[:, ::-1]) == (2, 0)
    likeness = gauge.check(ours, np.array([[0.0, 2.0], [np.nan, 3.0]]))
    assert likeness.difference == np.inf
    one = np.array([[1.0], [3.0]])  # About the mean over examples: +-1.
    assert gauge.check(one, one + 0.5) == (0.5, 1)
    assert gauge.check(np.ones((2, 2)), np.ones((2, 2))) == (0, 1)


@pytest.mark.parametrize("shape", [(3, 2), (0, 2), (2,)])
def test_check_refuses_other_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        gauge.check(np.zeros((2, 2)) if shape != (0, 2) else np.zeros(shape), np.zeros(shape))
