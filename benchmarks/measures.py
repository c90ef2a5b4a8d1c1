"""How often intervals of measures hold the truth, and whether verdicts are those of a plain loop on fresh examples.

``python -m benchmarks.measures`` prints how often intervals hold the truth of simulated samples and, for small nets of
eight tasks, the verdicts of an audit of 2,000 examples beside the true losses on 20,000 fresh ones, computed
by a plain loop with scikit-learn. Each audit is one command. Some six CPU minutes; ``verdicts`` behind it leaves the
samples out.
"""

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

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

SAMPLES, MARGIN, GROWTH = 1000, 0.02, 0.1
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


def tagged(count: int, shares: tuple[float, ...], generator: torch.Generator) -> Pair:
    """Tags of sentences of one to eight tokens: some sentences are harder, and some lose more, all their tokens."""
    wanted = torch.multinomial(torch.tensor(shares), count * 8, replacement=True, generator=generator).reshape(count, 8)
    some = torch.arange(8) < torch.randint(1, 9, (count, 1), generator=generator)
    ease, hit = 1.5 + torch.randn(count, 1, 1, generator=generator), torch.rand(count, 1, 1, generator=generator)
    scores = torch.randn(count, 8, len(shares), generator=generator) + ease * torch.eye(len(shares))[wanted]
    after = scores + 1.5 * hit.pow(4) * torch.randn(scores.shape, generator=generator)
    return wanted.masked_fill(~some, -100)[:, :, None].float(), scores.mT.flatten(1), after.mT.flatten(1)


def detected(count: int, shares: tuple[float, ...], generator: torch.Generator) -> Pair:
    """Six detections of images with up to three objects: some images are harder, and lose more."""
    wanted = torch.randint(0, 4, (count, 1), generator=generator).float()
    ease, lost = torch.rand(2, count, 1, generator=generator)
    there = torch.rand(count, 6, generator=generator)
    hits = ((torch.arange(6) < wanted) & (there < shares[0])).float()
    before = torch.randn(count, 6, generator=generator) + (1.0 + 2.0 * ease) * hits
    before[(torch.arange(6) >= wanted) & (there > 0.5)] = torch.nan
    after = before + 1.5 * lost.pow(2) * torch.randn(count, 6, generator=generator)
    kept = hits * (torch.rand(count, 6, generator=generator) > 0.05).float()
    return wanted, *(torch.stack(pair, 2).flatten(1) for pair in ((before, hits), (after, kept)))


