"""Known features of two public nets that add modulo 59: do dictionaries find the Fourier features that they compute by?

    python -m benchmarks.dictionaries fourier

The stream after the block holds waves in the sum of both numbers. Of a feature's codes over all 3,481 inputs the share
of the variance is given that one such wave makes up, cosine and sine together, and the same of all waves of the sum:
means over live features, by their variance. Beside the trained dictionary stand a frozen decoder, random directions,
the principal components, and the numbers of the vectors themselves.

Source: Zhong, Liu, Tegmark and Andreas 2023, "The clock and the pizza", arXiv:2306.17844 (nets and their features).
"""

from typing import cast

import torch
from torch import Tensor

from benchmarks.clock_pizza import DATA, NETS, every, loaded
from wheeltap.core.choices import ChoiceTask
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.make import make
from wheeltap.suites.dictionaries.activations import collect
from wheeltap.suites.dictionaries.dictionary import Dictionary
from wheeltap.suites.dictionaries.recipes import DictionaryRecipe

SITE, CLASSES = "blocks.0", 59
SETTINGS = {"site": SITE, "features": 256, "k": 8}
KINDS = ("own", "frozen decoder", "random", "pca", "identity")


def waves(codes: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Of each feature ``[feature]``: share of its variance in the largest wave of the sum, and in all of them."""
    angles = 2 * torch.pi * inputs.sum(1, keepdim=True) / CLASSES * torch.arange(1, CLASSES // 2 + 1)
    centered = (codes - codes.mean(0)).double()
    whole = centered.square().sum(0)
    # Over all inputs each wave has the same length and no part of another.
    parts = [(centered.T @ wave.double()).square() * 2 / len(inputs) for wave in (angles.cos(), angles.sin())]
    shares = (parts[0] + parts[1]) / whole[:, None].clamp_min(1e-30)
    return shares.max(1).values.float(), shares.sum(1).float()


def main(argv: list[str]) -> None:
    """Prints a row for each net and dictionary."""
    del argv
    inputs, sums = every(CLASSES)
    contexts = [[int(one) for one in row] for row in inputs]
    options = [[[int(total)], [(int(total) + 1) % CLASSES]] for total in sums]
    task = ChoiceTask(contexts, options, [0] * len(contexts))
    for name in NETS:
        net, entries = loaded(DATA, name).eval(), {}
        held = collect(net, task, SITE)
        for kind in KINDS:
            of = (net, entries["own"]) if kind == "random" else (net,)
            spec = specified(DictionaryRecipe, {**SETTINGS, "kind": kind}, seed=0, of=(name, "own")[: len(of)],
                             data=task.digest)  # fmt: skip
            entries[kind] = make(Given(spec, of, task), DictionaryRecipe(dict(spec.settings))).model
            one = cast("Dictionary", entries[kind])
            one.freeze()
            codes = one.encode(held)
            live = codes.var(0) > 0
            largest, every_wave = waves(codes[:, live], inputs)
            weight = codes[:, live].var(0) / codes.var(0).sum()
            explained = 1 - float((one(held) - held).square().sum() / (held - held.mean(0)).square().sum())
            print(f"{name:6} {kind:15} explained {explained:6.1%}  live {int(live.sum()):3d}  largest wave "
                  f"{float(weight @ largest):.3f}  all waves of the sum {float(weight @ every_wave):.3f}  features with "
                  f"one wave above .8: {float((largest > 0.8).float().mean()):.1%}", flush=True)  # fmt: skip
