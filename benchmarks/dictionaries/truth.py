"""How much of a known dictionary is found, beside the share of the variance that is explained.

    python -m benchmarks.dictionaries truth small
    python -m benchmarks.dictionaries truth published --steps 2000 --rows 100000

``small`` has the ratios of the published benchmark (features and active features for each number of a vector);
``published`` its size: 16,384 features of vectors of 768 numbers, 34 of them active. Beside each trained dictionary
stand a frozen decoder and random directions. All but the directions found is measured on fresh vectors.
"""

import argparse
import time
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.dictionaries.known import Truth
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.make import make
from wheeltap.suites.dictionaries import stats
from wheeltap.suites.dictionaries.activations import of_array
from wheeltap.suites.dictionaries.dictionary import Dictionary
from wheeltap.suites.dictionaries.recipes import DictionaryRecipe

SIZES = {
    "small": Truth(width=96, features=2048, active=4.25, seed=0),
    "published": Truth(width=768, features=16_384, active=34.0, seed=0),
}
RUNS: dict[str, list[tuple[str, str]]] = {
    "small": [("topk", "own"), ("relu", "own"),
              ("topk", "frozen decoder"), ("topk", "soft-frozen decoder")],
    "published": [("topk", "own"), ("topk", "frozen decoder")],
}  # fmt: skip

MATCHED = 4096
"""Features, at most, of which one-to-one pairs are sought: it takes their cube."""

NEAR = (0.8, 0.9)
"""Cosines from which a feature counts as found."""


def nearest(true: Tensor, found: Tensor) -> Tensor:
    """Largest cosine of each true direction with one that was found, ``[feature]``."""
    units = found / found.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return torch.cat([(part @ units.T).max(1).values for part in true.split(1024)])


def measured(one: Dictionary, truth: Truth, fresh: Tensor) -> str:
    """One row of the table."""
    true = torch.from_numpy(truth.directions())
    best, left, active, fired = nearest(true, one.W_dec), 0.0, 0.0, torch.zeros(len(one.W_dec), dtype=torch.bool)
    for part in fresh.split(1024):
        codes = one.encode(part)
        left += float((one.decode(codes, part) - part).square().sum())
        active += float((codes != 0).sum()) / len(fresh)
        fired |= (codes != 0).any(0)
    explained = 1.0 - left / float((fresh - fresh.mean(0)).square().sum())
    matched = float("nan")
    if len(true) <= MATCHED:  # mean cosine of true directions with those that they are matched with one to one
        units = one.W_dec / one.W_dec.norm(dim=1, keepdim=True).clamp_min(1e-12)
        likeness = (true @ units.T).numpy()  # true directions have norm 1
        matched = float(likeness[stats.matching(likeness)].sum()) / max(likeness.shape)
    near = "  ".join(f"{float((best > edge).float().mean()):5.1%}" for edge in NEAR)
    return (f"explained {explained:6.1%}  L0 {active:5.2f}  dead {int((~fired).sum()):5d}  MCC {matched:.3f}  "
            f"mean best cosine {float(best.mean()):.3f}  found (cosine > {', '.join(map(str, NEAR))}) {near}")  # fmt: skip


def main(argv: list[str]) -> None:
    """Prints a row for each dictionary."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("size", choices=tuple(SIZES))
    for name, value in {"rows": 0, "steps": 0, "batch": 0, "seed": 0, "threads": 1}.items():
        asked.add_argument(f"--{name}", type=int, default=value)
    asked.add_argument("--rate", type=float, default=0.0)
    asked.add_argument("--skew", type=float, default=0.0)
    asked.add_argument("--correlation", type=float, default=0.0)
    asked.add_argument("--noise", type=float, default=0.0)
    asked.add_argument("--only", default="", help="architectures, with commas between")
    given = asked.parse_args(argv)
    base = SIZES[given.size]
    truth = Truth(width=base.width, features=base.features, active=base.active, skew=given.skew,
                  correlation=given.correlation, noise=given.noise, seed=given.seed)  # fmt: skip
    began = time.monotonic()
    task = of_array(truth.vectors(given.rows or 100_000))
    fresh = torch.from_numpy(truth.vectors(10_000, part="fresh"))
    print(f"{truth}\n{len(task.targets):,} vectors to learn from: {time.monotonic() - began:.0f} s", flush=True)
    how: dict[str, Any] = {"features": truth.features, "k": round(truth.active)}
    how |= {name: getattr(given, name) for name in ("steps", "batch", "rate") if getattr(given, name)}
    for architecture, kind in RUNS[given.size]:
        if given.only and architecture not in given.only.split(","):
            continue
        spec = specified(DictionaryRecipe, {**how, "architecture": architecture, "kind": kind}, seed=given.seed,
                         data=task.digest)  # fmt: skip
        began, cpu = time.monotonic(), time.process_time()
        made = make(Given(spec, (), task), DictionaryRecipe(dict(spec.settings)))
        one = cast("Dictionary", made.model)
        one.freeze()
        took = f"{time.monotonic() - began:4.0f} s ({time.process_time() - cpu:.0f} CPU s)"
        print(f"{architecture:9} {kind:19} {measured(one, truth, fresh)}  {took}", flush=True)
    random = np.random.default_rng(given.seed).standard_normal((truth.features, truth.width)).astype(np.float32)
    best = nearest(torch.from_numpy(truth.directions()), torch.from_numpy(random))
    print(
        f"random directions: mean best cosine {float(best.mean()):.3f}, found {float((best > NEAR[0]).float().mean()):.1%}"
    )
