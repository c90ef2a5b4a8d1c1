"""The same function from other modules, by hand: what function-space noise says of each pair. 32 draws.

python -m benchmarks.regroupings [--seeds 20]
"""

import argparse
import copy
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import fuse_conv_bn_eval, parametrizations

import wheeltap as wt
from wheeltap.core.subject import Subject
from wheeltap.core.task import Task
from wheeltap.plans.plan import Effort
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import TrainSettings, train_classifier
from wheeltap.sources import digits

EFFORT = Effort(draws=32, control_draws=4, block_draws=0)
TRAIN = TrainSettings(epochs=12, rate=3e-3)
Pair = tuple[nn.Module, nn.Module]


class Gated(nn.Module):
    """Gate and up projection, in one layer or in two."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(64, 96 if fused else 48, bias=False) for _ in range(1 if fused else 2))
        self.down = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[example, 10]``."""
        gate, up = torch.cat([one(x) for one in self.maps], 1).chunk(2, 1)
        return self.down(nn.functional.silu(gate) * up)


class Convolved(nn.Module):
    """Two convolutions with batch norms, the second beside a skip."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.first: nn.Module = nn.BatchNorm2d(8)
        self.second: nn.Module = nn.BatchNorm2d(8)
        self.head = nn.Linear(128, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[example, 10]``."""
        x = self.first(self.one(x.view(-1, 1, 8, 8))).relu()
        return self.head(nn.functional.max_pool2d(x + self.second(self.two(x)).relu(), 2).flatten(1))


class Adapted(nn.Module):
    """A layer with an adapter of rank 4 beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.inner = base, nn.Linear(base.in_features, 4, bias=False)
        self.outer = nn.Linear(4, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer, and what the adapter adds."""
        return self.base(x) + 2 * self.outer(self.inner(x))


def mlp(wrap: Callable[[nn.Linear], nn.Module] = lambda layer: layer) -> nn.Sequential:
    """Three layers, the first two wrapped."""
    return nn.Sequential(
        wrap(nn.Linear(64, 48)), nn.ReLU(), wrap(nn.Linear(48, 48)), nn.ReLU(), nn.Linear(48, 10)
    )  # fmt: skip


def trained(make: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A net on the digits."""
    task = digits.task()
    with reproducible(seed):
        return train_classifier(make(), task.inputs, targets=task.targets, settings=TRAIN)


def split(seed: int) -> Pair:
    """Gate and up, fused and split."""
    fused, apart = trained(lambda: Gated(fused=True), seed), Gated(fused=False)
    held = dict(fused.named_parameters())
    with torch.no_grad():
        for part, rows in zip(apart.maps.parameters(), held["maps.0.weight"].chunk(2), strict=True):
            part.copy_(rows)
        for name, part in apart.down.named_parameters():
            part.copy_(held[f"down.{name}"])
    return fused, apart.eval()


def batch_norm(seed: int) -> Pair:
    """A batch norm, and none."""
    net = trained(Convolved, seed)
    fused = copy.deepcopy(net)
    assert isinstance(fused, Convolved)
    fused.one, fused.first = fuse_conv_bn_eval(fused.one, fused.first), nn.Identity()
    fused.two, fused.second = fuse_conv_bn_eval(fused.two, fused.second), nn.Identity()
    return net, fused.eval()


def merged(seed: int) -> Pair:
    """An adapter, and the layer it was merged into."""
    net, plain = trained(lambda: mlp(Adapted), seed), mlp()
    with torch.no_grad():
        for at in (0, 2, 4):
            layer, target = net.get_submodule(str(at)), plain[at]
            base = layer.base if isinstance(layer, Adapted) else layer
            target.load_state_dict(base.state_dict())
            if isinstance(layer, Adapted):
                target.weight += 2 * layer.outer.weight @ layer.inner.weight
    return net, plain.eval()


def folded(seed: int) -> Pair:
    """A weight norm, and its folded weight."""
    net, plain = trained(lambda: mlp(parametrizations.weight_norm), seed), mlp()
    with torch.no_grad():
        for at in (0, 2, 4):
            plain[at].weight.copy_(net.get_submodule(str(at)).weight)
            plain[at].bias.copy_(net.get_submodule(str(at)).bias)
    return net, plain.eval()


def factored(seed: int) -> Pair:
    """A layer, and two in a row."""
    net = trained(mlp, seed)
    cut = copy.deepcopy(net)
    whole = cut.get_submodule("2")
    assert isinstance(whole, nn.Linear)
    left, sizes, right = torch.linalg.svd(whole.weight.detach().double(), full_matrices=False)
    inner, outer = nn.Linear(48, 48, bias=False), nn.Linear(48, 48)
    with torch.no_grad():
        inner.weight.copy_(sizes.sqrt()[:, None] * right)
        outer.weight.copy_(left * sizes.sqrt())
        outer.bias.copy_(whole.bias)
    cut.set_submodule("2", nn.Sequential(inner, outer))
    return net, cut.eval()


PAIRS = {"split": split, "batch norm": batch_norm, "adapter": merged, "weight norm": folded, "factored": factored}


def main() -> None:
    """One line a pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    seeds, task = parser.parse_args().seeds, digits.task()
    for name, make in PAIRS.items():
        gaps, found = list[tuple[float, float]](), Counter[str]()
        for seed in range(seeds):
            one, two = (Subject(net, name=label) for net, label in zip(make(seed), "ab", strict=True))
            audits = ["score", "function-noise"]
            report = wt.compare(
                one, two, Task(task.inputs, task.targets, more=task.more), audits=audits, seed=seed, effort=EFFORT
            )
            [pair] = [row for row in report["WT102"] if " vs " in row.subject]
            gaps.append((pair.estimates[0].low or 0.0, pair.estimates[0].high or 0.0))
            found[pair.status] += 1
        low, high = min(low for low, _ in gaps), max(high for _, high in gaps)
        print(f"{name:12s} {dict(found)}; 95 % intervals within {low:+.4f} and {high:+.4f}", flush=True)


if __name__ == "__main__":
    main()
