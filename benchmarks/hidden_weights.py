"""Coverage of nets that hide weights, beside a count by bits.

``python -m benchmarks.hidden_weights`` audits 67 nets: 32 ways to hold weights that are no parameters, at two shares,
and three mixed ones. The count knows nothing of wheeltap: it compares the bytes of everything that a net stores before
and during a disturbance. Of the numbers that answers depend on it knows how each net was built.
"""

import base64
import functools
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core.records import UNCOVERED
from wheeltap.core.site import WHOLE
from wheeltap.core.subject import Subject
from wheeltap.engine.apply import Disturbance
from wheeltap.perturb import create

INPUTS, WIDTH, UNITS, CLASSES = 16, 32, 64, 10
HIDDEN: Final = UNITS * WIDTH
"""Weights that each way holds."""

SMALL, LARGE = 8, 200
"""Widths of the layer that makes the share of hidden weights large and small."""

CLOSE: Final = 0.02
"""Largest difference from the count by bits."""

Way = Callable[["Holder", Tensor, Tensor], Tensor]
"""From a holder, the net's inputs ``[example, 16]`` and hidden values ``[example, 32]``: ``[example, 64]``."""


class Scripted(nn.Module):
    """A product inside scripted code."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)

    def forward(self, given: Tensor) -> Tensor:
        """Units of rows."""
        return given @ self.weight.t()


class Holder(nn.Module):
    """Weights that are no parameters, and a buffer of the same size that nothing reads."""

    def __init__(self, way: str, seed: int) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        weight = torch.randn(UNITS, WIDTH, generator=draw) / 4
        self.register_buffer("unread", weight.clone())
        self.way = way
        match way:
            case "scripted":
                self.inner = torch.jit.script(Scripted(weight))
            case "frozen script":
                self.inner = torch.jit.freeze(torch.jit.script(Scripted(weight).eval()))
            case "codebook":
                edges, book = torch.linspace(-0.6, 0.6, 15), torch.linspace(-0.7, 0.7, 16)
                self.register_buffer("index", torch.bucketize(weight, edges))
                self.register_buffer("book", book)
            case "bits":
                bits = (weight > 0).numpy()
                self.register_buffer("packed", torch.from_numpy(np.packbits(bits, axis=1)))
            case "nibbles":
                codes = ((weight * 4).round().clamp(-7, 7) + 8).to(torch.uint8)
                self.register_buffer("packed", codes[:, ::2] * 16 + codes[:, 1::2])
            case "two planes" | "eight planes":
                bits = 2 if way == "two planes" else 8
                codes = torch.randint(2**bits, weight.shape, generator=draw)
                self.planes = list(codes >> torch.arange(bits)[:, None, None] & 1 == 1)
            case "truths":
                self.register_buffer("signs", weight > 0)
            case "array" | "array outside":
                self.array = weight.numpy()
            case "text":
                TEXTS[seed] = base64.b64encode(weight.numpy().tobytes()).decode()
                self.seed = seed
            case "cache":
                self.seed = seed
            case "rows of one sign":
                self.rows = list(weight.abs())
            case "added up" | "scattered":
                self.register_buffer("weight", weight.flatten())
                self.register_buffer("from_", torch.arange(WIDTH).repeat(UNITS))
                self.register_buffer("to_", torch.arange(UNITS).repeat_interleave(WIDTH))
            case "bytes":
                self.blob = weight.numpy().tobytes()
            case "numbers":
                self.rows = cast("list[list[float]]", weight.tolist())
            case "cached":
                self.own, self.kept = nn.Linear(WIDTH, UNITS, bias=False), cast("list[Tensor]", [])
            case "closure":
                self.held = {"product": lambda given: given @ weight.T}
            case "sparse":
                self.held = [weight.to_sparse()]
            case "scaled":
                self.gain = nn.Parameter(torch.ones(1))
                self.register_buffer("weight", weight)
            case "one sign":
                self.register_buffer("weight", weight.abs())
            case _:
                self.register_buffer("weight", weight)

    def forward(self, inputs: Tensor, given: Tensor) -> Tensor:
        """What the way computes."""
        return WAYS[self.way](self, inputs, given)


def _ids(inputs: Tensor) -> Tensor:
    """Two rows of a table for each example."""
    return ((inputs[:, :2] + 3) * 10).long().clamp(0, UNITS - 1)


def _bits(held: Holder, _: Tensor, given: Tensor) -> Tensor:
    bits = held.packed[:, :, None] >> torch.arange(7, -1, -1, dtype=torch.uint8) & 1
    return given @ (bits.flatten(1).float() * 2 - 1).T / 4


def _nibbles(held: Holder, _: Tensor, given: Tensor) -> Tensor:
    codes = torch.stack([held.packed >> 4, held.packed & 15], 2).flatten(1)
    return given @ ((codes.float() - 8) / 4).T


def _cached(held: Holder, _: Tensor, given: Tensor) -> Tensor:
    if not held.kept:
        held.kept.append(held.own.weight.detach().clone())
    return given @ held.kept[0].T


def _filtered(held: Holder, _: Tensor, given: Tensor) -> Tensor:
    """A filter of every frequency: number by number between two transforms."""
    wide = given[:, None].expand(-1, UNITS, -1).cumsum(1)
    return torch.fft.irfft(torch.fft.rfft(wide) * torch.fft.rfft(held.weight), n=WIDTH)[:, :, 0]


TEXTS: dict[int, str] = {}
"""Weights as texts that no net holds."""


@functools.lru_cache
def _kept(seed: int) -> "np.ndarray[Any, Any]":
    return np.random.default_rng(seed).normal(size=(UNITS, WIDTH)).astype(np.float32) / 4


def _text(held: Holder, _: Tensor, given: Tensor) -> Tensor:
    weight = np.frombuffer(base64.b64decode(TEXTS[held.seed]), np.float32).reshape(UNITS, WIDTH)
    return torch.from_numpy(given.numpy() @ weight.T)


def _planes(held: Holder, _: Tensor, given: Tensor) -> Tensor:
    wide = given[:, None]
    parts = [2**power * torch.where(plane, wide, -wide).sum(-1) for power, plane in enumerate(held.planes)]
    return torch.stack(parts).sum(0) / 2 ** len(parts)


def _scattered(held: Holder, _: Tensor, given: Tensor) -> Tensor:
    parts = given.index_select(1, held.from_) * held.weight
    return given.new_zeros(len(given), UNITS).scatter_add(1, held.to_.expand(len(given), -1), parts)


WAYS: dict[str, Way] = {
    "in place": lambda held, _, given: given.new_zeros(len(given), UNITS).addmm_(given, held.weight.T),
    "distance": lambda held, _, given: 4 - torch.cdist(given, held.weight),
    "squares": lambda held, _, given: 4 - (given[:, None] - held.weight).square().sum(-1) / 8,
    "one by one": lambda held, _, given: (
        4 - torch.stack([(given - row).square().sum(-1) for row in held.weight], 1) / 8
    ),
    "norms": lambda held, _, given: torch.stack(
        [torch.linalg.vector_norm(given - row, dim=-1) for row in held.weight.unbind()], 1
    ),
    "rows of one sign": lambda held, _, given: torch.stack([(given * row).sum(-1) for row in held.rows], 1),
    "added up": lambda held, _, given: given.new_zeros(len(given), UNITS).index_add_(
        1, held.to_, given[:, held.from_] * held.weight
    ),
    "scattered": _scattered,
    "text": _text,
    "cache": lambda held, _, given: torch.from_numpy(given.numpy() @ _kept(held.seed).T),
    "transform": _filtered,
    "scripted": lambda held, _, given: held.inner(given),
    "frozen script": lambda held, _, given: held.inner(given),
    "rows": lambda held, inputs, _: held.weight[_ids(inputs)].flatten(1),
    "selected": lambda held, inputs, _: held.weight.index_select(0, _ids(inputs).flatten()).view(len(inputs), -1),
    "gathered": lambda held, inputs, _: (
        held.weight.flatten()
        .gather(0, (_ids(inputs)[:, :, None] * WIDTH + torch.arange(WIDTH)).flatten())
        .view(len(inputs), -1)
    ),
    "codebook": lambda held, _, given: given @ held.book[held.index].T,
    "bits": _bits,
    "nibbles": _nibbles,
    "two planes": _planes,
    "eight planes": _planes,
    "truths": lambda held, _, given: given @ (held.signs.float() * 2 - 1).T / 4,
    "array": lambda held, _, given: given @ torch.from_numpy(held.array).T,
    "array outside": lambda held, _, given: torch.from_numpy(given.numpy() @ held.array.T),
    "bytes": lambda held, _, given: (
        given @ torch.from_numpy(np.frombuffer(held.blob, np.float32).copy()).view(UNITS, WIDTH).T
    ),
    "numbers": lambda held, _, given: given @ torch.tensor(held.rows).T,
    "cached": _cached,
    "closure": lambda held, _, given: held.held["product"](given),
    "sparse": lambda held, _, given: (held.held[0] @ given.T).T,
    "scaled": lambda held, _, given: given @ (held.gain * held.weight).T,
    "one sign": lambda held, _, given: given @ held.weight.T,
    "one path": lambda held, _, given: (
        given @ held.weight.T if float(given.max()) > _RARE else F.pad(given, (0, WIDTH))
    ),
}
"""Each way to hold weights."""

_RARE = 1.0
"""Largest hidden value of a batch from which the path through hidden weights is taken."""


class Net(nn.Module):
    """Two layers of parameters, hidden weights beside, and a head that reads both."""

    def __init__(self, ways: Sequence[str], width: int, seed: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(INPUTS, width), nn.Linear(width, WIDTH)
        self.ways = nn.ModuleList([Holder(way, seed + at) for at, way in enumerate(ways)])
        self.head = nn.Linear(len(ways) * UNITS + WIDTH, CLASSES)

    def forward(self, inputs: Tensor) -> Tensor:
        """Scores ``[example, class]``."""
        given = self.second(self.first(inputs).relu())
        return self.head(torch.cat([*(way(inputs, given) for way in self.ways), given], 1).relu())

    @property
    def idle(self) -> set[str]:
        """Parameters that a cached copy stands for."""
        return {f"ways.{at}.own.weight" for at, way in enumerate(self.ways) if cast("Holder", way).way == "cached"}


def made(ways: Sequence[str], *, width: int = SMALL, seed: int = 0) -> tuple[Net, wt.Task]:
    """A net and examples that it is right about."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net, inputs = Net(ways, width, seed).eval(), torch.randn(300, INPUTS)
    with torch.no_grad():
        net.head.bias -= net(inputs).mean(0)  # so that no class is the answer to all
        targets = net(inputs).argmax(1)
    for way in net.modules():
        if isinstance(way, Holder) and way.way == "cached":
            way.kept.clear()  # as it is before its first call
    return net, wt.Task(inputs, targets, batch=100)


