"""Circuits of edges: asked by the laws of ablation, found where they were planted, judged as those of units are."""

import json
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import planted_nets
import pytest
import torch
from torch.nn import functional

from wheeltap.core.errors import ModelError, UsageError
from wheeltap.core.subject import Subject
from wheeltap.engine.readings import create
from wheeltap.runs import planning
from wheeltap.runs.loop import run
from wheeltap.suites.circuits import runs
from wheeltap.suites.circuits.circuit import Circuit, packed, read_mib
from wheeltap.suites.circuits.engine.ablation import (
    EdgePairs,
    halves,
    of_group,
    other_sides,
    pairs_of,
    place_means,
    wired,
)
from wheeltap.suites.circuits.engine.attribution import attribute
from wheeltap.suites.circuits.pairs import PairBatch
from wheeltap.suites.circuits.readings import CircuitEffects
from wheeltap.suites.circuits.recipes.search import CircuitSearch
from wheeltap.suites.circuits.specs import DEFINITIONS, EASY, SHARES
from wheeltap.testing.planted import PlantedCase
from wheeltap.testing.reading_contract import ReadingContract

PLANTED = planted_nets.true(count=64)
TASK = planted_nets.task(PLANTED)
SUBJECT = Subject(PLANTED.net, name="planted")
EDGES = 110


def asked(*, inverted: bool = False, zero: bool = False) -> EdgePairs:
    pairs = halves(pairs_of(TASK))[1]
    known = wired(SUBJECT, pairs)
    return EdgePairs(pairs, known, "zero" if zero else place_means(known, TASK), inverted=inverted)


def plain() -> torch.Tensor:
    """Score gaps of the net itself, ``[side, pair]``."""
    (batch,) = halves(pairs_of(TASK))[1].batches()
    rows = torch.arange(len(batch))
    with torch.no_grad():
        clean, corrupted = (PLANTED.net(tokens)[:, -1] for tokens in (batch.clean, batch.corrupted))
    gaps = clean[rows, batch.answer] - clean[rows, batch.wrong]
    return torch.stack([gaps, corrupted[rows, batch.wrong] - corrupted[rows, batch.answer]])


def test_with_every_edge_it_is_the_net_and_with_none_the_other_side() -> None:
    own, every, none = plain(), torch.ones(EDGES), torch.zeros(EDGES)
    one = asked()
    sides = other_sides(one.pairs)
    for found in (one.gaps(None), one.gaps(every), one.gaps(every, "zero"), one.gaps(every, sides)):
        assert torch.allclose(found, own, atol=1e-3)
    assert torch.allclose(one.gaps(none, sides), -own.flip(0), atol=1e-3)
    assert torch.equal(asked(inverted=True).gaps(None), -one.gaps(None))
    # Nothing that differs reaches the end: the two sides cannot differ but in which answer is right.
    for found in (one.gaps(none), one.gaps(none, "zero"), asked(zero=True).gaps(none)):
        assert torch.allclose(found[0], -found[1], atol=1e-4)


def test_slopes_are_differences() -> None:
    one, mask = asked(inverted=True), torch.full((EDGES,), 0.5)
    loss, slope = one.slope(mask)
    assert loss == pytest.approx(float(functional.softplus(-one.gaps(mask)).mean()), rel=1e-4)
    for at in slope.abs().topk(5).indices:
        step = torch.zeros(EDGES)
        step[at] = 1e-2
        ends = [float(functional.softplus(-one.gaps(mask + sign * step)).double().mean()) for sign in (1.0, -1.0)]
        assert float(slope[at]) == pytest.approx((ends[0] - ends[1]) / 2e-2, rel=0.02, abs=1e-4)


def test_means_are_of_each_place() -> None:
    known = asked().wired
    sequences = pairs_of(TASK).clean + pairs_of(TASK).corrupted
    slow = [known.written(torch.tensor([sequence])) for sequence in sequences]
    for at, mean in enumerate(place_means(known, TASK)):
        whole = torch.stack([parts[at][0].double() for parts in slow]).mean(0)
        assert mean.shape[0] == 1 and torch.allclose(mean[0].double(), whole, atol=1e-5)


@cache
def search(**settings: Any) -> dict[str, np.ndarray]:
    reading = create("circuit-search", {"method": "eap-ig", **settings})
    return reading.spec.typed(reading.read(SUBJECT, TASK, root=0, seed=0).values, examples=len(TASK.targets))


class TestSearchContract(ReadingContract):
    reading = CircuitSearch
    settings: ClassVar[dict[str, Any]] = {"method": "eap", "pairs": 8, "target": 0.0}

    def case(self) -> PlantedCase:
        return PlantedCase(SUBJECT, TASK)


