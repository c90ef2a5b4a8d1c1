"""``python -m benchmarks.responses [--json FILE] [--data FOLDER] [--quick]``: measured numbers beside published ones.

The skull and the butterfly of arXiv:2505.11581, evolved (pb) and trained (sgd), and an untrained net of the same layout
(init): symmetry of response at fixed changes, in the limit and at equal effect; random directions; feature maps; and
modularity at an equal number of links. ``--quick`` takes an eighth of the weights and leaves the published numbers of
samples out of reach.
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

from benchmarks.published import DELTAS, at_fixed_deltas, at_no_effect, map_metrics
from wheeltap.core import symmetry
from wheeltap.models.cppn import Cppn, Layout, grid
from wheeltap.stats.clusters import ClusterMean
from wheeltap.suites.pictures.engine import Evaluation, Moves, at_equal_effect, random_directions, single_weights
from wheeltap.suites.pictures.stats import net_modularity

SIZE: Final = 64
EFFECTS: Final = (0.02, 0.045, 0.09, 0.18, 0.35)
KINDS: Final = ("pb", "sgd", "init")
SAMPLE: Final = {"skull": 800, "butterfly": 200}
LINKS: Final = {"skull": 147, "butterfly": 281}
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
DIRECTIONS: Final = {
    ("skull", "pb"): 0.778, ("skull", "sgd"): 0.605, ("skull", "init"): 0.544, ("butterfly", "pb"): 0.812,
    ("butterfly", "sgd"): 0.599,
}  # fmt: skip
DIRECTION_BINS: Final = {
    ("butterfly", "pb"): (0.683, 0.685, 0.699, 0.746, 0.849), ("butterfly", "sgd"): (0.554, 0.564, 0.582, 0.658, 0.738),
}  # fmt: skip
MAPS: Final = (
    "live",
    "distinct_99",
    "distinct_90",
    "effective_rank",
    "purity",
    "basis_free",
    "pure_directions",
    "roughness",
)
FEATURES: Final[dict[tuple[str, str], tuple[tuple[float, ...], tuple[float, ...]]]] = {
    ("skull", "pb"): ((97, 20, 16, 6.0, 0.994, 0.963, 0.79, 2.30), (19, 17, 13, 6.3, 0.979, 0.964, 0.82)),
    ("skull", "sgd"): ((264, 260, 242, 22.5, 0.350, 0.629, 0.29, 3.62), (84, 84, 82, 24.7, 0.325, 0.479, 0.10)),
    ("skull", "init"): ((264, 261, 142, 6.7, 0.436, 0.721, 0.47, 2.68), (84, 84, 63, 8.3, 0.398, 0.634, 0.35)),
    ("butterfly", "pb"): ((190, 32, 25, 9.0, 0.980, 0.959, 0.87, 2.68), (30, 29, 22, 11.1, 0.943, 0.936, 0.83)),
    ("butterfly", "sgd"): ((365, 362, 309, 18.1, 0.513, 0.598, 0.27, 3.58), (95, 95, 95, 28.1, 0.394, 0.482, 0.11)),
    ("butterfly", "init"): ((368, 364, 184, 6.5, 0.450, 0.771, 0.54, 2.42), (96, 96, 76, 8.4, 0.441, 0.679, 0.29)),
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
    along = random_directions(net, 200 // part, rng=np.random.default_rng(0))
    one = picture.respond(along, np.array([1.0, -1.0]))
    large = one.rmse > 1e-3
    yield Cell(at, "directions, |t| = 1", "S", float(one.symmetry[large].mean()), None, DIRECTIONS.get(key))
    yield from levels(at, "directions, fixed", at_fixed_deltas(picture, along), DIRECTION_BINS.get(key, ()))


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
    for at, (table, excluded) in enumerate((("maps", None), ("maps without copies", net.layout.carried))):
        found = map_metrics(layers, group, size=128, excluded=excluded)
        published = FEATURES[name, kind][at]
        for place, number in enumerate(MAPS):
            wanted = published[place] if place < len(published) else None
            yield Cell(f"{name} {kind}", table, number, float(getattr(found, number)), None, wanted)


def wiring(name: str, kind: str, net: Cppn) -> Iterator[Cell]:
    found = net_modularity(net.kernels(), links=LINKS[name], rewirings=20, rng=np.random.default_rng(0))
    note = f"rewired {found.rewired.mean():.3f}, z {found.z:.2f}, p {found.p:.3f}"
    yield Cell(f"{name} {kind}", f"{LINKS[name]} links", "Q", found.value, None, None, note)


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
        for cells in (
            features(name, kind, net),
            responses(name, kind, net, part=8 if options.quick else 1),
            wiring(name, kind, net),
        ):
            for cell in cells:
                print(cell, flush=True)
                found.append(asdict(cell))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
