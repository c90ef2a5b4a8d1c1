"""From a program to a transformer that computes it, whose true circuit is known.

Every expression is held in directions of its own, so what a component writes and what another one reads is seen from
the weights: an edge is of the circuit where these have a direction in common, and the reader matters to the logits.

Source: Lindner et al. 2023, "Tracr: compiled transformers as a laboratory for interpretability", section 3 and
appendix A.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Final, final

import torch
from torch import Tensor

from benchmarks.nets.bare_transformer import BareTransformer, Shape
from benchmarks.nets.component_edges import true_edges
from benchmarks.nets.rasp import START, Aggregated, Difference, Given, Mapped, Program, Sop
from wheeltap.core import seeds
from wheeltap.core.typed import to_tensor

STRENGTH: Final = 10.0
"""Logits of a selected place over one that is not, in attention; of the right class over others, at the end."""

RAMP: Final = 0.5
"""Share of the way between two values of a number over which a unit turns from the one to the other."""

JUNK: Final = 4
"""Directions that only distractors write to."""

DISTRACTION: Final = 0.5
"""Standard deviation of the weights by which distractors read."""


@final
@dataclass(frozen=True, eq=False)
class Compiled:
    """A net that computes a program.

    Attributes:
        program: The program.
        net: In eval mode; every sequence is to begin with the start token, whose logits mean nothing.
        lines: Directions that belong together, as those of one expression do; of the residual stream, or of what has
            been compressed into it.
        edges: The true circuit, named as MIB does: ``input->a0.h1<q>``, ``a0.h1->m0``, ``m0->logits``.
        varying: Those of them whose message differs between sequences. The others carry what is the same for all
            sequences of a length, such as indices: putting one sequence's message in the place of another's cannot
            show them, setting it to zero does.
    """

    program: Program
    net: BareTransformer
    lines: tuple[range, ...]
    edges: frozenset[str]
    varying: frozenset[str]

    def accuracy(self, inputs: Tensor, classes: Tensor) -> float:
        """Share of places, all but the start, whose class is right.

        Args:
            inputs: ``[example, place]``, the start first.
            classes: ``[example, place]``, without the start.
        """
        with torch.no_grad():
            logits: Tensor = self.net(inputs)
        return float((logits[:, 1:].argmax(-1) == classes).double().mean())

    @property
    def nodes(self) -> frozenset[str]:
        """Components with a true edge."""
        return frozenset(end.partition("<")[0] for edge in self.edges for end in edge.split("->"))


def compiled(program: Program, *, seed: int = 0, distractors: int = 0) -> Compiled:
    """The net of a program.

    Args:
        program: To compile.
        seed: Of the distractors' weights.
        distractors: Heads with random weights in every layer, beside those that are needed. With any, a layer more
            comes first, and MLPs that the program does not need are random too. They read all and write where only
            they read. Without any, what is not needed is zero; a layer may have no head that does anything, and a
            search for heads finds none there.
    """
    plan = _planned(program, extra=distractors)
    net = BareTransformer(plan.shape)
    with torch.no_grad():
        _embed(net, plan)
        for layer, sops in enumerate(plan.heads):
            for head, sop in enumerate(sops):
                _head(net, plan, sop, layer, head)
        for layer, sops in enumerate(plan.mlps):
            _mlp(net, plan, sops, layer)
        _put(net.unembed.weight, STRENGTH * plan.read(program.output))
        if distractors:
            _distract(net, plan, seed)
    varying = [line for sop, lines in plan.lines.items() if sop.varies() for line in lines]
    junk = [range(plan.shape.width - JUNK, plan.shape.width)] if distractors else []
    lines = (*plan.lines.values(), *junk)
    return Compiled(program, net.eval(), lines, true_edges(net), true_edges(net, carried=varying))


@final
@dataclass(frozen=True, eq=False)
class _Plan:
    """Where everything is: lines are directions of the residual stream."""

    program: Program
    held: tuple[Sop, ...]
    lines: Mapping[Sop, range]
    heads: tuple[tuple[Sop, ...], ...]
    mlps: tuple[tuple[Sop, ...], ...]
    shape: Shape

    def read(self, sop: Sop) -> Tensor:
        """How to read it, ``[value, line]``; a number has one row."""
        if isinstance(sop.by, Difference):
            return self.read(sop.by.one) - self.read(sop.by.two)
        return torch.eye(self.shape.width)[list(self.lines[sop])]


def _planned(program: Program, *, extra: int) -> _Plan:
    held = tuple(_in_order(program.output))
    first = 1 if extra else 0
    times: dict[Sop, int] = {}
    for sop in held:  # in each layer, attention at an odd time, then the MLP at an even one
        after = max((times[part] for part in sop.parts()), default=2 * first)
        match sop.by:
            case Aggregated():
                times[sop] = after + 1 + after % 2
            case Mapped():
                times[sop] = after + 2 - after % 2
            case _:
                times[sop] = after
    layers = (max(times.values()) + 1) // 2
    heads, mlps = (
        tuple(
            tuple(sop for sop in held if isinstance(sop.by, kind) and times[sop] == 2 * layer + at)
            for layer in range(layers)
        )
        for kind, at in ((Aggregated, 1), (Mapped, 2))
    )
    lines, width = dict[Sop, range](), 0
    for sop in held:
        if not isinstance(sop.by, Difference):
            lines[sop] = range(width, width + _size(sop))
            width += _size(sop)
    selects = [sop.by for sop in held if isinstance(sop.by, Aggregated)]
    shape = Shape(
        tokens=program.tokens + 1,
        places=program.length + 1,
        classes=len(program.output.values),
        layers=layers,
        heads=max(map(len, heads)) + extra,
        head=max(max(len(by.select.queries.values), _size(by.of)) for by in selects),
        units=max(1, *(sum(_units(sop) for sop in sops) for sops in mlps)),
        width=width + (JUNK if extra else 0),
    )
    return _Plan(program, held, lines, heads, mlps, shape)


def _in_order(sop: Sop) -> list[Sop]:
    """An expression and all that it is computed from, each once, parts first."""
    found = dict.fromkeys(one for part in sop.parts() for one in _in_order(part))
    return [*found, sop]


def _size(sop: Sop) -> int:
    return 1 if sop.number else len(sop.values)


def _units(sop: Sop) -> int:
    of = sop.parts()
    return 2 * (len(of[0].values) - 1) if of[0].number else math.prod(len(part.values) for part in of)


def _put(matrix: Tensor, part: Tensor, *, row: int = 0, column: int = 0) -> None:
    """Into a corner of a matrix; of a vector, from ``row`` on."""
    if matrix.ndim == 1:
        matrix[row : row + len(part)] = part
    else:
        matrix[row : row + part.shape[0], column : column + part.shape[1]] = part


def _embed(net: BareTransformer, plan: _Plan) -> None:
    for sop in plan.held:
        match sop.by:
            case Given("token"):
                _put(net.embed.weight, plan.read(sop))
            case Given("index"):
                _put(net.position.weight, plan.read(sop), row=1)
            case Given("start"):
                net.embed.weight[-1] += plan.read(sop)[0]
            case _:
                pass


def _head(net: BareTransformer, plan: _Plan, sop: Sop, layer: int, head: int) -> None:
    """A query is one-hot; a key says which of them select it."""
    assert isinstance(sop.by, Aggregated)
    select, attention = sop.by.select, net.attention(layer)
    chosen = [[select.predicate(key, query) for key in select.keys.values] for query in select.queries.values]
    keys = torch.tensor(chosen, dtype=torch.float32) @ plan.read(select.keys)
    if select.start:
        keys = keys + plan.read(START)
    row, value = head * plan.shape.head, plan.read(sop.by.of)
    _put(attention.query.weight, plan.read(select.queries), row=row)
    _put(attention.key.weight, STRENGTH * plan.shape.head**0.5 * keys, row=row)
    _put(attention.value.weight, value, row=row)
    _put(attention.output.weight, plan.read(sop).T, column=row)


def _mlp(net: BareTransformer, plan: _Plan, sops: Sequence[Sop], layer: int) -> None:
    mlp, first = net.mlp(layer), 0
    for sop in sops:
        assert isinstance(sop.by, Mapped)
        rise, bias, fall, always = _steps(plan, sop) if sop.by.of[0].number else _conjunctions(plan, sop)
        _put(mlp.rise.weight, rise, row=first)
        _put(mlp.rise.bias, bias, row=first)
        _put(mlp.fall.weight, fall.T, column=first)
        mlp.fall.bias.add_(always)
        first += len(bias)


def _written(plan: _Plan, sop: Sop, value: float) -> Tensor:
    """How a value is held, ``[line]``."""
    return plan.read(sop)[0] * value if sop.number else plan.read(sop)[sop.values.index(value)]


def _conjunctions(plan: _Plan, sop: Sop) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A unit for each combination of categories: 1 where all of them are there, else 0."""
    assert isinstance(sop.by, Mapped)
    of, rows, falls = sop.by.of, list[Tensor](), list[Tensor]()
    for chosen in product(*(range(len(part.values)) for part in of)):
        rows.append(2.0 * torch.stack([plan.read(part)[at] for part, at in zip(of, chosen, strict=True)]).sum(0))
        values = [part.values[at] for part, at in zip(of, chosen, strict=True)]
        falls.append(_written(plan, sop, sop.by.function(*values)))
    bias = torch.full((len(rows),), 1.0 - 2.0 * len(of))
    return torch.stack(rows), bias, torch.stack(falls), torch.zeros(plan.shape.width)


