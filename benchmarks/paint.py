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

from wheeltap.models.cppn import Cppn, Layout
from wheeltap.models.pictures import picture
from wheeltap.recipes.paint import KINDS, Canvas, Painted, PaintSettings, Studio, of_kind, paint
from wheeltap.recipes.trainee import start
from wheeltap.sources import genomes

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
    return {"skull": genomes.read(SKULL).layerize(), **found} if SKULL.is_file() else found


def by_autograd(layout: Layout, canvas: Canvas) -> Callable[[int], None]:
    """A loop of updates as anybody would write it."""
    net = Cppn.of(layout, start(layout, 0)).train()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    parameters = list(net.parameters())

    def loop(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            (net(canvas.inputs) - canvas.target).square().mean().backward()
            length = torch.sqrt(sum((p.grad.square().sum() for p in parameters if p.grad is not None), torch.zeros(())))
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.div_(length + 1e-12)
            optimizer.step()

    return loop


def by_hand(layout: Layout, canvas: Canvas, *, threads: int = 1) -> Callable[[int], None]:
    """The recipe, all seeds together."""

    def loop(steps: int) -> None:
        paint(layout, canvas, seeds=SEEDS, settings=PaintSettings(steps=steps), studio=Studio(threads=threads))

    return loop


def _cpu(loop: Callable[[int], None], steps: int) -> float:
    began = time.process_time()
    loop(steps)
    return time.process_time() - began


def speed(net: Cppn) -> Row:
    """CPU seconds per update and net on one thread, one after the other in turn, since others may use the machine."""
    canvas = Canvas.of(net.render(SIZE))
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


def table(name: str, kind: str, painted: Painted) -> str:
    """Errors of every seed over the steps."""
    at = np.unique(np.linspace(0, len(painted.steps) - 1, 9).round().astype(int))
    lines = [f"{name}, {kind}: seed " + "".join(f"{painted.steps[k]:>9,}" for k in at)]
    for number, seed in enumerate(painted.seeds):
        row = "".join(f"{painted.errors[k, number]:9.4f}" for k in at)
        lost = f", {painted.restarts[number]} starts lost" if painted.restarts[number] else ""
        lines.append(f"{'':{len(name) + len(kind) + 4}}{seed:4d} {row}  {painted.status[number]}{lost}")
    return "\n".join(lines)


def trained(net: Cppn, kind: str, steps: int) -> tuple[Painted, Row]:
    """Five seeds of a kind, and what they cost."""
    settings, began = of_kind(kind, PaintSettings(steps=steps)), time.process_time()
    painted = paint(net.layout, Canvas.of(net.render(SIZE)), seeds=SEEDS, settings=settings)
    spent = time.process_time() - began
    return painted, {
        "errors": painted.errors[-1].tolist(),
        "median": float(np.median(painted.errors[-1])),
        "status": list(painted.status),
        "restarts": list(painted.restarts),
        "cpu_seconds": spent,
        "cpu_seconds_per_step_and_seed": spent / max(settings.steps, 1) / len(SEEDS),
        "nonzero": [int(np.count_nonzero(made.flat_parameters())) for made in painted.nets],
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
            painted, row = trained(net, kind, given.steps)
            found[name][kind] = row
            print(table(name, kind, painted))
            print(f"  median {row['median']:.4f}; {row['cpu_seconds']:.0f} CPU seconds", flush=True)
    if "skull" in found and "sgd" in found["skull"]:
        fast, good = found["skull"]["speed"]["recipe"] <= BAR_SECONDS, found["skull"]["sgd"]["median"] <= BAR_ERROR
        print(f"skull: at most {BAR_SECONDS} CPU seconds: {fast}; median error at most {BAR_ERROR}: {good}")
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
