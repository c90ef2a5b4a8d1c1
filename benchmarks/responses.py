"""``python -m benchmarks.responses [--json FILE] [--data FOLDER] [--quick]``: measured numbers beside published ones.

The skull and the butterfly of arXiv:2505.11581, evolved (pb) and trained (sgd), and an untrained net of the same layout
(init): symmetry of response at fixed changes, in the limit and at equal effect; distinct feature maps and the symmetry
of features. ``--quick`` takes an eighth of the weights and leaves the published numbers of samples out of reach.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from benchmarks.published import DELTAS, at_fixed_deltas, at_no_effect
from wheeltap.core import symmetry
from wheeltap.models.cppn import Cppn, Layout, grid
from wheeltap.stats.clusters import ClusterMean
from wheeltap.suites.pictures import stats
from wheeltap.suites.pictures.engine import Evaluation, Moves, at_equal_effect, single_weights

SIZE: Final = 64
EFFECTS: Final = (0.02, 0.045, 0.09, 0.18, 0.35)
KINDS: Final = ("pb", "sgd", "init")
SAMPLE: Final = {"skull": 800, "butterfly": 200}
BINS: Final = ("S .01-.03", "S .03-.06", "S .06-.12", "S .12-.25", "S .25-.6")

# Jacobian, |dw| = 1, the five bins; share of weights with Jacobian S > .8; median RMSE at |dw| = 1.
RESPONSES: Final[dict[tuple[str, str], tuple[float, ...]]] = {
    ("skull", "pb"): (0.721, 0.824, 0.701, 0.717, 0.753, 0.786, 0.839),
    ("skull", "sgd"): (0.560, 0.593, 0.562, 0.569, 0.583, 0.624, 0.689),
    ("skull", "init"): (0.534, 0.548, 0.535, 0.535, 0.536, 0.541, 0.552),
    ("butterfly", "pb"): (0.691, 0.731, 0.732, 0.672, 0.643, 0.701, 0.866),
    ("butterfly", "sgd"): (0.537, 0.588, 0.544, 0.548, 0.576, 0.651, 0.787),
}
SYMMETRIC: Final = {
    ("skull", "pb"): 0.351, ("skull", "sgd"): 0.0, ("butterfly", "pb"): 0.247, ("butterfly", "sgd"): 0.005,
}  # fmt: skip
MEDIANS: Final = {
    ("skull", "pb"): 0.298, ("skull", "sgd"): 0.097, ("skull", "init"): 0.216, ("butterfly", "pb"): 0.147,
    ("butterfly", "sgd"): 0.063,
}  # fmt: skip
MAPS: Final = ("distinct_99", "distinct_90", "basis_free")
# All units; without copies.
FEATURES: Final[dict[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]]] = {
    ("skull", "pb"): ((20, 16, 0.963), (17, 13, 0.964)),
    ("skull", "sgd"): ((260, 242, 0.629), (84, 82, 0.479)),
    ("skull", "init"): ((261, 142, 0.721), (84, 63, 0.634)),
    ("butterfly", "pb"): ((32, 25, 0.959), (29, 22, 0.936)),
    ("butterfly", "sgd"): ((362, 309, 0.598), (95, 95, 0.482)),
    ("butterfly", "init"): ((364, 184, 0.771), (96, 76, 0.679)),
}


@dataclass(frozen=True)
class Cell:
    """One number: where it stands, what was measured and its standard error over weights, what was published."""

    net: str
    table: str
    number: str
    measured: float
    se: float | None = None
    published: float | None = None
    note: str = ""

    def __str__(self) -> str:
        error = "" if self.se is None else f" ({self.se:.3f})"
        beside = "" if self.published is None else f"{self.published:10.3f}{self.measured - self.published:+10.4f}"
        return f"{self.net:16}{self.table:22}{self.number:18}{self.measured:9.4f}{error:9}{beside} {self.note}"


def untrained(layout: Layout) -> Cppn:
    """LeCun normal, truncated at two standard deviations, layer by layer from one stream."""
    rng = np.random.default_rng(0)
    kernels = [np.clip(rng.standard_normal(s), -2, 2) / 0.87962566 / np.sqrt(s[0]) for s in layout.shapes]
    return Cppn.of(layout, [kernel.astype(np.float32) for kernel in kernels])


def nets(folder: Path) -> Iterator[tuple[str, str, Cppn]]:
    for name in SAMPLE:
        with np.load(folder / f"{name}_layerized_and_sgd_params.npz") as held:
            arch, flat = str(held["arch"]), {kind: held[kind] for kind in ("pb", "sgd")}
        for kind in KINDS:
            layout = Layout.parse(arch)
            yield name, kind, Cppn.of(layout, layout.split(flat[kind])) if kind in flat else untrained(layout)


def responses(name: str, kind: str, net: Cppn, *, part: int) -> Iterator[Cell]:
    inputs, at, key = grid(SIZE), f"{name} {kind}", (name, kind)
    group = symmetry.mirror(inputs[:, :2])
    total, rng = net.layout.parameters, np.random.default_rng(0)
    ids = net.links() if kind == "pb" else rng.choice(total, min(SAMPLE[name] // part, total), replace=False)
    moves = single_weights(net.layout, ids)
    published = RESPONSES.get(key, (None,) * 7)
    slopes = at_no_effect(net, inputs, group, moves)
    yield Cell(
        at, "limit", "S", slopes.mean.value, slopes.mean.se, published[0], f"{slopes.dropped} of {len(moves)} dropped"
    )
    share = float((slopes.symmetry[slopes.kept] > 0.8).mean())
    yield Cell(at, "limit", "share S > .8", share, None, SYMMETRIC.get(key))
    picture = Evaluation(net, inputs, symmetry=group)
    one = picture.respond(moves, np.array([1.0, -1.0]))
    large = one.rmse > 1e-3
    yield Cell(at, "|dw| = 1", "S", float(one.symmetry[large].mean()), None, published[1])
    yield Cell(at, "|dw| = 1", "median RMSE", float(np.median(one.rmse[large])), None, MEDIANS.get(key))
    start = time.perf_counter()
    means = at_fixed_deltas(picture, moves)
    spent = (time.perf_counter() - start) / (2 * len(DELTAS) * len(moves))
    yield from levels(at, "fixed changes", means, published[2:])
    yield Cell(at, "fixed changes", "ms a response", 1e3 * spent, None, None, f"{len(moves)} weights")
    for effect in EFFECTS:
        swept = at_equal_effect(picture, some(moves, part), effect=effect)
        note = f"n {swept.symmetry.values} of {swept.symmetry.clusters} weights, {swept.unreached} unreached"
        yield Cell(at, "equal effect", f"S at {effect:.3f}", swept.symmetry.value, swept.symmetry.se, None, note)


def some(moves: Moves, part: int) -> Moves:
    """A quarter of a large sample: finding sizes takes several responses each."""
    count = min(len(moves), max(104, len(moves) // (4 * part)))
    return moves.part(np.sort(np.random.default_rng(1).permutation(len(moves))[:count]))


def levels(net: str, table: str, means: list[ClusterMean], published: tuple[float | None, ...] = ()) -> Iterator[Cell]:
    for at, mean in enumerate(means):
        note = f"n {mean.values} of {mean.clusters} weights"
        yield Cell(net, table, BINS[at], mean.value, mean.se, published[at] if at < len(published) else None, note)


def features(name: str, kind: str, net: Cppn) -> Iterator[Cell]:
    inputs = grid(128)
    with torch.no_grad():
        layers = [maps.numpy() for maps in net.double().maps(inputs.double())]
    net.float()
    group = symmetry.mirror(inputs[:, :2]).examples.numpy()
    every = np.ones(net.layout.width, dtype=np.bool_)
    for at, (table, kept) in enumerate((("maps", every), ("maps without copies", ~net.layout.carried))):
        maps = [layer[:, kept] for layer in layers]
        pooled = np.concatenate(maps, 1)
        spans = [stats.directions(layer, group) for layer in maps if stats.live(layer).any()]
        pure = float(np.mean([np.abs(2.0 * shares - 1.0).mean() for shares in spans]))
        measured = (*(stats.distinct(pooled, threshold=threshold) for threshold in (0.99, 0.90)), pure)
        for number, value, published in zip(MAPS, measured, FEATURES[name, kind][at], strict=True):
            yield Cell(f"{name} {kind}", table, number, value, None, published)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.responses", description=__doc__)
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/picbreeder"), help="folder of the npz files")
    parser.add_argument("--quick", action="store_true", help="an eighth of the weights and directions")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: list[dict[str, Any]] = []
    print(f"{'net':16}{'table':22}{'number':18}{'measured':>9}{' (se)':9}{'published':>10}{'gap':>10}")
    for name, kind, net in nets(options.data):
        for cells in (features(name, kind, net), responses(name, kind, net, part=8 if options.quick else 1)):
            for cell in cells:
                print(cell, flush=True)
                found.append(asdict(cell))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
