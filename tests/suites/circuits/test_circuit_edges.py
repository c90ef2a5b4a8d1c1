"""Edges of decoders: runs, patches and scores equal a decoder written out edge by edge, without hooks or gradients."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from edge_oracle import SlowDecoder, Written
from tiny_transformers import causal, drawn
from torch import Tensor, nn

from tests.nets import zoo
from tests.nets.bare_transformer import BareTransformer, Shape
from wheeltap.core.errors import ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.subject import Subject
from wheeltap.suites.circuits.engine.attribution import attribute
from wheeltap.suites.circuits.engine.edges import EdgeDecoder, proven
from wheeltap.suites.circuits.nets.sparse_transformer import Shape as SparseShape
from wheeltap.suites.circuits.nets.sparse_transformer import SparseTransformer
from wheeltap.suites.circuits.pairs import PairBatch

NETS = ("GPT2", "Llama")
STEP = 1e-4
"""Of finite differences, to either side."""


@dataclass(frozen=True)
class Bench:
    model: nn.Module
    pairs: PairBatch
    wired: EdgeDecoder

    @property
    def slow(self) -> SlowDecoder:
        return SlowDecoder(self.model)

    def metric(self, logits: Tensor) -> float:
        rows = torch.arange(len(logits))
        return float((logits[rows, self.pairs.answer] - logits[rows, self.pairs.wrong]).mean())


def pairs(*, count: int = 3, places: int = 5, at: int = 1, tokens: int = 20) -> PairBatch:
    random = torch.Generator().manual_seed(3)
    clean = torch.randint(0, tokens, (count, places), generator=random)
    corrupted = clean.clone()
    corrupted[:, at] = (clean[:, at] + torch.randint(1, tokens, (count,), generator=random)) % tokens
    answer = torch.randint(0, tokens, (count,), generator=random)
    return PairBatch(clean, corrupted, answer, (answer + 7) % tokens)


def made(name: str) -> nn.Module:
    if name in ("bare", "both ways"):
        sizes = {"tokens": 20, "places": 8, "classes": 20, "layers": 2, "heads": 2, "head": 4, "units": 12, "width": 12}
        shape = Shape(**sizes, causal=name == "bare")
        return drawn(BareTransformer(shape).eval())
    if name == "GPT2":
        return causal(name, n_layer=2, n_embd=16, n_head=2)
    return causal(name, num_hidden_layers=2, hidden_size=24, num_attention_heads=3, num_key_value_heads=1)


@cache
def bench(name: str) -> Bench:
    model = made(name).double()
    return Bench(model, pairs(), proven(Subject(model, name=name), pairs()))


def weights(edges: int, *, seed: int = 0) -> Tensor:
    return torch.rand(edges, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_edges(on: Bench, keep: Tensor, other: Written) -> Callable[[str, Written], Tensor]:
    """What readers are given if each edge carries ``keep`` of what is written now, and of ``other`` the rest."""
    share = dict(zip(on.wired.graph.edges, keep.tolist(), strict=True))

    def read(reader: str, written: Written) -> Tensor:
        total = torch.zeros_like(written["input"])
        for name, own in written.items():
            kept = share.get(f"{name}->{reader}", 1.0)  # biases are no writers
            total = total + kept * own + (0.0 if kept == 1.0 else (1.0 - kept) * other[name])
        return total

    return read


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_all_edges_are_the_clean_run_none_the_corrupted_one_and_shares_what_is_in_between(name: str) -> None:
    on = bench(name)
    slow, total = on.slow, len(on.wired.graph.edges)
    _, clean = slow.run(on.pairs.clean)
    other, corrupted = slow.run(on.pairs.corrupted)
    keep = weights(total)
    _, mixed = slow.run(on.pairs.clean, by_edges(on, keep, other))
    every = torch.ones(total)
    for edges, wanted in ((every, clean), (0 * every, corrupted), (keep, mixed)):
        assert (on.wired.ablated_logits(on.pairs, edges, "patch") - wanted).abs().max() < 1e-5 * wanted.abs().max()
    gap = on.wired.ablated_gaps(on.pairs, keep, "patch").mean()
    assert float(gap) == pytest.approx(on.metric(mixed), abs=1e-5 * float(mixed.abs().max()))


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_means_and_zeros_take_the_place_of_what_is_not_kept(name: str) -> None:
    on = bench(name)
    slow, keep = on.slow, weights(len(on.wired.graph.edges), seed=1)
    contexts = [pairs(count=4, at=2).clean, pairs(count=2, places=4, at=2).clean]
    written = [slow.run(tokens)[0] for tokens in contexts]
    like = written[0]["input"].new_zeros(on.pairs.clean.shape)[..., None]
    rows = {name: torch.cat([one[name].flatten(0, 1) for one in written]) for name in written[0]}
    averages = {name: own.mean(0) + like for name, own in rows.items()}
    parts = [on.wired.written(tokens) for tokens in contexts]
    means = [torch.cat([part.flatten(0, 1) for part in own]).mean(0)[None, None] for own in zip(*parts, strict=True)]
    found = on.wired.ablated_logits(on.pairs, keep, means)
    _, wanted = slow.run(on.pairs.clean, by_edges(on, keep, averages))
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
    nothing = {name: torch.zeros_like(own) for name, own in averages.items()}
    _, wanted = slow.run(on.pairs.clean, by_edges(on, keep, nothing))
    found = on.wired.ablated_logits(on.pairs, keep, "zero")
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()


def slopes(on: Bench, write: Callable[[str, Tensor], Tensor] | None, sources: set[str]) -> Iterator[tuple[int, float]]:
    """By how much the metric falls with each edge patched, to first order: one edge at a time, by differences."""
    slow = on.slow
    clean, corrupted = (slow.run(tokens)[0] for tokens in (on.pairs.clean, on.pairs.corrupted))
    for at, edge in enumerate(on.wired.graph.edges):
        source, _, target = edge.partition("->")
        if source not in sources:
            continue
        moved = corrupted[source] - clean[source]

        def value(step: float, moved: Tensor = moved, target: str = target) -> float:
            def read(reader: str, written: Written) -> Tensor:
                whole = sum(written.values(), torch.zeros(()))
                return whole + step * moved if reader == target else whole

            return on.metric(slow.run(on.pairs.clean, read, write)[1])

        yield at, -(value(STEP) - value(-STEP)) / (2 * STEP)


def wanted(on: Bench, steps: int) -> np.ndarray[Any, Any]:
    """Scores of ``eap-ig``, by ``slopes``."""
    slow, writers = on.slow, on.wired.graph.writers
    clean, corrupted = (slow.run(tokens)[0] for tokens in (on.pairs.clean, on.pairs.corrupted))
    scores = np.zeros(len(on.wired.graph.edges))
    for step in range(1, steps + 1):
        share = step / steps

        def write(name: str, own: Tensor, share: float = share) -> Tensor:
            return corrupted[name] + share * (clean[name] - corrupted[name]) if name == "input" else own

        for at, slope in slopes(on, write, set(writers)):
            scores[at] += slope / steps
    return scores


@pytest.mark.parametrize("name", NETS)
@torch.no_grad()
def test_scores_are_the_slopes_of_patching_one_edge(name: str) -> None:
    on, steps = bench(name), 2
    scores, slow = attribute(on.wired, [on.pairs], steps=steps), wanted(on, steps)
    assert np.abs(slow).max() > 0.01
    assert np.abs(scores - slow).max() < 1e-5 * np.abs(slow).max()


@pytest.mark.parametrize("name", ["phi", "gemma", "sparse"])
def test_decoders_of_other_kinds_are_taken_to_pieces_too(name: str) -> None:
    shape = SparseShape(vocabulary=20, places=8, width=16, head=8)
    model = (
        SparseTransformer(shape)
        if name == "sparse"
        else zoo.MEMBERS[name].made()
        if name in zoo.MEMBERS
        else made(name)
    )
    model = drawn(model.eval()).double()
    of = pairs(tokens=12)
    wired = proven(Subject(model, name=name), of)
    assert wired.graph.parallel == (name in ("phi", "neox", "falcon-new"))
    scores = attribute(wired, [of], "eap")
    way = weights(len(scores)) - 0.5
    step = 1e-3 if name in ("gemma", "qwen3", "bloom") else 1e-5  # these round to single precision inside
    ahead, behind = (wired.ablated_gaps(of, 1.0 + sign * step * way, "patch").mean() for sign in (1.0, -1.0))
    assert float(ahead - behind) / (2 * step) == pytest.approx(float(way @ torch.as_tensor(scores)), rel=1e-2)


@torch.no_grad()
def test_heads_that_write_nothing_do_not_hide_what_an_mlp_reads() -> None:
    for name, output in (("GPT2", "attn.c_proj"), ("Llama", "self_attn.o_proj"), ("neox", "attention.dense")):
        model = drawn(zoo.MEMBERS[name].made().eval()) if name == "neox" else made(name)
        for path, parameter in model.named_parameters():
            if f".{output}." in path:
                parameter.zero_()
        of = pairs(tokens=12 if name == "neox" else 20)
        assert proven(Subject(model, name=name), of).graph.parallel == (name == "neox")


def test_the_size_of_batches_does_not_matter_and_nothing_is_left_behind() -> None:
    on = bench("Llama")
    before, flags = weights_digest(on.model), [each.requires_grad for each in on.model.parameters()]
    whole = attribute(on.wired, [on.pairs])
    parted = attribute(on.wired, [on.pairs.part(slice(0, 1)), on.pairs.part(slice(1, 3))])
    assert parted == pytest.approx(whole, rel=1e-6, abs=1e-9)
    assert weights_digest(on.model) == before
    assert [each.requires_grad for each in on.model.parameters()] == flags
    assert not any(each._forward_hooks or each._forward_pre_hooks for each in on.model.modules())


def refused(model: nn.Module, names: str | None = None, **how: Any) -> None:
    with pytest.raises(ModelError, match=names):
        proven(Subject(model.eval(), name="net"), pairs(**how))


def test_what_is_more_than_a_sum_of_parts_is_refused_by_name() -> None:
    refused(zoo.MEMBERS["gemma2"].made(), "model.layers.0", tokens=12)  # norms after its heads and MLPs
    plain = SparseTransformer(SparseShape(vocabulary=20, places=8, width=16, head=8))
    proven(Subject(plain.eval(), name="net"), pairs(at=1))
    drawn(plain)
    refused(plain, at=4)  # the last token has scores of its own
    refused(made("GPT2").bfloat16())
