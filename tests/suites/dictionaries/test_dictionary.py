"""Dictionaries compute what their definitions say; the sparse way gives what the dense one gives; nulls look alike."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core.errors import ModelError, UsageError
from wheeltap.suites.dictionaries.dictionary import (
    Architecture,
    Dictionary,
    DictionaryModel,
    DictionarySettings,
    Normalization,
    random_like,
)

WIDTH, FEATURES, ROWS, K = 12, 40, 64, 5
NORMALIZED: tuple[Normalization, ...] = ("constant_norm_rescale", "layer_norm")
TRAINED: tuple[Architecture, ...] = ("topk", "batchtopk", "jumprelu", "gated", "relu", "linear")


def drawn(architecture: Architecture = "topk", **settings: Any) -> Dictionary:
    k = K if architecture in ("topk", "batchtopk") else 0
    how = DictionarySettings(architecture=architecture, width=WIDTH, features=FEATURES, k=k, **settings)
    random = torch.Generator().manual_seed(1)
    state = {name: torch.randn(shape, generator=random) / WIDTH**0.5 for name, shape in how.shapes.items()}
    if "threshold" in state:
        state["threshold"] = state["threshold"].abs() + 0.5
    return Dictionary(how, state)


def vectors(rows: int = ROWS) -> Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(2)) * 2 + 0.3


def plain(one: Dictionary, x: Tensor) -> Tensor:
    """Codes by the published definitions, of vectors that are not normalized."""
    y = x - one.b_dec if one.settings.center else x
    codes = torch.zeros(len(x), FEATURES)
    for row in range(len(x)):
        for at in range(FEATURES):
            along = float(y[row] @ one.W_enc[:, at])
            match one.settings.architecture:
                case "gated":
                    value = max(along * float(one.r_mag[at].exp()) + float(one.b_mag[at]), 0.0)
                    codes[row, at] = value if along + float(one.b_gate[at]) > 0 else 0.0
                case "jumprelu" | "batchtopk":
                    value = along + float(one.b_enc[at])
                    codes[row, at] = value if value > float(one.threshold[at]) else 0.0
                case "linear":
                    codes[row, at] = along + float(one.b_enc[at])
                case _:
                    codes[row, at] = max(along + float(one.b_enc[at]), 0.0)
        if one.settings.architecture == "topk":
            codes[row, codes[row].argsort(descending=True)[K:]] = 0.0
    return codes


@torch.no_grad()
def test_codes_and_vectors_are_those_of_the_definition() -> None:
    for architecture, center in product(TRAINED, (True, False)):
        one, x = drawn(architecture, center=center), vectors(16)
        codes = plain(one, x)
        assert torch.allclose(one.encode(x), codes, atol=1e-5), architecture
        assert torch.allclose(one(x), codes @ one.W_dec + one.b_dec, atol=1e-5), architecture


def test_normalization_is_undone() -> None:
    for normalize in NORMALIZED:
        undone(normalize)


def undone(normalize: Normalization) -> None:
    one, x = drawn(normalize=normalize), vectors()
    if normalize == "constant_norm_rescale":
        factor, shift = WIDTH**0.5 / x.norm(dim=1, keepdim=True), torch.zeros(1)
    else:
        factor, shift = 1 / (x.std(1, keepdim=True) + 1e-5), x.mean(1, keepdim=True)
    inside = Dictionary(DictionarySettings(width=WIDTH, features=FEATURES, k=K), one.state_dict())
    codes = inside.encode((x - shift) * factor)
    assert torch.allclose(one.encode(x), codes, atol=1e-5)
    back = (codes @ one.W_dec + one.b_dec) / factor + shift
    assert torch.allclose(one(x), back, atol=2e-4) and torch.allclose(one.decode(codes, x), back, atol=2e-4)
    assert torch.allclose(one.normalized(x)[1], 1 / factor, rtol=1e-4)
    with pytest.raises(ModelError):
        one.decode(codes)


def test_the_sparse_way_has_the_values_and_gradients_of_the_dense_one() -> None:
    for settings in ({}, {"center": False}, {"normalize": "layer_norm"}):
        one, x = drawn(**settings).double(), vectors().double().requires_grad_()
        made, values, index = one.reconstructed(x)
        weights = torch.randn(made.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        sparse = torch.autograd.grad((made * weights).sum() + values.square().sum(), [x, *one.parameters()])
        codes = one.encode(x)
        assert torch.allclose(torch.zeros_like(codes).scatter(1, index, values), codes)
        dense = one.decode(codes, x)
        assert torch.allclose(made, dense)
        wanted = torch.autograd.grad((dense * weights).sum() + codes.square().sum(), [x, *one.parameters()])
        for name, got, right in zip(["x", *dict(one.named_parameters())], sparse, wanted, strict=True):
            assert torch.allclose(got, right, atol=1e-10), (settings, name)


def test_features_of_a_supervised_dictionary_are_values() -> None:
    how = DictionarySettings(architecture="supervised", width=2, features=3, attributes=("name", "order"))
    state = {"attribute": torch.tensor([0, 0, 1]), "value": torch.tensor([4, 7, 1]),
             "W_dec": torch.tensor([[1.0, 0], [2, 0], [0, 5]]), "b_dec": torch.tensor([0.5, 0.5])}  # fmt: skip
    one = Dictionary(how, state)
    codes = one.codes(torch.tensor([[7, 1], [4, 0], [5, 1]]))
    assert codes.tolist() == [[0, 1, 1], [1, 0, 0], [0, 0, 1]]
    assert one.decode(codes).tolist() == [[2.5, 5.5], [1.5, 0.5], [0.5, 5.5]]
    with pytest.raises(ModelError):
        one.encode(torch.zeros(1, 2))
    with pytest.raises(ModelError):
        one.codes(torch.zeros(3, 1))
    with pytest.raises(ModelError):
        drawn().codes(torch.zeros(3, 1))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ModelError):
        drawn().encode(torch.zeros(3, WIDTH + 1))
    with pytest.raises(ModelError):
        drawn("relu").reconstructed(vectors())
    for settings in ({"k": 0}, {"k": 3}, {"k": 1, "architecture": "relu"}, {"attributes": ("a",), "k": 1},
                     {"architecture": "supervised"}):  # fmt: skip
        with pytest.raises(UsageError):
            DictionarySettings(width=2, features=2, **settings)


@torch.no_grad()
def test_a_random_dictionary_looks_like_the_one_beside_it() -> None:
    for architecture, settings in product(TRAINED, ({}, {"center": False}, {"normalize": "layer_norm"})):
        one, x = drawn(architecture, **settings), vectors(500)
        null, name = random_like(one, x, seed=5), f"{architecture} {settings}"
        assert null.settings == one.settings and torch.equal(null.b_dec, one.b_dec)
        assert torch.allclose(null.W_dec.norm(dim=1), one.W_dec.norm(dim=1), rtol=1e-5), name
        cosine = nn.functional.cosine_similarity(null.W_dec, one.W_dec, dim=1)
        assert float(cosine.abs().mean()) < 0.4, name
        own, random = one.encode(x) != 0, null.encode(x) != 0
        assert float(random.sum()) == pytest.approx(float(own.sum()), rel=0.05), name
        if architecture not in ("topk", "linear"):
            assert torch.equal(own.sum(0), random.sum(0)), name
        # No other factor of its codes gives vectors that are nearer.
        inner, stretch, shift = one.normalized(x)
        decoded, target = (null(x) - shift) / stretch - null.b_dec, inner - null.b_dec
        assert float((decoded * target).sum() / decoded.square().sum()) == pytest.approx(1.0, abs=1e-3), name
        matched = random_like(one, x, seed=5, matched=True)
        lengths = [float((made.encode(x) @ made.W_dec).square().sum()) for made in (one, matched)]
        assert lengths[1] == pytest.approx(lengths[0], rel=1e-3), name
        assert torch.equal(matched.encode(x) != 0, random), name
        assert torch.equal(null(x), random_like(one, x, seed=5)(x))
        assert not torch.equal(null(x), random_like(one, x, seed=6)(x))


def test_a_net_with_dictionaries_answers_as_the_net_and_has_its_weights_alone() -> None:
    net = nn.Sequential(nn.Linear(6, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3)).eval()
    one = drawn()
    model = DictionaryModel(net, "1", [one, random_like(one, vectors(), 0)]).eval()
    x = torch.randn(20, 6)
    assert torch.equal(model(x), net(x))
    assert [name for name, _ in model.named_parameters()] == [f"net.{name}" for name, _ in net.named_parameters()]
    assert "entries.0.W_dec" in model.state_dict() and model.dictionaries[0] is one
    subject = wt.Subject(model, name="with")
    assert all(layer.name.startswith("net.") for layer in subject.layers)
    blank = DictionaryModel(net, "1", [Dictionary(one.settings), Dictionary(one.settings)])
    blank.load_state_dict(model.state_dict())
    assert torch.equal(blank.dictionaries[0](net[1](net[0](x))), one(net[1](net[0](x))))
    with pytest.raises(ModelError):
        DictionaryModel(net, "7", [])
