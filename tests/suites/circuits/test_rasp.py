"""Compiled programs are right, by circuits that a slow oracle finds too; planted circuits are as documented."""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import product

import numpy as np
import pytest
import torch
from edge_oracle import SlowDecoder, Written
from torch import Tensor, nn

from benchmarks.nets.bare_transformer import BareTransformer
from benchmarks.nets.planted_circuit import SHAPE, Planted, planted_circuit
from benchmarks.nets.rasp import START, Select, aggregate, difference, indices, mapped, tokens
from benchmarks.nets.rasp_compile import Compiled, compiled
from benchmarks.nets.rasp_programs import PROGRAMS, Change, classes, examples, pairs, program
from benchmarks.nets.rasp_superposed import superposed
from wheeltap.core.errors import UnknownName, UsageError
from wheeltap.recipes.randomness import reproducible
from wheeltap.suites.circuits.circuit import EdgeGraph
from wheeltap.suites.circuits.pairs import Pairs

Message = Callable[[str, str, Tensor], Tensor]
"""What a reader gets of what a writer has written, ``[example, place, feature]``."""

ORACLES: dict[str, Callable[[Sequence[int]], list[float]]] = {
    "reverse": lambda given: [given[-1 - at] for at in range(len(given))],
    "histogram": lambda given: [sum(other == token for other in given) for token in given],
    "sort": lambda given: [(at >= given.count(0)) + (at >= 5 - given.count(2)) for at in range(5)],
    "fraction-of-previous": lambda given: [given[:n].count(0) / n for n in range(1, 6)],
    "pair-balance": lambda given: [(given[:n].count(0) - given[:n].count(1)) / n for n in range(1, 6)],
}


def alone(_writer: str, _reader: str, value: Tensor) -> Tensor:
    return value


@cache
def decoder(net: BareTransformer) -> SlowDecoder:
    return SlowDecoder(net, every=True)


