"""Subjects: the gates before the first trial, and fingerprints that change with whatever changes the function."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pairs import fingerprint
from torch import Tensor, nn

from wheeltap import gauge
from wheeltap.core.errors import ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.layer import find_layers
from wheeltap.core.subject import Subject, derived_record
from wheeltap.testing.planted import planted


class Net(nn.Module):
    """A bit of everything that decides what a model computes."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=1)
        self.norm = nn.BatchNorm2d(4, eps=1e-5)
        self.act: nn.Module = nn.ReLU()
        self.pool = nn.MaxPool2d((2, 2))
        self.head = nn.Linear(4, 3)
        self.register_buffer("mask", torch.ones(3), persistent=False)
        self.table = torch.linspace(0, 1, 3)
        self.scale = 2.0
        self.squash = torch.tanh

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.pool(self.act(self.norm(self.conv(inputs)))).flatten(2).mean(2)
        return self.squash(self.head(hidden) * self.mask + self.table) * self.scale


def net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net().eval()


def nudge(tensor: Tensor) -> None:
    """Changes one number by one unit in the last place."""
    flat = tensor.data.view(-1)
    flat[-1] = torch.nextafter(flat[-1], torch.tensor(9.0))


CHANGES: dict[str, Callable[[Net], object]] = {
    "a weight": lambda m: nudge(m.head.weight),
    "a bias": lambda m: nudge(m.conv.bias),
    "a buffer": lambda m: nudge(m.norm.running_mean),
    "a buffer that is not saved": lambda m: nudge(m.mask),
    "an integer buffer": lambda m: m.norm.num_batches_tracked.add_(1),
    "a tensor that is neither": lambda m: nudge(m.table),
    "an activation's class": lambda m: setattr(m, "act", nn.GELU()),
    "the dtype": lambda m: m.double(),
    "a further layer": lambda m: m.add_module("more", nn.Linear(1, 1)),
    "the class": lambda m: setattr(m, "__class__", type("Other", (Net,), {})),
}


def test_a_fingerprint_changes_with_what_matters_alone() -> None:
    before = fingerprint(net())
    for what, change in CHANGES.items():
        model = net()
        change(model)
        assert fingerprint(model) != before, what
    model = net()
    assert fingerprint(copy.deepcopy(model)) == before
    model(torch.zeros(2, 1, 8, 8))
    model.requires_grad_(False)
    assert fingerprint(model) == before
    assert Subject(model, name="one").record.fingerprint == Subject(model, name="two").record.fingerprint
    tied = planted("tied").subject.model
    untied = copy.deepcopy(tied)
    untied.out.weight = nn.Parameter(tied.embed.weight.detach().clone())
    assert fingerprint(tied) != fingerprint(untied) and weights_digest(tied) != weights_digest(untied)


@pytest.mark.parametrize("kind", ["attention", "tied"])
def test_every_single_weight_counts(kind: str) -> None:
    model = copy.deepcopy(planted(kind).subject.model)
    seen = {weights_digest(model)}
    for parameter in model.parameters():
        for place in (0, parameter.numel() // 2, parameter.numel() - 1):
            flat = parameter.data.view(-1)
            kept = flat[place].clone()
            flat[place] = torch.nextafter(flat[place], torch.tensor(9.0))
            digest = weights_digest(model)
            assert digest not in seen
            flat[place] = kept
    assert weights_digest(model) in seen


def test_digests_of_any_dtype_and_of_odd_buffers() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn):
        one, two = nn.Linear(3, 2).to(dtype), nn.Linear(3, 2).to(dtype)
        two.load_state_dict(one.state_dict())
        assert weights_digest(one) == weights_digest(two)
        two.weight.data.view(torch.uint8).view(-1)[0] ^= 1
        assert weights_digest(one) != weights_digest(two)

    def holding(name: str, buffer: Tensor | None) -> str:
        model = nn.Linear(1, 1)
        with torch.no_grad():
            model.weight.fill_(1.0)
            model.bias.fill_(1.0)
        model.register_buffer(name, buffer)
        return weights_digest(model)

    zeros = (torch.zeros(0), torch.zeros(0, 3), torch.tensor(True), torch.tensor(False), torch.zeros(4),
             torch.zeros(2, dtype=torch.complex64), torch.zeros(2, 2), -torch.zeros(4))  # fmt: skip
    found = [holding("b", None), holding("c", torch.zeros(2, 2)), *(holding("b", each) for each in zeros)]
    assert len(set(found)) == len(found)
    turned = torch.arange(6.0).reshape(2, 3).T
    assert holding("b", turned) == holding("b", turned.contiguous())


# Gates.


def exported() -> Any:
    return torch.export.export(nn.Linear(2, 2).eval(), (torch.zeros(2, 2),))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda: "a model", "not a torch module"),
        (lambda: nn.Linear(2, 2), "in training mode"),
        (lambda: nn.Sequential(nn.Linear(2, 2), nn.Dropout()).eval().append(nn.Dropout()), "model: 2\n"),
        (exported, "it was exported from, in eval mode"),
        (lambda: nn.ReLU().eval(), "no weights"),
        (lambda: nn.Linear(2, 2, device="meta").eval(), "weight\n  expected: a tensor on a real device"),
    ],
)
def test_what_cannot_be_audited(made: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ModelError) as caught:
        Subject(made(), name="model")
    assert message in str(caught.value)
    assert caught.value.exit_code == 2


def test_weights_that_are_not_finite_are_refused_and_buffers_may_be() -> None:
    for bad in (float("nan"), float("inf"), -float("inf")):
        for name in ("conv.weight", "head.bias", "norm.weight"):
            model = net()
            model.get_parameter(name).data.view(-1)[1] = bad
            with pytest.raises(ModelError, match="1 NaN or infinite values") as caught:
                Subject(model, name="broken")
            assert f"broken: {name}" in str(caught.value)
    model = net()
    model.mask.fill_(-float("inf"))
    Subject(model)
    model.mask = torch.zeros(3, device="meta")
    with pytest.raises(ModelError, match="A buffer has no data"):
        Subject(model)


# Records.


def test_a_derived_subject_is_known_before_it_is_made() -> None:
    subject = planted("mlp").subject
    made, other = (gauge.describe("relu-chain", "permute", seed=seed) for seed in (3, 4))
    child, again = (
        subject.derived(gauge.twin(subject.model, one), derived_record(subject.record, one, role="twin"))
        for one in (made, other)
    )
    assert child.record.fingerprint != again.record.fingerprint
    assert child.record.base == subject.record.fingerprint
    assert child.record.made == made
    assert [layer.shape for layer in child.layers] == [layer.shape for layer in find_layers(subject.model)]