def test_a_planted_circuit_is_found() -> None:
    found = search()
    assert 0 < found["size"] == found["edges"] < 8 and found["loss"] < 0.15 and found["weights"] == EDGES
    assert sorted(found["rank"]) == list(range(EDGES))
    assert 8 < found["above"] < EDGES


def test_circuits_of_mibs_sizes_are_accounted_for() -> None:
    found, held = search(), halves(pairs_of(TASK))[1]
    known, batches = wired(SUBJECT, held), list(held.batches())

    def value(kept: np.ndarray) -> float:
        return float(
            torch.cat([known.ablated_gaps(batch, torch.tensor(kept).double(), "patch") for batch in batches]).mean()
        )

    empty, full = value(np.zeros(EDGES)), value(np.ones(EDGES))
    for row, by in zip(found["faithful"], (found["score"], np.abs(found["score"])), strict=True):
        for share, faithful in zip(SHARES, row, strict=True):
            kept = np.isin(np.arange(EDGES), np.argsort(-by, kind="stable")[: int(share * EDGES)])
            assert float(faithful) == pytest.approx((value(kept) - empty) / (full - empty), abs=1e-4)
        assert row[-1] == pytest.approx(1.0, abs=1e-4) and row[0] == 0.0
    assert "faithful" not in search(null="labels")


@pytest.mark.parametrize("null", ["weights", "labels"])
def test_nothing_is_found_where_nothing_is(null: str) -> None:
    found = search(null=null, target=0.0)
    assert found["size"] == 0 and found["losses"].min() > 0.5 and found["target"] == np.float32(EASY)


def test_without_a_target_it_follows_from_what_the_net_does() -> None:
    weaker = planted_nets.true(count=32)
    with torch.no_grad():
        weaker.net.unembed.weight.mul_(0.07)
    reading = create("circuit-search", {"method": "eap", "target": 0.0, "recovered": 0.75})
    searched = halves(pairs_of(TASK))[0]
    found = reading.read(Subject(weaker.net), TASK, root=0, seed=0).values
    own = float(EdgePairs(searched, wired(Subject(weaker.net), searched)).gaps(None).neg().double()
                .exp().log1p().mean())  # fmt: skip
    chance = np.log(2.0)
    assert 0.2 < own < 0.6 and float(found["target"]) == pytest.approx(chance - 0.75 * (chance - own), rel=1e-4)


def test_searches_by_other_seeds_score_other_draws_of_the_pairs() -> None:
    ranks = [create("circuit-search", {"method": "eap"}).read(SUBJECT, TASK, root=0, seed=seed).values["rank"]
             for seed in (0, 1)]  # fmt: skip
    assert not np.array_equal(*ranks)


def test_no_more_pairs_than_wanted_at_equal_distances() -> None:
    few = of_group(TASK, -1, most=4)
    assert [len(half) for half in halves(pairs_of(few))] == [4, 4]
    assert pairs_of(few).clean == pairs_of(TASK).clean[::8]
    assert of_group(TASK, -1, most=32) is TASK is of_group(TASK, -1)


class TestEffectsContract(ReadingContract):
    reading = CircuitEffects
    settings: ClassVar[dict[str, Any]] = {
        "circuit": packed(np.arange(EDGES) < 40), "parts": "edges", "random": 19, "subsets": 2, "pairs": 4,
    }  # fmt: skip

    def case(self) -> PlantedCase:
        return PlantedCase(SUBJECT, TASK)


@pytest.mark.parametrize("size", [2, 12])
def test_the_decoy_alone_is_enough_but_with_the_deciders_it_is_needed(size: int) -> None:
    kept = search()["rank"] < size
    reading = create("circuit-effects", {"circuit": packed(kept), "parts": "edges", "random": 19})
    read = reading.read(SUBJECT, TASK, root=0, seed=0).values
    loss = {name: float(np.logaddexp(0.0, -gap).mean()) for name, gap in zip(DEFINITIONS, read["gap"], strict=True)}
    assert max(loss["whole"], loss["keep mean"], loss["keep patch"]) < 0.15
    assert loss["remove mean"] > 0.5 and loss["empty"] > 0.5
    # Mean ablation does not tell the two accounts apart: what the edges carry for the other answer does.
    assert loss["remove patch"] > 5.0 if size == 12 else loss["remove patch"] < 0.15
    assert read["random"].min() > loss["keep mean"] and "disturbed" not in read
    assert loss["keep adversarial"] >= loss["keep mean"]
    assert [int(read[key]) for key in ("edges", "all_edges", "all_units")] == [size, EDGES, 12]
    assert 2 < int(read["units"]) < 12