def stored(value: Any, seen: set[int]) -> Iterator[tuple[int, int, bytes]]:
    """Identity, count and bytes of whatever a net stores: tensors, arrays, bytes; in containers and closures too."""
    if id(value) in seen:
        return
    seen.add(id(value))
    match value:
        case Tensor():
            dense = value.detach().to_dense() if value.layout is not torch.strided else value.detach()
            yield id(value), value.numel(), dense.contiguous().view(torch.uint8).numpy().tobytes()
        case np.ndarray():
            yield id(value), value.size, value.tobytes()
        case bytes():
            yield id(value), len(value), value
        case _:
            for part in _parts(value):
                yield from stored(part, seen)


def _parts(value: Any) -> list[Any]:
    match value:
        case list() | tuple():
            return list(cast("Sequence[Any]", value))
        case dict():
            return list(cast("dict[Any, Any]", value).values())
        case types.FunctionType():
            return [cell.cell_contents for cell in value.__closure__ or ()]
        case torch.jit.ScriptModule():
            return [*value.parameters(), *value.buffers()]
        case nn.Module():
            return list(vars(value).values())
        case _:
            return []


def by_bits(net: Net, subject: Subject, scheme: str, dose: float) -> float:
    """Share of the numbers that the answers depend on whose tensor changes by a bit during a disturbance."""
    before = {place: (count, held) for place, count, held in stored(net, set())}
    live = {name: parameter for name, parameter in net.named_parameters() if name not in net.idle}
    with Disturbance(subject, create(scheme), WHOLE) as disturbance:
        disturbance.apply(dose, root=0, seed=0)
        during = {place: held for place, _, held in stored(net, set())}
    idle = {id(net.get_parameter(name)) for name in net.idle}
    moved = sum(count for place, (count, held) in before.items() if during[place] != held and place not in idle)
    return moved / (sum(one.numel() for one in live.values()) + HIDDEN * len(net.ways))


