"""The sparse transformer against a slow one in numpy, and what can be counted of it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import erf

from wheeltap.recipes.make import weights
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.circuits.nets.sparse_transformer import Shape, SparseTransformer

SMALL: dict[str, Any] = {"vocabulary": 11, "places": 9, "layers": 2, "width": 12, "head": 4}
SHAPE = Shape(**SMALL)
Numbers = NDArray[Any]


def net(shape: Shape) -> SparseTransformer:
    """With weights large enough that every part matters."""
    with reproducible(3):
        made = SparseTransformer(shape)
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return made.eval()


def tokens(examples: int = 3, places: int = 7) -> torch.Tensor:
    return torch.randint(0, SMALL["vocabulary"], (examples, places), generator=torch.Generator().manual_seed(1))


def slow(held: dict[str, Numbers], shape: Shape, sequence: list[int]) -> list[Numbers]:
    """Scores of one sequence, place by place, head by head, in double precision."""

    def linear(name: str, features: Numbers) -> Numbers:
        return held[f"{name}.weight"] @ features + held.get(f"{name}.bias", 0.0)

    def normed(features: Numbers) -> Numbers:
        return features / np.sqrt(np.mean(features**2) + 1e-5)

    stream = [held["embed.weight"][token] + held["position.weight"][at] for at, token in enumerate(sequence)]
    for layer in range(shape.layers):
        at = f"blocks.{layer}"
        read = [normed(features) for features in stream]
        queries, keys, values = (
            [linear(f"{at}.attention.{part}", features) for features in read] for part in ("query", "key", "value")
        )
        for place in range(len(stream)):
            mixed: list[Numbers] = []
            for head in range(shape.width // shape.head):
                of = slice(head * shape.head, (head + 1) * shape.head)
                scores = [queries[place][of] @ keys[other][of] / shape.head**0.5 for other in range(place + 1)]
                sink = np.exp(held[f"{at}.attention.sink"][head])
                total = sink + sum(np.exp(score) for score in scores)
                mixed.append(sum(np.exp(score) / total * values[other][of] for other, score in enumerate(scores)))
            stream[place] = stream[place] + linear(f"{at}.attention.output", np.concatenate(mixed))
        for place, features in enumerate(stream):
            risen = linear(f"{at}.mlp.rise", normed(features))
            units = risen * 0.5 * (1 + erf(risen / 2**0.5))
            stream[place] = features + linear(f"{at}.mlp.fall", units)
    scores = [linear("unembed", normed(features)) for features in stream]
    return [one + held["bigram.weight"][token]
            for one, token in zip(scores, sequence, strict=True)]  # fmt: skip


def test_it_is_the_slow_one() -> None:
    model, asked = net(SHAPE).double(), tokens()
    wanted = [slow(weights(model), SHAPE, row) for row in asked.tolist()]
    with torch.no_grad():
        found, single = model(asked).numpy(), model.float()(asked).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10)
    assert float(np.abs(np.array(wanted)).max()) > 0.5
    np.testing.assert_allclose(single, wanted, rtol=0, atol=1e-5)
