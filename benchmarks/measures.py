"""How often intervals of measures hold the truth, and whether verdicts are those of a plain loop on fresh examples.

``python -m benchmarks.measures`` prints how often intervals hold the truth of simulated samples and, for small nets of
five tasks, the verdicts of an audit of 2,000 examples beside the true losses on 20,000 fresh ones, computed
by a plain loop with scikit-learn. Some five CPU minutes.
"""

from collections.abc import Callable

import numpy as np
import torch
from sklearn import metrics
from torch import Tensor, nn
from torch.nn import functional

import wheeltap as wt
from wheeltap.audits.schemes import schemes
from wheeltap.core import measure
from wheeltap.core.measure import LinearStatistic
from wheeltap.core.site import WHOLE
from wheeltap.engine.apply import Disturbance
from wheeltap.perturb import create
from wheeltap.stats.sample import Sample
from wheeltap.stats.wilson1927 import wilson_of_statistic

SAMPLES, MARGIN = 1000, 0.02
SCHEMES = "int8,int4,int3,int2,prune50,prune80"
OF_CLASSES = ("f1", "precision", "recall", "balanced_accuracy", "mcc")

Pair = tuple[Tensor, Tensor, Tensor]
"""Targets, and the scores of a net and of the same net disturbed."""


# ---- coverage -----------------------------------------------------------------------------------------------------


def classes(count: int, shares: tuple[float, ...], generator: torch.Generator) -> Pair:
    """Scores that tell classes of these shares apart, better undisturbed."""
    targets = torch.multinomial(torch.tensor(shares), count, replacement=True, generator=generator)
    scores = torch.randn(count, len(shares), generator=generator) + torch.tensor(shares).log() * 0.7
    scores += 2.0 * torch.eye(len(shares))[targets]
    return targets, scores, scores + 0.7 * torch.randn(count, len(shares), generator=generator)


def labels(count: int, shares: tuple[float, ...], generator: torch.Generator) -> Pair:
    """The same of several labels."""
    targets = (torch.rand(count, len(shares), generator=generator) < torch.tensor(shares)).float()
    scores = torch.randn(count, len(shares), generator=generator) + 2.5 * targets - 1.6
    return targets, scores, scores + 0.7 * torch.randn(count, len(shares), generator=generator)


def coverage(
    name: str, drawn: Callable[[int, tuple[float, ...], torch.Generator], Pair], shares: tuple[float, ...], count: int
) -> tuple[float, float, float]:
    """How often the intervals of the score, and of the loss, hold the truth; how often the rarest class has enough."""
    one, generator = measure.named(name, where=""), torch.Generator().manual_seed(0)
    assert isinstance(one, LinearStatistic)
    targets, before, after = drawn(1_000_000, shares, generator)
    truth = float(one(before, targets, before).mean())
    lost = truth - float(one(after, targets, before).mean())
    held, enough = np.zeros(2), 0
    for _ in range(SAMPLES):
        targets, before, after = drawn(count, shares, generator)
        clean, there = (one(scores, targets, before).numpy() for scores in (before, after))
        worth, far = one.carried(before, targets)
        enough += worth >= one.enough
        score = wilson_of_statistic(clean, worth=worth, ends=(one.least, one.most), name=name)
        loss = Sample((clean - there)[None], skewed=True, far=far).effect(name="loss", unit=name)
        held += [score.low <= truth <= score.high, loss.low <= lost <= loss.high]  # pyright: ignore
    return float(held[0]) / SAMPLES, float(held[1]) / SAMPLES, enough / SAMPLES


