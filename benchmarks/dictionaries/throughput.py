"""Steps of TopK training a second: the sparse way beside plain torch code that decodes densely, in one process.

    python -m benchmarks.dictionaries throughput

Both start from the same numbers, see the same batches and use the same Adam: their losses must be the same curve.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionarySettings

BAR = 1.5
"""How many times as fast the sparse way must be."""

CURVE = 1e-4
"""By how much of itself a loss may differ."""


class Plain(nn.Module):
    """A TopK autoencoder as it is usually written: codes are a dense matrix, and so are all products."""

    def __init__(self, state: dict[str, Tensor], k: int) -> None:
        super().__init__()
        self.k = k
        for name, tensor in state.items():
            self.register_parameter(name, nn.Parameter(tensor.clone()))

    def forward(self, x: Tensor) -> Tensor:
        """What is made of vectors ``[row, width]``."""
        before = (x - self.b_dec) @ self.W_enc + self.b_enc
        values, index = before.topk(self.k, dim=1)
        codes = torch.zeros_like(before).scatter(1, index, values.relu())
        return codes @ self.W_dec + self.b_dec


def start(width: int, features: int, seed: int) -> tuple[dict[str, Tensor], Callable[[int], Tensor]]:
    """Numbers to begin with, and batches ``[row, width]`` of sparse sums of other directions."""
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(features, width, generator=random)
    rows /= rows.norm(dim=1, keepdim=True)
    true = torch.randn(2 * width, width, generator=random) / width**0.5
    state = {"W_enc": rows.T.contiguous(), "b_enc": torch.zeros(features), "W_dec": rows, "b_dec": torch.zeros(width)}

    def batch(count: int) -> Tensor:
        active = torch.rand(count, 2 * width, generator=random) < 0.02
        return (active * torch.rand(count, 2 * width, generator=random)) @ true

    return state, batch


def stepped(model: nn.Module, x: Tensor, adam: torch.optim.Optimizer) -> tuple[float, float]:
    """Seconds of one step of training, and the loss before it."""
    began = time.perf_counter()
    adam.zero_grad(set_to_none=True)
    loss = (model(x) - x).square().mean()
    loss.backward()
    adam.step()
    return time.perf_counter() - began, float(loss.detach())


def main(argv: list[str]) -> None:
    """Prints seconds a step of both ways, step by step in turn, and whether their losses are the same."""
    asked = argparse.ArgumentParser(description=__doc__)
    for name, value in {"width": 576, "features": 4608, "k": 32, "rows": 1024, "steps": 15, "threads": 1}.items():
        asked.add_argument(f"--{name}", type=int, default=value)
    how = asked.parse_args(argv)
    torch.set_num_threads(how.threads)
    state, batch = start(how.width, how.features, seed=0)
    sparse = Dictionary(DictionarySettings(width=how.width, features=how.features, k=how.k), state)
    models: dict[str, nn.Module] = {"plain": Plain(state, how.k), "sparse": sparse}
    adams = {name: torch.optim.Adam(model.parameters(), lr=1e-3) for name, model in models.items()}
    seconds = {name: list[float]() for name in models}
    furthest = 0.0
    for _ in range(how.steps):
        x = batch(how.rows)
        found = {name: stepped(model, x, adams[name]) for name, model in models.items()}
        for name, (took, _) in found.items():
            seconds[name].append(took)
        losses = [loss for _, loss in found.values()]
        furthest = max(furthest, abs(losses[0] / losses[1] - 1.0))
        print(
            f"plain {found['plain'][0]:.3f} s, sparse {found['sparse'][0]:.3f} s, loss {losses[0]:.6f} {losses[1]:.6f}"
        )
    plain, own = (statistics.median(seconds[name][2:]) for name in ("plain", "sparse"))
    ratios = sorted(one / other for one, other in zip(seconds["plain"][2:], seconds["sparse"][2:], strict=True))
    print(
        f"width {how.width}, {how.features:,} features, k {how.k}, {how.rows:,} rows, {how.threads} threads:"
        f" plain {plain:.3f} s, sparse {own:.3f} s a step (medians of {len(ratios)}), ratio {plain / own:.2f}"
        f" (of single steps {ratios[0]:.2f} to {ratios[-1]:.2f}); losses differ by at most {furthest:.1e} of themselves"
    )
    assert plain / own >= BAR and furthest <= CURVE
