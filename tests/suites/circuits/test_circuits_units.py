"""Units of decoders: found by watching, masked as a slow implementation masks them, counted one by one."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import planted_nets
import pytest
import torch
from tiny_transformers import causal
from torch import Tensor, nn

from tests.nets import zoo
from tests.nets.bare_transformer import BareTransformer
from wheeltap.core.errors import ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.suites.circuits.engine.units import UnitNet

TOKENS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 0, 2], [3, 3, 1, 0, 8]])


def slow_scores(net: BareTransformer, tokens: Tensor, cut: Callable[[str, np.ndarray], np.ndarray]) -> np.ndarray:
    """The forward of the net in numpy, place by place and head by head; ``cut`` changes what each site holds."""
    weight = {name: tensor.detach().numpy() for name, tensor in net.state_dict().items()}
    shape, found = net.shape, []
    for row in tokens.numpy():
        stream = np.stack([weight["embed.weight"][t] + weight["position.weight"][at] for at, t in enumerate(row)])
        for layer in range(shape.layers):
            prefix, site = f"blocks.{layer}.attention.", f"attention{layer}"
            read = cut(f"{site}.read", stream)
            part = {}
            for name in ("query", "key", "value"):
                part[name] = cut(f"{site}.{name}", read @ weight[f"{prefix}{name}.weight"].T
                                 + weight[f"{prefix}{name}.bias"])  # fmt: skip
            mixed = np.zeros_like(part["value"])
            for head in range(shape.heads):
                own = slice(head * shape.head, (head + 1) * shape.head)
                for at in range(len(row)):
                    scores = [part["query"][at, own] @ part["key"][to, own] / math.sqrt(shape.head)
                              for to in range(at + 1)]  # fmt: skip
                    powers = np.exp(np.array(scores) - max(scores))
                    mixed[at, own] = (powers / powers.sum()) @ part["value"][: at + 1, own]
            wrote = mixed @ weight[f"{prefix}output.weight"].T + weight[f"{prefix}output.bias"]
            stream = stream + cut(f"{site}.write", wrote)
            prefix, site = f"blocks.{layer}.mlp.", f"mlp{layer}"
            read = cut(f"{site}.read", stream)
            units = np.maximum(read @ weight[f"{prefix}rise.weight"].T + weight[f"{prefix}rise.bias"], 0.0)
            wrote = cut(f"{site}.units", units) @ weight[f"{prefix}fall.weight"].T + weight[f"{prefix}fall.bias"]
            stream = stream + cut(f"{site}.write", wrote)
        found.append(stream[-1] @ weight["unembed.weight"].T + weight["unembed.bias"])
    return np.stack(found)


def drawn_mask(net: UnitNet, seed: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(2, size=net.units).astype(np.float64))


def test_masks_do_what_a_slow_pass_does() -> None:
    seed, model = 0, planted_nets.random_net()
    net = UnitNet(model, TOKENS)
    means = net.means([TOKENS])
    mask = drawn_mask(net, seed)

    def cut(site: str, held: np.ndarray) -> np.ndarray:
        own = mask[net.slices[site]].numpy()
        return held * own + means[site].double().numpy() * (1.0 - own)

    with torch.no_grad():
        assert np.allclose(net.scores(TOKENS, mask, means).numpy(), slow_scores(model, TOKENS, cut), atol=1e-5)
        assert torch.equal(net.scores(TOKENS), model(TOKENS)[:, -1])
        assert torch.allclose(net.scores(TOKENS, torch.ones(net.units)), model(TOKENS)[:, -1], atol=1e-12)


def test_edges_are_weights_between_units_that_are_kept() -> None:
    model = planted_nets.random_net(2)
    net = UnitNet(model, TOKENS)
    kept = drawn_mask(net, 9).numpy() > 0

    count = 0
    for layer in range(2):
        attention, mlp = f"attention{layer}", f"mlp{layer}"
        maps = {f"attention.{channel}": (f"{attention}.read", f"{attention}.{channel}")
                for channel in ("query", "key", "value")}  # fmt: skip
        maps |= {"attention.output": (f"{attention}.value", f"{attention}.write"),
                 "mlp.rise": (f"{mlp}.read", f"{mlp}.units"), "mlp.fall": (f"{mlp}.units", f"{mlp}.write")}  # fmt: skip
        for path, (source, to) in maps.items():
            weight = model.state_dict()[f"blocks.{layer}.{path}.weight"].numpy()
            count += int((weight[kept[net.slices[to]]][:, kept[net.slices[source]]] != 0).sum())
    assert net.edges(kept) == count > 0
    everything = sum(int((p != 0).sum()) for n, p in model.named_parameters() if "blocks" in n and p.ndim == 2)
    assert net.edges(np.ones(net.units, dtype=bool)) == everything


@pytest.mark.parametrize(
    ("kind", "values"),
    [("GPT2", list(range(24, 36))), ("Llama", [12 + 6 + 2 * (at // 4) + at % 2 for at in range(12)]),
     ("neox", [24 * (at // 8) + 16 + at % 8 for at in range(32)])],
)  # fmt: skip
def test_units_of_other_decoders_are_found(kind: str, values: list[int]) -> None:
    sizes: dict[str, Any] = {
        "GPT2": {"n_embd": 12, "n_layer": 2, "n_head": 3},
        "Llama": {"hidden_size": 12, "num_hidden_layers": 2, "head_dim": 2, "num_attention_heads": 6,
                  "num_key_value_heads": 3},
        "neox": {},
    }[kind]  # fmt: skip
    model = causal(kind, **sizes) if sizes else zoo.MEMBERS[kind].made().eval()
    before = weights_digest(model)
    net = UnitNet(model, TOKENS)
    assert [layer.name for layer in net.layers] == ["attention0", "mlp0", "attention1", "mlp1"]
    wire = net.wires[len(net.layers[0].ins)]
    held = net.layers[0].sites[1:-1]
    start = net.slices[held[0].name].start
    assert (wire.columns - start).tolist() == values
    everything = sum(
        int((p != 0).sum()) for n, p in model.named_parameters() if p.ndim == 2 and ("layers." in n or ".h." in n)
    )
    assert net.edges(np.ones(net.units, dtype=bool)) == everything
    assert weights_digest(model) == before


def wide_net(words: int, units: int) -> BareTransformer:
    """A net of small weights: with large ones attention to other places underflows to exactly 0."""
    net = planted_nets.random_net(tokens=words, classes=words, places=8, head=4, units=units, width=12)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(0.3)
    return net


def test_a_vocabulary_may_be_as_wide_as_the_stream_or_an_mlp() -> None:
    for words, units in ((12, 10), (12, 12), (10, 10)):
        net = UnitNet(wide_net(words, units), TOKENS)
        assert [layer.name for layer in net.layers] == ["attention0", "mlp0", "attention1", "mlp1"]
        assert [layer.out.rpartition(".")[2] for layer in net.layers] == ["output", "fall"] * 2


def test_a_head_of_two_layers_is_no_mlp() -> None:
    model = wide_net(12, 10)
    model.unembed = nn.Sequential(nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 12)).double()
    with pytest.raises(ModelError):
        UnitNet(model, TOKENS)


def test_what_is_no_such_decoder_is_refused() -> None:
    twice = nn.Linear(4, 4)
    uneven = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 7), nn.Linear(7, 9))
    for model in (nn.Sequential(nn.Embedding(9, 4), twice, twice), uneven):
        with pytest.raises(ModelError):
            UnitNet(model.eval(), TOKENS)
