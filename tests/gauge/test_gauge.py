"""The door of the gauge package: derivations, their checks, and the comparison of outputs."""

import threading

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from tests.cases import MODEL_CASES
from wheeltap import gauge
from wheeltap.core.errors import DataError, ModelError, UnknownName, UsageError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.records import MemberOrigin
from wheeltap.engine.clean import settle
from wheeltap.engine.units import probe_run


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)).eval()


def test_describe_writes_every_default_and_each_setting_has_a_gauge() -> None:
    made = gauge.describe("relu-chain", "permute", "rescale", seed=5)
    assert made == MemberOrigin(
        family="relu-chain", operations=("permute", "rescale"), settings={"spread": 1.0}, seed=5, version=gauge.VERSION
    )
    made = gauge.describe(gauge.find(net()), "cancel", seed=5, pairs=8)
    assert made.settings == {"pairs": 8, "scale": 4.0, "jitter": 0.0}
    assert msgspec.json.decode(msgspec.json.encode(made), type=MemberOrigin) == made
    owned = {name for names in gauge.GAUGES.values() for name in names}
    assert owned == set(gauge.GaugeSettings.__struct_fields__)
    short = MemberOrigin(family="relu-chain", operations=("rescale",), settings={}, seed=5, version=gauge.VERSION)
    a, b = gauge.twin(net(), short), gauge.twin(net(), gauge.describe("relu-chain", "rescale", seed=5))
    assert torch.equal(a[0].weight, b[0].weight), "what is left out is the default"


@pytest.mark.parametrize(
    ("family", "operations", "settings", "message"),
    [
        ("relu", ("permute",), {}, "Did you mean 'relu-chain'"),
        ("relu-chain", ("permuted",), {}, "Did you mean 'permute'"),
        ("relu-chain", (), {}, "one gauge or several"),
        ("relu-chain", ("rescale",), {"spred": 1.0}, "Did you mean 'spread'"),
        ("relu-chain", ("rescale",), {"pairs": 1}, "'pairs' belongs to no gauge that was asked for"),
        ("relu-chain", ("rescale",), {"spread": float("nan")}, "> 0"),
        ("relu-chain", ("split",), {"copies": 1}, ">= 2"),
    ],
)
def test_bad_derivations(family: str, operations: tuple[str, ...], settings: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        gauge.describe(family, *operations, seed=0, **settings)
    assert message in str(caught.value)
    made = MemberOrigin(family=family, operations=operations, settings=settings, seed=0, version=gauge.VERSION)
    with pytest.raises(UsageError) as caught:
        gauge.twin(net(), made)
    assert message in str(caught.value)


def test_another_version_or_family_is_an_error() -> None:
    with pytest.raises(UsageError, match="another version"):
        gauge.twin(net(), MemberOrigin(family="relu-chain", operations=("permute",), settings={}, seed=0, version=1))
    for family, part in (("llama", "gate_proj"), ("gpt2", "c_fc")):
        with pytest.raises(ModelError, match=f"no module has {part}"):
            gauge.twin(net(), gauge.describe(family, "permute", seed=0))
    with pytest.raises(UnknownName):
        gauge.describe("swiglu", "permute", seed=0)


def test_a_gauge_that_is_not_offered_is_an_error() -> None:
    found = gauge.find(net())
    assert isinstance(found, gauge.Family)
    for ask in (lambda: gauge.describe(found, "permute", "fold", seed=0),
                lambda: gauge.twin(net(), gauge.describe("relu-chain", "permute", "fold", seed=0))):  # fmt: skip
        with pytest.raises(ModelError) as caught:
            ask()
        assert caught.value.expected == "one of: permute, rescale, split, cancel, dead, entangle, regroup"
        assert caught.value.got == "fold: no batch norm has a layer of its own that feeds it"
    with pytest.raises(ModelError, match="rotate: nothing in a model of this kind"):
        gauge.describe(found, "rotate", seed=0)


def test_the_order_of_operations_counts() -> None:
    """Split first, the pairs are a share of more units."""
    made = [gauge.twin(net(), gauge.describe("relu-chain", *names, seed=0, pairs=1.0)) for names in
            (("cancel", "split"), ("split", "cancel"))]  # fmt: skip
    assert [twin[0].out_features for twin in made] == [6 + 12 + 9, 6 + 3 + 18]


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(4, 6), nn.Linear(4, 6), nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(torch.relu(self.gate_proj(x)) * self.up_proj(x))


@pytest.mark.parametrize(("family", "model"), [("relu-chain", net()), ("llama", nn.Sequential(Gated()).eval())])
def test_a_model_that_cannot_be_copied(family: str, model: nn.Module) -> None:
    model.lock = threading.Lock()
    with pytest.raises(ModelError, match="cannot be copied"):
        gauge.twin(model, gauge.describe(family, "permute", seed=0))


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
    for shape, other in (((3, 2), (2, 2)), ((0, 2), (0, 2)), ((2,), (2, 2))):
        with pytest.raises(DataError, match="cannot be compared"):
            gauge.check(np.zeros(other), np.zeros(shape))


@pytest.mark.parametrize("name", MODEL_CASES)
def test_declared_gauges_hold_on_every_model(name: str) -> None:
    declared, case = MODEL_CASES[name], MODEL_CASES[name].planted()
    model = case.subject.model
    settle(case.subject, case.task)
    run = probe_run(case.task, model)
    family = gauge.find(model, run)
    assert (frozenset(family.offers) if isinstance(family, gauge.Family) else frozenset()) == declared.gauges
    clean, digest = case.task.scores(model).numpy(), weights_digest(model)
    for operation in declared.gauges:
        twin = gauge.twin(model, gauge.describe(family, operation, seed=1), run, family=family)
        likeness = gauge.check(clean, case.task.scores(twin).numpy())
        assert likeness.difference < (1e-3 if declared.dtype is torch.float32 else 0.1), operation
    assert weights_digest(model) == digest
