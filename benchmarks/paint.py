"""``python -m benchmarks.paint [--json FILE] [--steps N] [--kinds A,B]``: how fast nets are trained to draw a picture, and how well.

CPU time of one update of one net, beside a plain autograd loop that does the same; then the error of five seeds at 64 x
64 pixels for the skull of Picbreeder (where its genome is there) and for a built-in picture.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from wheeltap.core.task import Task
from wheeltap.models.cppn import Cppn, Layout, grid
from wheeltap.recipes.base import Given, recipe_of, spec
from wheeltap.recipes.make import Artifact, make
from wheeltap.suites.pictures.nets.pictures import picture
from wheeltap.suites.pictures.recipes.picture import start
from wheeltap.suites.pictures.sources.genomes import read_genome
from wheeltap.suites.pictures.studies.pictures import KINDS

SKULL: Final = Path(__file__).parents[2] / "shared" / "data" / "picbreeder" / "skull.zip"
SIZE: Final = 64
SEEDS: Final = range(5)
REPEATS: Final = 5
TIMED_STEPS: Final = 50

BAR_SECONDS: Final = 0.005
BAR_ERROR: Final = 0.006

Row = dict[str, Any]


def _nets() -> dict[str, Cppn]:
    found = {"face": picture("face").genome.layerize()}
    return {"skull": read_genome(SKULL).layerize(), **found} if SKULL.is_file() else found


def by_autograd(layout: Layout, canvas: Task) -> Callable[[int], None]:
    """A loop of updates as anybody would write it."""
    net = Cppn.of(layout, start(layout, 0)).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    parameters = list(net.parameters())

    def loop(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            (net(canvas.inputs) - canvas.targets).square().mean().backward()
            length = torch.sqrt(sum((p.grad.square().sum() for p in parameters if p.grad is not None), torch.zeros(())))
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(length + 1e-12)
            optimizer.step()

    return loop


def canvas_of(net: Cppn) -> Task:
    """What a net draws, as examples."""
    return Task(grid(SIZE), torch.from_numpy(net.render(SIZE)).view(-1, 3), name="canvas")


def painted(layout: Layout, canvas: Task, **settings: Any) -> list[Artifact]:
    """A net of every seed by the recipe."""
    filled = {"layout": str(layout), **settings}
    given = [Given(spec("picture", filled, seed=seed, data=canvas.digest), task=canvas) for seed in SEEDS]
    return [make(one, recipe_of(one.spec)) for one in given]


def by_hand(layout: Layout, canvas: Task) -> Callable[[int], None]:
    """The recipe, all seeds one after another."""

    def loop(steps: int) -> None:
        painted(layout, canvas, steps=steps)

    return loop


def _cpu(loop: Callable[[int], None], steps: int) -> float:
    began = time.process_time()
    loop(steps)
    return time.process_time() - began


def speed(net: Cppn) -> Row:
    """CPU seconds per update and net on one thread, one after the other in turn, since others may use the machine."""
    canvas = canvas_of(net)
    plain, ours = by_autograd(net.layout, canvas), by_hand(net.layout, canvas)
    plain(3)
    pairs = [
        (_cpu(plain, TIMED_STEPS) / TIMED_STEPS, _cpu(ours, TIMED_STEPS) / TIMED_STEPS / len(SEEDS))
        for _ in range(REPEATS)
    ]
    return {
        "layout": str(net.layout),
        "autograd": statistics.median(a for a, _ in pairs),
        "recipe": statistics.median(b for _, b in pairs),
        "ratio": statistics.median(a / b for a, b in pairs),
        "ratios": [min(a / b for a, b in pairs), max(a / b for a, b in pairs)],
    }


def table(name: str, kind: str, nets: list[Artifact]) -> str:
    """Errors of every seed over the steps."""
    steps = nets[0].report["steps"]
    at = np.unique(np.linspace(0, len(steps) - 1, 9).round().astype(int))
    lines = [f"{name}, {kind}: seed " + "".join(f"{steps[k]:>9,}" for k in at)]
    for seed, net in zip(SEEDS, nets, strict=True):
        row = "".join(f"{net.report['errors'][k]:9.4f}" for k in at)
        restarts = int(net.report["restarts"])
        lost = f", {restarts} starts lost" if restarts else ""
        lines.append(f"{'':{len(name) + len(kind) + 4}}{seed:4d} {row}  {net.status}{lost}")
    return "\n".join(lines)


def trained(net: Cppn, kind: str, steps: int) -> tuple[list[Artifact], Row]:
    """Five seeds of a kind, and what they cost."""
    settings, began = {"steps": steps, **KINDS[kind]}, time.process_time()
    nets = painted(net.layout, canvas_of(net), **settings)
    spent = time.process_time() - began
    errors = [float(made.report["errors"][-1]) for made in nets]
    return nets, {
        "errors": errors,
        "median": float(np.median(errors)),
        "status": [made.status for made in nets],
        "restarts": [int(made.report["restarts"]) for made in nets],
        "cpu_seconds": spent,
        "cpu_seconds_per_step_and_seed": spent / max(settings["steps"], 1) / len(SEEDS),
        "nonzero": [sum(int(p.count_nonzero()) for p in made.model.parameters()) for made in nets],
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.paint", description=__doc__)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--steps", type=int, default=4000, help="updates of each net [4000]")
    parser.add_argument("--kinds", default="sgd", help=f"kinds of nets, of {', '.join(KINDS)} [sgd]")
    return parser.parse_args()


def main() -> None:
    """Times one update, then trains."""
    given = _arguments()
    torch.set_num_threads(1)
    found: dict[str, Row] = {}
    for name, net in _nets().items():
        took = found.setdefault(name, {})["speed"] = speed(net)
        print(
            f"{name}, {took['layout']}: {1e3 * took['recipe']:.2f} ms CPU per update and seed; autograd loop "
            f"{1e3 * took['autograd']:.2f} ms, {took['ratio']:.1f} times as much "
            f"[{took['ratios'][0]:.1f}, {took['ratios'][1]:.1f}]",
            flush=True,
        )
        for kind in given.kinds.split(","):
            nets, row = trained(net, kind, given.steps)
            found[name][kind] = row
            print(table(name, kind, nets))
            print(f"  median {row['median']:.4f}; {row['cpu_seconds']:.0f} CPU seconds", flush=True)
    if "skull" in found and "sgd" in found["skull"]:
        fast, good = found["skull"]["speed"]["recipe"] <= BAR_SECONDS, found["skull"]["sgd"]["median"] <= BAR_ERROR
        print(f"skull: at most {BAR_SECONDS} CPU seconds: {fast}; median error at most {BAR_ERROR}: {good}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
