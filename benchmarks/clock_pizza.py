"""``python -m benchmarks.clock_pizza [--data FOLDER] [--only default|structure|heads|symmetry|circuits]``.

Two public nets that add modulo 59, never wrong, by published, different algorithms: the *clock* attends, the *pizza*
adds both places with equal weight. What do the audits of this project say of the pair, and what do they not see? Beside
them the two published measures that do see it.

Source: Zhong, Liu, Tegmark and Andreas 2023, "The clock and the pizza", arXiv:2306.17844: gradient symmetricity and
distance irrelevance, section 4. Nets: github.com/fjzzq2002/pizza (MIT), read in place.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import wheeltap as wt
from tests.nets.bare_transformer import BareTransformer, Shape
from wheeltap.core.choices import ChoiceTask
from wheeltap.engine.readings import create
from wheeltap.suites.circuits import sources
from wheeltap.suites.circuits.engine.ablation import pairs_of
from wheeltap.suites.circuits.engine.units import UnitNet
from wheeltap.suites.circuits.pairs import Pairs

DATA = Path(__file__).parents[2] / "shared" / "data" / "clock-pizza"
NETS = {"clock": "l8k1hzciux", "pizza": "p99zdpze5l"}
ASKED = 1_000
"""Examples of the comparisons; accuracy, the published measures and symmetry take all."""

PAIRS = 256
TRIPLES = 100
"""Of two summands and a sum, for the gradients."""

PUBLISHED = {"pizza": {"gradient symmetricity": 0.9937, "distance irrelevance": 0.1717}}


class LastPlace(nn.Module):
    """Scores of the last place alone, ``[example, class]``."""

    def __init__(self, net: BareTransformer) -> None:
        super().__init__()
        self.net = net

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net(tokens)[:, -1]


def loaded(folder: Path, name: str) -> BareTransformer:
    """A published net.

    Its attention is ``c softmax + 1 - c``, both places seen from both. With c = 0 that is 1 for either place: twice the
    mean that a softmax of equal scores takes. The pizza's queries and keys are below 1e-17, so its scores are equal.
    Here the first place does not see the second: what it writes is read by nothing, and language models do not.
    """
    with np.load(folder / f"{NETS[name]}.npz", allow_pickle=False) as kept:
        held = {key: torch.from_numpy(kept[key]) for key in kept.files if key != "config"}
        how = json.loads(str(kept["config"]))
    share, classes, width = float(how["attn_coeff"]), int(how["C"]), int(how["d_model"])
    if share not in (0.0, 1.0):
        raise ValueError(f"{name}: attention is neither constant nor a softmax: {share}")
    net = BareTransformer(Shape(tokens=classes, places=2, classes=classes, layers=1, heads=int(how["n_heads"]),
                                head=width // int(how["n_heads"]), units=4 * width, width=width, causal=True))  # fmt: skip
    block = "blocks.0"
    weights = {
        "embed.weight": held["embed.W_E"].T, "position.weight": held["pos_embed.W_pos"],
        "unembed.weight": held["unembed.W_U"].T,
        **{f"{block}.attention.{mine}.weight": held[f"{block}.attn.W_{theirs}"].flatten(0, 1)
           for mine, theirs in (("query", "Q"), ("key", "K"), ("value", "V"))},
        f"{block}.attention.output.weight": held[f"{block}.attn.W_O"] * (2.0 - share),
        f"{block}.mlp.rise.weight": held[f"{block}.mlp.W_in"], f"{block}.mlp.rise.bias": held[f"{block}.mlp.b_in"],
        f"{block}.mlp.fall.weight": held[f"{block}.mlp.W_out"], f"{block}.mlp.fall.bias": held[f"{block}.mlp.b_out"],
    }  # fmt: skip
    net.load_state_dict({**net.state_dict(), **weights})
    return net.eval()


def every(classes: int) -> tuple[Tensor, Tensor]:
    """All pairs of summands, and their sums."""
    inputs = torch.cartesian_prod(torch.arange(classes), torch.arange(classes))
    return inputs, inputs.sum(1) % classes


# ---- published measures ----------------------------------------------------------------------------------------


def gradient_symmetricity(net: BareTransformer, *, triples: int = TRIPLES, seed: int = 0) -> float:
    """Mean cosine between the gradients of a logit by the two embedded summands, over random triples."""
    classes, drawn = net.shape.classes, torch.Generator().manual_seed(seed)
    asked = torch.randint(classes, (triples, 3), generator=drawn)
    taken: list[Tensor] = []

    def take(_: Any, __: Any, output: Tensor) -> Tensor:
        taken.append(output.detach().requires_grad_())
        return taken[-1]

    handle = net.embed.register_forward_hook(take)
    try:
        logits = net(asked[:, :2])[:, -1].gather(1, asked[:, 2:])
    finally:
        handle.remove()
    (slopes,) = torch.autograd.grad(logits.sum(), taken)
    return float(nn.functional.cosine_similarity(slopes[:, 0], slopes[:, 1], dim=-1).mean())


def distance_irrelevance(net: BareTransformer) -> float:
    """Mean over differences of how the right logit varies with the sum, as a share of how it varies in all."""
    classes = net.shape.classes
    inputs, sums = every(classes)
    with torch.no_grad():
        right = net(inputs)[:, -1].gather(1, sums[:, None])[:, 0].double()
    by_distance = torch.empty(classes, classes, dtype=torch.float64)
    by_distance[(inputs[:, 0] - inputs[:, 1]) % classes, sums] = right
    return float(by_distance.std(1, correction=0).mean() / by_distance.std(correction=0))


# ---- what the audits say ---------------------------------------------------------------------------------------


def report_of(report: wt.Report, label: str) -> None:
    """Prints the claims of a report, and its controls."""
    print(f"\n== {label}: {report.headline}")
    for one in report.findings:
        print(f"{one.code} {one.title} {one.scheme} [{one.subject}] {one.status}: {one.because[:420]}")
    for control in report.controls:
        if control.status != "passed":
            print(f"  control {control.name}: {control.status}")


def some(seed: int = 0) -> wt.Task:
    inputs, sums = every(59)
    chosen = torch.randperm(len(sums), generator=torch.Generator().manual_seed(seed))[:ASKED]
    return wt.Task(inputs[chosen], sums[chosen], name="sums modulo 59")


def compared(
    nets: Mapping[str, BareTransformer], audits: str | wt.AuditSpec | None = None, task: wt.Task | None = None
) -> None:
    """Prints what audits say of the pair; those that run by default, and of some sums, if not given."""
    first, second = (LastPlace(net).eval() for net in nets.values())
    label = audits.name if isinstance(audits, wt.AuditSpec) else audits or "default"
    report_of(wt.compare(first, second, task or some(), names=tuple(nets), audits=audits), label)


def symmetry(nets: Mapping[str, BareTransformer]) -> None:
    """Answers to changed weights where the summands change places, which moves no sum."""
    inputs, sums = every(59)
    swapped = torch.stack([torch.arange(59 * 59), inputs[:, 1] * 59 + inputs[:, 0]])
    task = wt.Task(inputs, sums, name="sums modulo 59").with_symmetry(wt.symmetry.Symmetry("swap", swapped))
    compared(nets, wt.AuditSpec("symmetry", {"weights": 24, "copies": 2}), task)


def pairs() -> ChoiceTask:
    """Pairs of sums whose first summand differs; means are over all sums."""
    drawn = torch.Generator().manual_seed(0)
    clean = torch.randint(59, (PAIRS, 2), generator=drawn)
    other = clean + torch.stack([torch.randint(1, 59, (PAIRS,), generator=drawn), torch.zeros(PAIRS).long()], 1)
    rows: list[Any] = [[tuple(row) for row in (held % 59).tolist()] for held in (clean, other)]
    answers: list[Any] = [(held.sum(1) % 59).tolist() for held in (clean, other)]
    reference = tuple(map(tuple, every(59)[0].tolist()))
    made = Pairs(tuple(rows[0]), tuple(rows[1]), tuple(answers[0]), tuple(answers[1]), reference)
    return sources.task(made, name="sums modulo 59")


def circuits(nets: Mapping[str, BareTransformer]) -> None:
    """Audits of circuits; beside them where the units of one search are."""
    task = pairs()
    for name, net in nets.items():
        units = UnitNet(net, next(iter(pairs_of(task).batches())).clean)
        found = create("circuit-search", {}).read(wt.Subject(net, name=name), task, root=0, seed=0).values
        kept = found["rank"] < found["size"]
        sites = (f"{one.name} {int(kept[units.slices[one.name]].sum())} of {one.units}" for one in units.sites)
        print(
            f"{name}: loss {float(found['loss']):.3f} at a penalty of .001, units kept: {', '.join(sites)}", flush=True
        )
        report_of(wt.audit(wt.Subject(net, name=name), task, audits="circuit"), f"circuits, {name}")


PARTS: Mapping[str, Callable[[Mapping[str, BareTransformer]], None]] = {
    "default": compared, "structure": partial(compared, audits="structure"),
    "heads": partial(compared, audits="heads"), "symmetry": symmetry, "circuits": circuits,
}  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, default=DATA)
    arguments.add_argument("--only", choices=PARTS)
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    nets = {name: loaded(asked.data, name) for name in NETS}
    inputs, sums = every(59)
    for name, net in nets.items():
        with torch.no_grad():
            right = int((net(inputs)[:, -1].argmax(1) == sums).sum())
        print(f"{name}: {right:,} of {len(sums):,} sums right; gradient symmetricity {gradient_symmetricity(net):.4f}, "
              f"distance irrelevance {distance_irrelevance(net):.4f}; published {PUBLISHED.get(name, 'none')}")  # fmt: skip
    for part, run in PARTS.items():
        if asked.only in (None, part):
            began = time.process_time()
            run(nets)
            print(f"({part}: {time.process_time() - began:.0f} CPU-s)", flush=True)


if __name__ == "__main__":
    main()
