"""``python -m benchmarks.census [--seeds N] [--flips N] [--only a,b] [--json FILE]``.

The census of weights (WT002) over the zoo: false alarms on sound nets and on copies of them, and which flips of one
exponent bit from 0 to 1 are named, by format and bit, with the score as it was or not.
"""

import argparse
import copy
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.nets import zoo
from wheeltap import gauge
from wheeltap.core.task import BaseTask
from wheeltap.engine.readings.census import outliers
from wheeltap.stats.effect import score_interval
from wheeltap.testing.planted import PlantedCase

FORMATS = {
    torch.float32: (torch.int32, 23, 8), torch.bfloat16: (torch.int16, 7, 8), torch.float16: (torch.int16, 10, 5),
}  # fmt: skip
"""By format: whole numbers of as many bits, bits of the fraction, bits of the exponent."""

TWINS: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("rescale", {"spread": spread}) for spread in (1.0, 2.0)),
    *(("cancel", {"scale": scale, "pairs": pairs}) for scale in (4.0, 64.0, 256.0) for pairs in (1, 2, 0.25)),
    *((name, {}) for name in ("dead", "split", "entangle", "fold", "rotate", "shift", "value", "query")),
)
"""Gauges of the copies, with their settings."""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--flips", type=int, default=4, help="weights of each net whose bits are flipped in turn")
    arguments.add_argument("--only", default="", help="members of the zoo")
    arguments.add_argument("--json", type=Path)
    asked = arguments.parse_args()
    torch.set_num_threads(1)
    names = asked.only.split(",") if asked.only else zoo.names()
    sound, alarms, flips = Counter[str](), list[str](), Counter[tuple[str, int, str]]()
    rng, began = np.random.default_rng(0), time.perf_counter()
    for at, name in enumerate(names):
        for seed in range(asked.seeds):
            for dtype in FORMATS if seed == 0 else (torch.float32,):
                made = zoo.made(name, seed=seed, dtype=dtype)
                for kind, model in (("trained", made.subject.model), *_copies(made.subject.model, seed)):
                    found = outliers(model)
                    sound[kind] += 1
                    alarms += [f"{made.subject.name} {kind}: {found[0]}"] if found else []
                _flipped(made, dtype, asked.flips, rng, flips)
        print(f"{at + 1} of {len(names)}: {name}, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    print("\n".join([*_sound(sound, alarms), "", *_flips(flips)]))
    if asked.json is not None:
        rows = [{"format": f, "bit": b, "what": what, "count": n} for (f, b, what), n in sorted(flips.items())]
        asked.json.write_text(json.dumps({"sound": sound, "alarms": alarms, "flips": rows}, indent=1) + "\n")


def _copies(model: nn.Module, seed: int) -> Iterator[tuple[str, nn.Module]]:
    """Sound copies: pruned, rounded to 4 bits, reparametrized."""
    for kind in ("pruned", "rounded"):
        made = copy.deepcopy(model)
        with torch.no_grad():
            for weight in (one for one in made.parameters() if one.ndim >= 2):
                wide = weight.float()
                if kind == "pruned":
                    weight[wide.abs() < wide.abs().flatten().quantile(0.7)] = 0.0
                else:
                    step = wide.abs().amax(-1, keepdim=True).clamp_min(1e-12) / 7
                    weight.copy_((wide / step).round() * step)
        yield kind, made
    family = gauge.find(model)
    if isinstance(family, gauge.Refusal):
        return
    for name, settings in TWINS:
        if name in family.offers:
            yield name, gauge.twin(model, gauge.describe(family, name, seed=seed, **settings))


def _flipped(
    made: PlantedCase, dtype: torch.dtype, count: int, rng: np.random.Generator, flips: Counter[tuple[str, int, str]]
) -> None:
    """Flips each exponent bit that is 0 of some weights: half of them of any tensor, half of any place."""
    parameters = dict(made.subject.model.named_parameters())
    sizes = np.array([one.numel() for one in parameters.values()])
    clean = _score(made.task, made.subject.model)
    for at in range(count):
        name = list(parameters)[int(rng.choice(len(sizes), p=None if at % 2 else sizes / sizes.sum()))]
        place = tuple(int(rng.integers(size)) for size in parameters[name].shape)
        for bit in range(FORMATS[dtype][2]):
            with _bit_set(parameters[name].data, place, bit) as changed:
                if changed is None:
                    continue
                form, top = str(dtype).removeprefix("torch."), FORMATS[dtype][2] - 1 - bit
                if not changed:
                    flips[form, top, "no finite number: refused"] += 1
                    continue
                seen = (name, place) in {(one.name, one.place) for one in outliers(made.subject.model)}
                score = _score(made.task, made.subject.model) if top == 0 else clean
                how = "answers not finite" if score is None else "equal" if score == clean else "other score"
                how = "unread" if top else how
                flips[form, top, f"{how}: {'named' if seen else 'not named'}"] += 1


def _score(task: BaseTask, model: nn.Module) -> float | None:
    """The mean of the benchmark's measure; ``None`` where the answers are not finite."""
    scores = task.scores(model)
    if not bool(torch.isfinite(scores).all()):
        return None
    return float(task.measure(scores, task.targets, scores).double().mean())


@contextmanager
def _bit_set(values: Tensor, place: tuple[int, ...], bit: int) -> Iterator[bool | None]:
    """A bit of a value's exponent set while the block runs: whether that is a finite number, ``None`` if it was set."""
    form, fraction, _ = FORMATS[values.dtype]
    before = values[place].clone()
    code = int(before.reshape(1).view(form).to(torch.int64))
    if code >> (fraction + bit) & 1:
        yield None
        return
    after = torch.tensor([code | 1 << (fraction + bit)]).to(form).view(values.dtype)[0]
    finite = bool(torch.isfinite(after))
    try:
        if finite:
            values[place] = after
        yield finite
    finally:
        values[place] = before


def _sound(sound: Counter[str], alarms: list[str]) -> Iterator[str]:
    yield "| sound nets | how many |"
    yield "|---|---|"
    yield from (f"| {kind} | {count:,} |" for kind, count in sound.items())
    yield f"| in all | {sum(sound.values()):,} |"
    yield f"| of these with an outlier | {len(alarms)} |"
    yield from (f"  {alarm}" for alarm in alarms)


def _flips(flips: Counter[tuple[str, int, str]]) -> Iterator[str]:
    yield "| format | bit, 0 the top one | score | flips | named |"
    yield "|---|---|---|---|---|"
    for form, bit, how in sorted({(form, bit, what.split(":")[0]) for form, bit, what in flips}):
        if how == "no finite number":
            yield f"| {form} | {bit} | {how} | {flips[form, bit, f'{how}: refused']} | refused, with its tensor |"
            continue
        named, missed = (flips[form, bit, f"{how}: {what}"] for what in ("named", "not named"))
        each = np.repeat([1.0, 0.0], [named, missed])
        yield f"| {form} | {bit} | {how} | {named + missed} | {score_interval(each, bounded=True, unit='share')} |"


if __name__ == "__main__":
    main()
