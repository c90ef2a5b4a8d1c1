"""Circuits planted in nets are as documented: which ablations tell the false account from the true one."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from edge_oracle import SlowDecoder, Written
from torch import Tensor, nn

from tests.nets.bare_transformer import BareTransformer, Shape
from tests.nets.planted_circuit import SHAPE, Planted, planted_circuit
from wheeltap.core.errors import UsageError
from wheeltap.recipes.randomness import reproducible

Message = Callable[[str, str, Tensor], Tensor]
"""What a reader gets of what a writer has written, ``[example, place, feature]``."""


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


def correct(planted: Planted, message: Message) -> float:
    held, rows = planted.pairs, torch.arange(len(planted.pairs))
    last = slow(planted.net, held.clean, message)[0][:, -1]
    return float((last[rows, held.answer] > last[rows, held.wrong]).double().mean())


def ablated(instead: dict[str, Tensor], edges: Callable[[str], bool]) -> Message:
    return lambda writer, reader, value: instead[writer] if edges(f"{writer}->{reader}") else value


@pytest.mark.parametrize("fake", [True, False])
def test_mean_ablation_does_not_see_a_fake_circuit_and_others_do(fake: bool) -> None:
    planted = planted_circuit(0, fake=fake)
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
    with pytest.raises(UsageError):
        planted_circuit(1, fake=True, base=BareTransformer(Shape(tokens=9, places=6, classes=9, layers=1, heads=1,
                        head=3, units=5, width=6, causal=True)))  # fmt: skip


def test_both_accounts_are_of_one_net() -> None:
    false, true = (planted_circuit(7, fake=fake) for fake in (True, False))
    assert all(torch.equal(one, two) for one, two in zip(false.net.parameters(), true.net.parameters(), strict=True))
    assert false.edges < true.edges
    assert false.nodes < true.nodes
    inputs = false.pairs.clean
    assert torch.allclose(slow(false.net, inputs)[0].float(), false.net(inputs), atol=1e-4)
    assert int(((false.pairs.clean != false.pairs.corrupted).sum(1) == 1).sum()) == len(false.pairs)
    assert abs(float(false.pairs.answer.double().mean()) - 0.5) == 0.0