def matched(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of ``detected``."""
    pairs = scores.reshape(len(scores), -1, 2)
    return pairs[..., 0], pairs[..., 1], targets[:, 0]


def coverage(
    name: str | measure.Measure,
    drawn: Callable[[int, tuple[float, ...], torch.Generator], Pair],
    shares: tuple[float, ...],
    count: int,
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
        ("100 sentences of 1 to 8 tokens", tagged, (0.5, 0.3, 0.2), 100, ("token_accuracy",)),
        ("400 sentences of 1 to 8 tokens", tagged, (0.5, 0.3, 0.2), 400, ("token_accuracy",)),
        ("250 images of up to 3 objects", detected, (0.9,), 250, (measure.average_precision(matched),)),
        ("1,000 images of up to 3 objects", detected, (0.9,), 1000, (measure.average_precision(matched),)),
    )  # fmt: skip
    print("| design | measure | score | loss |\n|---|---|---|---|")
    for title, drawn, shares, count, names in designs:
        for name in names:
            score, loss, enough = coverage(name, drawn, shares, count)
            few = "" if enough > 0.5 else f" (too few in {1 - enough:.0%})"
            print(f"| {title} | {name}{few} | {score:.3f} | {loss:.3f} |", flush=True)


# ---- verdicts -----------------------------------------------------------------------------------------------------


class Segmenter(nn.Module):
    """A U-Net of one level, with an auxiliary head as in torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.up, self.last, self.side = nn.ConvTranspose2d(8, 8, 2, stride=2), nn.Conv2d(16, 1, 1), nn.Conv2d(8, 1, 1)

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """A score for each pixel."""
        near = self.first(pictures).relu()
        out = self.last(torch.cat([near, self.up(self.down(near).relu())], 1))
        return {"aux": self.side(near), "out": out}


class TwoTowers(nn.Module):
    """Queries and a pool of documents, by cosine."""

    def __init__(self, documents: Tensor) -> None:
        super().__init__()
        self.query = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
        self.document = nn.Linear(16, 16)
        self.register_buffer("documents", documents)

    def forward(self, queries: Tensor) -> Tensor:
        """A score for each document."""
        ends = (functional.normalize(one) for one in (self.query(queries), self.document(self.documents)))
        return 10.0 * next(ends) @ next(ends).T


class Tagger(nn.Module):
    """A class for each token, by a recurrent net."""

    def __init__(self) -> None:
        super().__init__()
        self.embedded, self.read = nn.Embedding(30, 16), nn.GRU(16, 24, batch_first=True, bidirectional=True)
        self.tags = nn.Linear(48, 5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """What is known of each token, and its scores."""
        known = self.read(self.embedded(input_ids) * attention_mask[:, :, None])[0]
        return known, self.tags(known)


class Denoiser(nn.Module):
    """The noise that was added, of a noised picture and the time."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.time = nn.Conv2d(1, 8, 3, padding=1), nn.Linear(2, 8)
        self.second, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """As large as the sample."""
        share = timestep.float()[:, None] / TIMES
        known = self.time(torch.cat([share, share.square()], 1))[:, :, None, None]
        return self.last(self.second((self.first(sample) + known).relu()).relu())


TIMES = 10
_POOL = torch.randn(100, 16, generator=torch.Generator().manual_seed(9))
_WAYS = torch.randn(16, 4, generator=torch.Generator().manual_seed(8)) / 4.0

Task = tuple[Tensor | dict[str, Tensor], Tensor]


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


def masks(count: int, seed: int) -> tuple[Tensor, Tensor]:
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


def sentences(count: int, seed: int) -> Task:
    """The tag of a word depends on the one before it; sentences have 2 to 12 words, one in ten tags is another."""
    g = torch.Generator().manual_seed(seed)
    words, lengths = torch.randint(30, (count, 12), generator=g), torch.randint(2, 13, (count, 1), generator=g)
    some = torch.arange(12) < lengths
    other = (torch.rand(count, 12, generator=g) < 0.1) * torch.randint(5, (count, 12), generator=g)
    tags = (words % 5 + words.roll(1, 1) % 2 + other) % 5
    return {"input_ids": words, "attention_mask": some.long()}, tags.masked_fill(~some, -100)


def noised(count: int, seed: int) -> Task:
    """Boxes with more noise at later times; wanted is the noise."""
    clean, _ = masks(count, seed)
    g = torch.Generator().manual_seed(seed)
    times, noise = torch.arange(count) % TIMES, torch.randn(clean.shape, generator=g)
    share = ((times + 1.0) / (TIMES + 1.0))[:, None, None, None]
    return {"sample": (1.0 - share).sqrt() * clean + share.sqrt() * noise, "timestep": times}, noise


def distances(count: int, seed: int) -> Task:
    """One number an example."""
    g = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 16, generator=g)
    return inputs, (inputs @ _WAYS).norm(dim=1) + 0.1 * torch.randn(count, generator=g)


def overlap(scores: Tensor, targets: Tensor) -> Tensor:
    """Whether the box overlaps the wanted one by half."""
    low, high = scores[:, :2].maximum(targets[:, :2]), scores[:, 2:].minimum(targets[:, 2:])
    both = (high - low).clamp_min(0).prod(1)
    area = sum((box[:, 2:] - box[:, :2]).clamp_min(0).prod(1) for box in (scores, targets))
    return (both / (area - both)).gt(0.5).float()


found_boxes = wt.measure.of(overlap, bounded=True)


def iou(scores: Tensor, targets: Tensor) -> float:
    """Image by image, in numpy."""
    each = zip(targets.flatten(1).numpy() > 0, scores.flatten(1).numpy() > 0, strict=True)
    sums = [((wanted & found).sum(), (wanted | found).sum()) for wanted, found in each]
    return float(np.mean([both / either if either else 1.0 for both, either in sums]))


def answers(net: nn.Module, inputs: Tensor | dict[str, Tensor]) -> Any:
    """What a net gives, called as it is."""
    return net(**inputs) if isinstance(inputs, dict) else net(inputs)


def trained(
    net: nn.Module, data: Callable[[int, int], Task], loss: Callable[[Any, Tensor], Tensor], steps: int = 300
) -> nn.Module:
    """A few hundred steps."""
    inputs, targets = data(4000, 1)
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(steps):
        rows = torch.randint(4000, (64,), generator=torch.Generator().manual_seed(step))
        some = {name: one[rows] for name, one in inputs.items()} if isinstance(inputs, dict) else inputs[rows]
        optimizer.zero_grad()
        loss(answers(net, some), targets[rows]).backward()
        optimizer.step()
    return net.eval()


def mlp(outputs: int) -> nn.Module:
    """Two layers."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 48), nn.ReLU(), nn.Linear(48, outputs))


@cache
def classifier() -> nn.Module:
    """Of ``rare``."""
    return trained(mlp(2), rare, functional.cross_entropy)


@cache
def labeler() -> nn.Module:
    """Of ``several``."""
    return trained(mlp(4), several, functional.binary_cross_entropy_with_logits)


@cache
def segmenter() -> nn.Module:
    """Of ``masks``."""
    torch.manual_seed(0)
    binary = functional.binary_cross_entropy_with_logits
    return trained(Segmenter(), masks, lambda s, t: sum(binary(one[:, 0], t) for one in s.values()))  # type: ignore


@cache
def detector() -> nn.Module:
    """Of ``boxes``."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 4)
    return trained(nn.Sequential(*layers), boxes, functional.mse_loss)


@cache
def towers() -> wt.Subject:
    """Of ``queries``."""
    torch.manual_seed(0)
    return wt.Subject(trained(TwoTowers(_POOL), queries, functional.cross_entropy), data="documents")


@cache
def tagger() -> nn.Module:
    """Of ``sentences``."""
    torch.manual_seed(0)
    return trained(Tagger(), sentences, lambda s, t: functional.cross_entropy(s[1].mT, t))


@cache
def denoiser() -> nn.Module:
    """Of ``noised``."""
    torch.manual_seed(0)
    return trained(Denoiser(), noised, functional.mse_loss)


@cache
def regressor() -> nn.Module:
    """Of ``distances``."""
    made = nn.Sequential(*mlp(1), nn.Flatten(0))  # type: ignore[misc]
    return trained(made, distances, functional.mse_loss, steps=2000)


class Case(NamedTuple):
    """A net by the name of its function, its examples, what is asked behind the command, and a plain loop's score."""

    net: str
    data: Callable[[int, int], Task]
    asked: str
    plain: Callable[[Any, Tensor], Any]
    error: bool = False


def tokens(scores: tuple[Tensor, Tensor], targets: Tensor) -> float:
    """Of all tokens that are no padding."""
    return float(metrics.accuracy_score(targets[targets != -100], scores[1].argmax(2)[targets != -100]))


CASES = (
    Case("classifier", rare, "--measure f1", lambda s, t: metrics.f1_score(t, s.argmax(1))),
    Case("classifier", rare, "--measure auc", lambda s, t: metrics.roc_auc_score(t, s[:, 1] - s[:, 0])),
    Case("labeler", several, "--measure macro_f1", lambda s, t: metrics.f1_score(t, s > 0, average="macro")),
    Case("labeler", several, "", lambda s, t: 1.0 - metrics.hamming_loss(t, s > 0)),
    Case("segmenter", masks, "", lambda s, t: iou(s["out"], t)),
    Case("detector", boxes, "--measure benchmarks.measures:found_boxes", lambda s, t: overlap(s, t).mean()),
    Case("towers", queries, "--measure recall@5", lambda s, t: metrics.top_k_accuracy_score(t, s, k=5)),
    Case("tagger", sentences, "--output 1", tokens),
    Case("denoiser", noised, "", lambda s, t: (s - t).square().flatten(1).sum(1).mean(), error=True),
    Case("regressor", distances, "", lambda s, t: (s - t).square().mean(), error=True),
)


def save(path: Path, task: Task) -> None:
    """As a user would."""
    inputs, targets = task
    named = {"inputs": inputs} if isinstance(inputs, Tensor) else inputs
    own = ("inputs", "input_ids", "attention_mask")
    arrays = {name if name in own else f"inputs_{name}": one.numpy() for name, one in named.items()}
    np.savez(path, **arrays, targets=targets.numpy())  # type: ignore[arg-type]


def losses(case: Case) -> list[float]:
    """What each scheme costs on 20,000 fresh examples, by a plain loop; of an error, its growth."""
    made = globals()[case.net]()
    subject = made if isinstance(made, wt.Subject) else wt.Subject(made)
    inputs, targets = case.data(20_000, 3)
    found = list[float]()
    with torch.no_grad():
        clean = float(case.plain(answers(subject.model, inputs), targets))
        for scheme in schemes(SCHEMES):
            with Disturbance(subject, create(scheme.perturbation, scheme.settings), WHOLE, None) as there:
                there.apply(scheme.dose, root=0, seed=0)
                after = float(case.plain(answers(subject.model, inputs), targets))
            found.append(after / clean - 1.0 if case.error else clean - after)
    return found


def print_verdicts() -> None:
    """Each verdict beside what the scheme costs on fresh examples; one that contradicts it is marked."""
    from wheeltap.cli import main

    counts = {"agree": 0, "undecided": 0, "contradict": 0}
    for case in CASES:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            save(Path("test.npz"), case.data(2000, 2))
            command = f"audit benchmarks.measures:{case.net} --data test.npz --for {SCHEMES} {case.asked}".strip()
            print(f"wheeltap {command}", flush=True)
            code = main([*command.split(), "--json", "report.json", "--quiet", "--store", "s.wheeltap"])
            if not Path("report.json").exists():
                print(f"  no report: exit code {code}")
                continue
            rows = [one for one in json.loads(Path("report.json").read_text())["findings"] if one["code"] == "WT100"]
        for row, lost in zip(rows, losses(case), strict=True):
            right = "costs" if lost > (GROWTH if case.error else MARGIN) else "safe"
            met = "agree" if row["verdict"] == right else "contradict" if row["verdict"] in ("safe", "costs") else ""
            counts[met or "undecided"] += 1
            print(f"  {row['scheme']:8} {row['verdict']:12} {lost:8.4f} {'!' * (met == 'contradict')}", flush=True)
    print(", ".join(f"{count} {what}" for what, count in counts.items()))


if __name__ == "__main__":
    sys.path.insert(0, os.getcwd())
    if sys.argv[1:] != ["verdicts"]:
        print_coverage()
    print_verdicts()