def _steps(plan: _Plan, sop: Sop) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Two units for each step between neighboring values of a number: their difference goes from 0 to 1 there."""
    assert isinstance(sop.by, Mapped)
    (of,), rows, biases, falls = sop.by.of, list[Tensor](), list[float](), list[Tensor]()
    for low, high in pairwise(of.values):
        slope = 1.0 / (RAMP * (high - low))
        change = _written(plan, sop, sop.by.function(high)) - _written(plan, sop, sop.by.function(low))
        for shift, sign in ((0.5, 1.0), (-0.5, -1.0)):
            rows.append(slope * plan.read(of)[0])
            biases.append(shift - slope * (low + high) / 2.0)
            falls.append(sign * change)
    always = _written(plan, sop, sop.by.function(of.values[0]))
    return torch.stack(rows), torch.tensor(biases), torch.stack(falls), always


def _distract(net: BareTransformer, plan: _Plan, seed: int) -> None:
    """Random weights for what the program leaves free; they write into the last lines, about as much as they read."""
    rng, shape = seeds.generator(seed, "rasp", plan.program.name, "distractors"), plan.shape

    def drawn(rows: int, columns: int, scale: float = DISTRACTION) -> Tensor:
        return to_tensor(scale * rng.standard_normal((rows, columns))).float()

    for layer, (heads, mlps) in enumerate(zip(plan.heads, plan.mlps, strict=True)):
        attention, mlp, first = net.attention(layer), net.mlp(layer), len(heads) * shape.head
        inner = shape.heads * shape.head - first
        for part in (attention.query, attention.key, attention.value):
            _put(part.weight, drawn(inner, shape.width), row=first)
        _put(attention.output.weight, drawn(JUNK, inner, inner**-0.5), row=shape.width - JUNK, column=first)
        if not mlps:
            _put(mlp.rise.weight, drawn(shape.units, shape.width))
            _put(mlp.fall.weight, drawn(JUNK, shape.units, shape.units**-0.5), row=shape.width - JUNK)