def print_coverage() -> None:
    """The table of the documentation."""
    designs = (
        ("two classes of 50 %, n = 200", classes, (0.5, 0.5), 200, (*OF_CLASSES, "auc")),
        ("one class of 5 %, n = 800", classes, (0.95, 0.05), 800, OF_CLASSES),
        ("one class of 5 %, n = 2,400", classes, (0.95, 0.05), 2400, (*OF_CLASSES, "auc")),
        ("five classes, one of 5 %, n = 600", classes, (0.4, 0.3, 0.15, 0.1, 0.05), 600, OF_CLASSES),
        ("four labels, one of 5 %, n = 800", labels, (0.5, 0.3, 0.2, 0.05), 800, ("macro_f1", "micro_f1")),
    )  # fmt: skip
    print("| design | measure | score | loss |\n|---|---|---|---|")
    for title, drawn, shares, count, names in designs:
        for name in names:
            score, loss, enough = coverage(name, drawn, shares, count)
            few = "" if enough > 0.5 else f" (too few in {1 - enough:.0%})"
            print(f"| {title} | {name}{few} | {score:.3f} | {loss:.3f} |", flush=True)


# ---- verdicts -----------------------------------------------------------------------------------------------------


class Segmenter(nn.Module):
    """A U-Net of one level."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.up, self.out = nn.ConvTranspose2d(8, 8, 2, stride=2), nn.Conv2d(16, 1, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        """A score for each pixel."""
        near = self.first(pictures).relu()
        return self.out(torch.cat([near, self.up(self.down(near).relu())], 1))


class TwoTowers(nn.Module):
    """Queries and a pool of documents."""

    def __init__(self, documents: Tensor) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
        self.document = nn.Linear(16, 16)
        self.register_buffer("documents", documents)

    def forward(self, queries: Tensor) -> Tensor:
        """A score for each document."""
        return self.query(queries) @ self.document(self.documents).T


_POOL = torch.randn(100, 16, generator=torch.Generator().manual_seed(9))
_WAYS = torch.randn(16, 4, generator=torch.Generator().manual_seed(8)) / 4.0

Task = tuple[Tensor, Tensor]


def rare(count: int, seed: int) -> Task:
    """One example in twelve is of class 1."""
    g = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 16, generator=g)
    return inputs, ((inputs @ _WAYS)[:, :2].square().sum(1) + 0.5 * torch.randn(count, generator=g) > 4.5).long()


def several(count: int, seed: int) -> Task:
    """Four labels."""
    g = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 16, generator=g)
    bounds = torch.tensor([0.0, 0.5, 1.0, 1.3])
    return inputs, (inputs @ _WAYS + 0.3 * torch.randn(count, 4, generator=g) > bounds).float()


def masks(count: int, seed: int) -> Task:
    """A bright box in noise, or none."""
    g = torch.Generator().manual_seed(seed)
    corner, size = (torch.randint(*ends, (2, count, 1), generator=g) for ends in ((0, 9), (3, 8)))
    at = torch.arange(16)
    row, column = ((at >= corner[axis]) & (at < corner[axis] + size[axis]) for axis in (0, 1))
    found = (row[:, :, None] & column[:, None, :] & (torch.arange(count) % 10 > 0)[:, None, None]).float()
    return found[:, None] + 0.5 * torch.randn(count, 1, 16, 16, generator=g), found


def boxes(count: int, seed: int) -> Task:
    """Where the bright box is."""
    pictures, found = masks(count + count // 8 + 10, seed)
    there = found.flatten(1).any(1)
    pictures, found = pictures[there][:count], found[there][:count]
    edges = [
        one.float() for axis in (2, 1) for one in (found.amax(axis).argmax(1), 16 - found.amax(axis).flip(1).argmax(1))
    ]
    return pictures, torch.stack([edges[2], edges[0], edges[3], edges[1]], 1) / 16.0


def queries(count: int, seed: int) -> Task:
    """Each is near one document."""
    g = torch.Generator().manual_seed(seed)
    right = torch.randint(100, (count,), generator=g)
    return _POOL[right] + 0.8 * torch.randn(count, 16, generator=g), right


def found_boxes(scores: Tensor, targets: Tensor) -> Tensor:
    """Whether the box overlaps the wanted one by half."""
    low, high = scores[:, :2].maximum(targets[:, :2]), scores[:, 2:].minimum(targets[:, 2:])
    both = (high - low).clamp_min(0).prod(1)
    area = sum((box[:, 2:] - box[:, :2]).clamp_min(0).prod(1) for box in (scores, targets))
    return (both / (area - both)).gt(0.5).float()


def iou(scores: Tensor, targets: Tensor) -> float:
    """Image by image, in numpy."""
    each = zip(targets.flatten(1).numpy() > 0, scores.flatten(1).numpy() > 0, strict=True)
    sums = [((wanted & found).sum(), (wanted | found).sum()) for wanted, found in each]
    return float(np.mean([both / either if either else 1.0 for both, either in sums]))


def trained(net: nn.Module, data: Callable[[int, int], Task], loss: Callable[[Tensor, Tensor], Tensor]) -> nn.Module:
    """A few hundred steps."""
    inputs, targets = data(4000, 1)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(300):
        rows = torch.randint(4000, (64,), generator=torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        loss(net(inputs[rows]), targets[rows]).backward()
        optimizer.step()
    return net.eval()


def mlp(outputs: int) -> nn.Module:
    """Two layers."""
    return nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, outputs))


def print_verdicts() -> None:
    """Each verdict beside what the scheme costs on fresh examples; one that contradicts it is marked."""
    torch.manual_seed(0)
    cross, binary = functional.cross_entropy, functional.binary_cross_entropy_with_logits
    detector = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)
    )
    rarely, towers = trained(mlp(2), rare, cross), TwoTowers(_POOL)
    tagged = trained(mlp(4), several, binary)
    cases = (
        ("f1", rarely, rare, lambda s, t: metrics.f1_score(t, s.argmax(1))),
        ("auc", rarely, rare, lambda s, t: metrics.roc_auc_score(t, s[:, 1] - s[:, 0])),
        ("macro_f1", tagged, several, lambda s, t: metrics.f1_score(t, s > 0, average="macro")),
        ("label_accuracy", tagged, several, lambda s, t: 1.0 - metrics.hamming_loss(t, s > 0)),
        ("iou", trained(Segmenter(), masks, lambda s, t: binary(s[:, 0], t)), masks, iou),
        ("found_boxes", trained(detector, boxes, functional.mse_loss), boxes, lambda s, t: found_boxes(s, t).mean()),
        ("recall@5", trained(towers, queries, cross), queries, lambda s, t: metrics.top_k_accuracy_score(t, s, k=5)),
    )
    wrong = undecided = every = 0
    for name, net, data, plain in cases:
        given = wt.measure.of(found_boxes, bounded=True) if name == "found_boxes" else name
        subject = wt.Subject(net, name=name, data="documents" if net is towers else ())
        report = wt.audit(subject, data(2000, 2), measure=given, audits="score", schemes=SCHEMES, margin=MARGIN)
        inputs, targets = data(20_000, 3)
        with torch.no_grad():
            clean = float(plain(net(inputs), targets))
            for row, scheme in zip(report["WT100"], schemes(SCHEMES), strict=True):
                with Disturbance(subject, create(scheme.perturbation, scheme.settings), WHOLE, None) as there:
                    there.apply(scheme.dose, root=0, seed=0)
                    lost = clean - float(plain(net(inputs), targets))
                contradicted = row.verdict == ("costs" if lost < MARGIN else "safe")
                wrong, undecided, every = (
                    wrong + contradicted,
                    undecided + (row.verdict not in ("safe", "costs")),
                    every + 1,
                )
                print(
                    f"{name:15} {clean:.3f} {row.scheme:8} {row.verdict:12} {lost:7.4f}{' !' * contradicted}",
                    flush=True,
                )
    print(f"{wrong} of {every} verdicts contradict the loss on fresh examples; {undecided} are open.")


if __name__ == "__main__":
    print_coverage()
    print_verdicts()