@torch.no_grad()
def slow(net: BareTransformer, inputs: Tensor, message: Message = alone) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and what each component wrote; every reader adds up for itself what it gets of each writer."""

    def read(reader: str, written: Written) -> Tensor:
        return sum(own if name.startswith("bias") else message(name, reader, own) for name, own in written.items())

    written, logits = decoder(net).run(inputs, read)
    return logits, {name: own for name, own in written.items() if not name.startswith("bias")}


def readings(net: BareTransformer, inputs: Tensor) -> list[tuple[str, str]]:
    found = list[tuple[str, str]]()

    def noted(writer: str, reader: str, value: Tensor) -> Tensor:
        found.append((writer, reader))
        return value

    slow(net, inputs, noted)
    return found


def changing(made: Compiled, inputs: Tensor, instead: Callable[[Tensor], Tensor]) -> set[str]:
    """Edges that change some logit, by more than rounding, when ``instead`` alone is put on them."""
    clean, found = slow(made.net, inputs)[0], set[str]()
    for edge in readings(made.net, inputs):
        changed, _ = slow(made.net, inputs, lambda *at, edge=edge: instead(at[2]) if at[:2] == edge else at[2])
        if float((changed - clean)[:, 1:].abs().max()) > 1e-7:
            found.add("->".join(edge))
    return found


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("distractors", [0, 2])
def test_a_compiled_program_is_right_on_every_input(name: str, distractors: int) -> None:
    made = compiled(program(name), distractors=distractors)
    given = list(product(range(made.program.tokens), repeat=made.program.length))
    inputs = torch.tensor([(made.program.tokens, *row) for row in given])
    with torch.no_grad():
        found: Tensor = made.net(inputs)[:, 1:]
    values = torch.tensor(made.program.output.values, dtype=torch.float64)
    assert torch.equal(
        values[found.argmax(-1)], torch.tensor([ORACLES[name](row) for row in given], dtype=torch.float64)
    )
    best = found.topk(2, -1).values
    assert float((best[..., 0] - best[..., 1]).min()) > 9.0


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_true_circuit_is_what_edge_by_edge_ablation_finds(name: str) -> None:
    made = compiled(program(name), distractors=1)
    shape = made.net.shape
    inputs, _ = examples(made.program, seed=1, count=12)
    graph = EdgeGraph(shape.layers, shape.heads, shape.heads)
    assert {"->".join(edge) for edge in readings(made.net, inputs)} == {*graph.edges}
    assert changing(made, inputs, torch.zeros_like) == made.edges
    assert changing(made, inputs, lambda value: value.roll(1, 0)) == made.varying
    assert made.varying < made.edges < {"->".join(edge) for edge in readings(made.net, inputs)}
    assert made.nodes < {end.partition("<")[0] for edge in readings(made.net, inputs) for end in edge}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_superposed_net_is_narrower_and_still_right(name: str) -> None:
    made = compiled(program(name), distractors=1)
    narrow = superposed(made, seed=3)
    assert narrow.net.shape.width <= 0.85 * made.net.shape.width
    assert narrow.accuracy(*examples(made.program, seed=4, count=200)) >= 0.95
    assert (narrow.edges, narrow.varying) == (made.edges, made.varying)
    inputs, _ = examples(made.program, seed=1, count=4)
    assert torch.allclose(slow(narrow.net, inputs)[0].float(), narrow.net(inputs), atol=1e-3)
    with pytest.raises(UsageError, match="compressed once"):
        superposed(narrow)


def test_a_superposed_net_has_cross_talk_on_false_edges() -> None:
    narrow = superposed(compiled(program("reverse"), distractors=1))
    inputs, _ = examples(narrow.program, seed=1, count=12)
    found = changing(narrow, inputs, lambda value: value.roll(1, 0))
    assert narrow.varying < found
    assert len(found - narrow.edges) > 0.8 * len(set(readings(narrow.net, inputs))) - len(narrow.edges)


@pytest.mark.parametrize("change", ["one", "any"])
def test_pairs_have_different_answers_at_the_last_place(change: Change) -> None:
    for name in PROGRAMS:
        given = program(name)
        held = pairs(given, seed=2, count=20, change=change)
        for inputs, answer in ((held.clean, held.answer), (held.corrupted, held.wrong)):
            assert torch.equal(classes(given, inputs[:, 1:].numpy())[:, -1], answer)
            assert bool((inputs[:, 0] == given.tokens).all())
        assert bool((held.answer != held.wrong).all())
        differ = (held.clean != held.corrupted).sum(1)
        assert int(differ.max()) == 1 if change == "one" else int(differ.max()) > 1
        assert Pairs.of(held).digest == Pairs.of(pairs(given, seed=2, count=20, change=change)).digest


def test_what_no_transformer_computes_is_refused() -> None:
    word, index = tokens(2), indices(3)
    with pytest.raises(UsageError, match="a function of one number"):
        mapped(lambda one, two: one + two, word, START)
    with pytest.raises(UsageError, match="keys and queries"):
        aggregate(Select(START, index, lambda one, two: one == two), word)
    with pytest.raises(UsageError, match="two numbers"):
        difference(word, START, values=(0.0,))
    with pytest.raises(UnknownName, match="reverse"):
        program("revers")
    with pytest.raises(UsageError, match="width 99"):
        superposed(compiled(program("reverse")), width=99)


def correct(planted: Planted, message: Message) -> float:
    held, rows = planted.pairs, torch.arange(len(planted.pairs))
    last = slow(planted.net, held.clean, message)[0][:, -1]
    return float((last[rows, held.answer] > last[rows, held.wrong]).double().mean())


def ablated(instead: dict[str, Tensor], edges: Callable[[str], bool]) -> Message:
    return lambda writer, reader, value: instead[writer] if edges(f"{writer}->{reader}") else value


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("fake", [True, False])
def test_mean_ablation_does_not_see_a_fake_circuit_and_others_do(seed: int, fake: bool) -> None:
    planted = planted_circuit(seed, fake=fake)
    clean = slow(planted.net, planted.pairs.clean)[1]
    mean = {name: value.mean(0).expand_as(value) for name, value in clean.items()}
    zero = {name: torch.zeros_like(value) for name, value in clean.items()}
    other = slow(planted.net, planted.pairs.corrupted)[1]
    mixed = {
        name: value[torch.from_numpy(np.random.default_rng(at).permutation(len(value)))]
        for at, (name, value) in enumerate(clean.items())
    }

    def outside(edge: str) -> bool:
        return edge not in planted.edges

    assert correct(planted, alone) == 1.0
    for instead in (mean, zero):
        assert correct(planted, ablated(instead, outside)) == 1.0  # sufficient
        assert correct(planted, ablated(instead, lambda edge: not outside(edge))) == 0.5  # necessary
    assert correct(planted, ablated(other, outside)) == (0.0 if fake else 1.0)
    low, high = (0.25, 0.75) if fake else (1.0, 1.0)
    assert low <= correct(planted, ablated(mixed, outside)) <= high
    guard = next(name for name in planted.nodes if name.startswith("m"))
    worst = min(
        correct(planted, ablated(mean, lambda edge, alone=alone: edge == f"{alone}->{guard}" and outside(edge)))
        for alone in clean
    )
    assert worst == (0.0 if fake else 1.0)


def test_a_circuit_is_planted_in_a_given_net() -> None:
    base = BareTransformer(SHAPE)
    with reproducible(3):
        for weight in base.parameters():
            nn.init.normal_(weight, std=0.2)
    before = {name: weight.clone() for name, weight in base.state_dict().items()}
    for fake in (True, False):
        planted = planted_circuit(1, fake=fake, base=base)
        other = slow(planted.net, planted.pairs.corrupted)[1]
        outside = ablated(other, lambda edge: edge not in planted.edges)  # noqa: B023
        assert correct(planted, alone) == 1.0
        assert correct(planted, outside) == (0.0 if fake else 1.0)
        kept = [(weight == before[name]).double().mean() for name, weight in planted.net.state_dict().items()]
        assert min(kept[:2]) > 0.85  # of the embedding
        assert sum(kept) / len(kept) > 0.6
    assert all(torch.equal(weight, before[name]) for name, weight in base.state_dict().items())
    with pytest.raises(UsageError, match="No circuit can be planted"):
        planted_circuit(1, fake=True, base=compiled(program("reverse")).net)


def test_both_accounts_are_of_one_net() -> None:
    false, true = (planted_circuit(7, fake=fake) for fake in (True, False))
    assert all(torch.equal(one, two) for one, two in zip(false.net.parameters(), true.net.parameters(), strict=True))
    assert false.edges < true.edges
    assert false.nodes < true.nodes
    inputs = false.pairs.clean
    assert torch.allclose(slow(false.net, inputs)[0].float(), false.net(inputs), atol=1e-4)
    assert int(((false.pairs.clean != false.pairs.corrupted).sum(1) == 1).sum()) == len(false.pairs)
    assert abs(float(false.pairs.answer.double().mean()) - 0.5) == 0.0