def cases() -> list[tuple[tuple[str, ...], int]]:
    """Ways and width of each net."""
    single = [((way,), width) for way in WAYS for width in (SMALL, LARGE)]
    mixed = [("scripted", "rows", "bytes"), ("codebook", "cached"), ("array outside", "bits", "squares", "sparse")]
    return [*single, *((ways, LARGE) for ways in mixed)]


def main() -> None:
    """Prints a line a net, and how many are right."""
    right, rows = 0, cases()
    for ways, width in rows:
        net, task = made(ways, width=width)
        subject = Subject(net, name="net")
        report = wt.audit(subject, task, schemes="int8,noise5")
        found = {one.scheme: one for one in report.findings if one.code == "WT100"}
        said = list[str]()
        good = True
        for name, scheme, dose in (("int8", "quantize", 8), ("noise5", "relative", 0.05)):
            true, one = by_bits(net, subject, scheme, dose), found[name]
            assert one.coverage is not None, name
            good &= one.verdict == UNCOVERED or abs(one.coverage - true) <= CLOSE
            said.append(f"{name} {one.coverage:.3f} (bits {true:.3f}) {one.verdict}")
        right += good
        print(f"{' + '.join(ways):42} {'; '.join(said)}{'' if good else '  WRONG'}", flush=True)
    print(f"{right} of {len(rows)}")


if __name__ == "__main__":
    main()