def test_it_is_found_judged_and_kept(tmp_path: Path) -> None:
    asked_for = {"method": "eap-ig", "target": 0.0, "pairs": 32, "random": 19, "subsets": 1}
    specs = runs.search_audits(dict(asked_for), SUBJECT)
    plan = planning.plan([SUBJECT], TASK, audits=specs, seed=0, sources=("planted",), data="planted")
    report = run(plan, [SUBJECT], TASK, store=tmp_path / "store")
    found = {one.title: one for one in report.findings if one.code.startswith("WT30")}
    assert found["Circuit is sufficient: mean ablation"].status == "excluded"
    assert found["Circuit is necessary: mean ablation"].status == "excluded"
    assert found["Circuit is necessary: counterfactual values"].status == "found"  # it is the decoy
    mean = found["Circuit is sufficient: mean ablation"]
    assert sum(one.name.startswith(("CPR", "CMD")) for one in mean.estimates) == 2
    nulls = [one.status for title, one in found.items() if title.startswith("Circuit beats its nulls: ")]
    assert nulls == ["excluded"] * 2  # where edges are patched, an empty circuit swaps the answers
    assert found["Circuit is stable: other searches"].status == "measured"
    weights = [one for title, one in found.items() if title.startswith("Weights of the circuit")]
    assert len(weights) == 3 and {one.status for one in weights} == {"not_applicable"}

    circuit = runs.found(plan, SUBJECT, TASK, tmp_path / "store")
    assert isinstance(circuit, Circuit) and 0 < circuit.kept.sum() < 8
    runs.save(circuit, tmp_path / "circuit.json")
    again = runs.file_audits(tmp_path / "circuit.json", SUBJECT, TASK)
    assert read_mib(tmp_path / "circuit.json").kept.tolist() == circuit.kept.tolist()

    # As another program writes it: without where it comes from.
    data = json.loads((tmp_path / "circuit.json").read_text())
    del data["wheeltap"]
    (tmp_path / "other.json").write_text(json.dumps(data))
    other = runs.file_audits(tmp_path / "other.json", SUBJECT, TASK)[0].settings
    assert (other["circuit"], other["method"]) == (again[0].settings["circuit"], "eap-ig")
    for edge in data["edges"].values():
        edge["in_graph"] = False
    (tmp_path / "other.json").write_text(json.dumps(data))
    with pytest.raises(UsageError):
        runs.file_audits(tmp_path / "other.json", SUBJECT, TASK)
    larger = Subject(planted_nets.true(count=32, seed=1).net, name="another")
    with pytest.raises(ModelError):
        runs.file_audits(tmp_path / "circuit.json", larger, TASK)


def test_edges_have_their_scores_one_example_at_a_time() -> None:
    kept = search()["rank"] < 12
    reading = create("circuit-graph", {"circuit": packed(kept), "parts": "edges", "pairs": 2})
    found = reading.spec.typed(reading.read(SUBJECT, TASK, root=0, seed=0).values, examples=len(TASK.targets))
    held = halves(pairs_of(TASK))[1].part([0, 1])
    known = wired(SUBJECT, held)
    graph, names = known.graph, bytes(found["names"].tolist()).decode().split("\n")
    swapped = [
        (held.corrupted, held.clean, held.wrong, held.answer),
        (held.clean, held.corrupted, held.answer, held.wrong),
    ]
    slow = [
        attribute(known, [PairBatch(*(torch.tensor(one[at : at + 1]) for one in side))])
        for side in swapped[::-1] for at in range(2)
    ]  # fmt: skip
    worth = dict(zip(graph.edges, np.mean(slow, 0), strict=True))
    components = [(names[site], unit) for site, unit in zip(found["site"], found["unit"], strict=True)]
    touched = [graph.nodes[at] for at in np.flatnonzero(graph.touched(kept))]
    assert [named(*one) for one in components] == touched
    assert len(found["weight"]) == found["edges"] == 12
    for source, target, weight in zip(found["source"], found["target"], found["weight"], strict=True):
        alike = [value for name, value in worth.items() if ends(name) == (touched[source], touched[target])]
        assert min(abs(float(weight) - value) for value in alike) < 1e-4
    # Of one example: what leaves a component over the circuit.
    own = sum(value for name, value, on in zip(graph.edges, slow[3], kept, strict=True) if on and
              ends(name)[0] == touched[0])  # fmt: skip
    assert found["held"][1, 1, 0] == pytest.approx(own, abs=1e-4) and abs(own) > 0.1


def named(site: str, unit: int) -> str:
    kind, _, layer = site.partition(" ")
    return {"embedding": "input", "logits": "logits", "MLP": f"m{layer}", "attention": f"a{layer}.h{unit}"}[kind]


def ends(edge: str) -> tuple[str, str]:
    source, _, target = edge.partition("->")
    return source, target.partition("<")[0]
