"""Two public nets: read as they were published, and the published measures of them."""

import numpy as np
import pytest
import torch

from benchmarks import clock_pizza
from tests.nets.bare_transformer import BareTransformer

pytestmark = pytest.mark.skipif(not clock_pizza.DATA.is_dir(), reason=f"needs the public nets: {clock_pizza.DATA}")


def written_out(name: str, inputs: np.ndarray, *, share: float) -> np.ndarray:
    """Logits of the last place, by the published formulas: attention of ``share softmax + 1 - share``."""
    with np.load(clock_pizza.DATA / f"{clock_pizza.NETS[name]}.npz") as kept:
        held = {key: kept[key].astype(np.float64) for key in kept.files if key != "config"}
    stream = held["embed.W_E"].T[inputs] + held["pos_embed.W_pos"]
    query, key, value = (np.einsum("ihd,bpd->biph", held[f"blocks.0.attn.W_{one}"], stream) for one in "QKV")
    scores = np.exp(np.einsum("biph,biqh->biqp", key, query) / np.sqrt(key.shape[-1]))
    attention = share * scores / scores.sum(-1, keepdims=True) + 1.0 - share
    mixed = np.einsum("biph,biqp->bqih", value, attention)
    stream = stream + mixed.reshape(*mixed.shape[:2], -1) @ held["blocks.0.attn.W_O"].T
    units = np.maximum(stream @ held["blocks.0.mlp.W_in"].T + held["blocks.0.mlp.b_in"], 0.0)
    stream = stream + units @ held["blocks.0.mlp.W_out"].T + held["blocks.0.mlp.b_out"]
    return stream[:, -1] @ held["unembed.W_U"]


@pytest.fixture(scope="module")
def nets() -> dict[str, BareTransformer]:
    return {name: clock_pizza.loaded(clock_pizza.DATA, name) for name in clock_pizza.NETS}


@pytest.mark.parametrize(("name", "share"), [("clock", 1.0), ("pizza", 0.0)])
def test_nets_compute_what_was_published_and_are_never_wrong(
    nets: dict[str, BareTransformer], name: str, share: float
) -> None:
    inputs, sums = clock_pizza.every(59)
    with torch.no_grad():
        logits = nets[name](inputs)[:, -1]
    wanted = written_out(name, inputs.numpy(), share=share)
    assert np.abs(logits.numpy() - wanted).max() < 1e-4 * np.abs(wanted).max()
    assert torch.equal(logits.argmax(1), sums)


def test_published_measures_are_as_published(nets: dict[str, BareTransformer]) -> None:
    symmetricity, irrelevance = (
        {name: measure(net) for name, net in nets.items()}
        for measure in (clock_pizza.gradient_symmetricity, clock_pizza.distance_irrelevance)
    )
    published = clock_pizza.PUBLISHED["pizza"]
    assert irrelevance["pizza"] == pytest.approx(published["distance irrelevance"], abs=5e-5)
    assert symmetricity["pizza"] == pytest.approx(published["gradient symmetricity"], abs=1e-3)  # other triples
    assert symmetricity["clock"] < 0.5
    assert irrelevance["clock"] > 0.6
