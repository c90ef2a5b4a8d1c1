"""The reading of a circuit as a graph, against its weights and passes read one by one."""

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import planted_nets
import pytest
import torch
from torch import nn

import wheeltap as wt
from tests.blocks import blocks
from wheeltap.core.records import Estimate
from wheeltap.core.section import Graph, Table
from wheeltap.core.subject import Subject
from wheeltap.engine.readings import create
from wheeltap.suites.circuits.circuit import packed
from wheeltap.suites.circuits.engine.ablation import halves, pairs_of, reference
from wheeltap.suites.circuits.engine.units import UnitNet, two_sided
from wheeltap.suites.circuits.readings import CircuitGraph
from wheeltap.testing.planted import PlantedCase
from wheeltap.testing.reading_contract import ReadingContract

PLANTED = planted_nets.true(count=32)
TASK = planted_nets.task(PLANTED)
KEPT = planted_nets.flags(PLANTED)


class TestCircuitGraphContract(ReadingContract):
    reading = CircuitGraph
    settings: ClassVar[dict[str, Any]] = {"circuit": packed(KEPT), "edges": 9}

    def case(self) -> PlantedCase:
        return PlantedCase(Subject(PLANTED.net), TASK)


def _read(model: nn.Module = PLANTED.net, **settings: Any) -> dict[str, np.ndarray]:
    reading = create("circuit-graph", {"circuit": packed(KEPT), **settings})
    found = reading.read(Subject(model), TASK, root=0, seed=0)
    return reading.spec.typed(found.values, examples=len(TASK.targets))


def _slow(net: UnitNet, source: tuple[str, int], target: tuple[str, int]) -> float:
    """A weight between two units of a planted net, by the names of its modules alone."""
    layer = net.layers[[one.name for one in net.layers].index(target[0].partition(".")[0])]
    what = target[0].partition(".")[2]
    if what == "write" or not layer.mixes:
        path = layer.out if what == "write" else layer.ins[0]
    else:
        path = next(one for one in layer.ins if one.endswith(what))
    return float(PLANTED.net.get_submodule(path).weight.detach()[target[1], source[1]])


def test_weights_and_units_are_those_of_the_net() -> None:
    found = _read(edges=10_000)
    net = UnitNet(PLANTED.net, next(iter(pairs_of(TASK).batches())).clean)
    names = bytes(found["names"].tolist()).decode().split("\n")
    assert names == [site.name for site in net.sites]
    units = [(names[site], int(unit)) for site, unit in zip(found["site"], found["unit"], strict=True)]
    kept = [(site.name, at) for site in net.sites for at in range(site.units) if KEPT[net.slices[site.name]][at]]
    assert units == kept
    assert len(found["weight"]) == found["edges"] == net.edges(KEPT) > 10
    for source, target, weight in zip(found["source"], found["target"], found["weight"], strict=True):
        assert weight == pytest.approx(_slow(net, units[source], units[target]))
    carried = np.abs(found["weight"]) * found["spread"][found["source"]]
    assert (np.diff(carried) <= 1e-6).all() and carried[0] > carried[-1]
    few = _read(edges=9)
    assert few["edges"] == found["edges"] and few["weight"].tolist() == found["weight"][:9].tolist()


def test_what_units_hold_is_what_one_pass_at_a_time_shows() -> None:
    found, pairs = _read(pairs=3), halves(pairs_of(TASK))[1]
    net = UnitNet(PLANTED.net, next(iter(pairs.batches())).clean)
    assert found["tokens"].tolist() == [[list(one) for one in side[:3]] for side in (pairs.clean, pairs.corrupted)]
    assert found["answer"].tolist() == [list(pairs.answer[:3]), list(pairs.wrong[:3])]
    for side, contexts in enumerate((pairs.clean, pairs.corrupted)):
        for at in range(3):
            scores = PLANTED.net(torch.tensor([contexts[at]]))[0, -1].detach()
            right, other = (pairs.answer, pairs.wrong) if not side else (pairs.wrong, pairs.answer)
            assert found["gap"][side, at] == pytest.approx(float(scores[right[at]] - scores[other[at]]), abs=1e-4)
            recorded = net.recorded(torch.tensor([contexts[at]]))
            held = np.concatenate([recorded[site.name][0, -1].numpy() for site in net.sites])[KEPT]
            assert np.allclose(found["held"][side, at], held, atol=1e-5)
    every = [net.recorded(tokens) for tokens in reference(TASK)]
    flat = np.concatenate([np.concatenate([one[site.name].flatten(0, 1).numpy() for one in every]) for site in
                           net.sites], 1)[:, KEPT]  # fmt: skip
    assert np.allclose(found["mean"], flat.mean(0), atol=1e-4) and np.allclose(found["spread"], flat.std(0), atol=1e-4)


def test_a_report_shows_the_circuit_with_its_losses_and_nulls(tmp_path: Path) -> None:
    how = {"circuit": packed(KEPT), "random": 19, "subsets": 1, "weight_draws": 2}
    report = wt.audit(Subject(PLANTED.net, name="planted"), TASK, audits=[wt.AuditSpec("circuit-sufficient", how)])
    [shown], [graph] = report.record.sections, blocks(report.record, Graph)
    assert shown.brief == f"{KEPT.sum():,} of {len(KEPT):,} units"
    assert len(graph.nodes) == int(KEPT.sum()) and len(graph.views) == 8
    assert not blocks(report.record, Table, "Found")  # a circuit that is given was not searched for
    held = halves(pairs_of(TASK))[1]
    net = UnitNet(PLANTED.net, next(iter(held.batches())).clean)
    [table] = blocks(report.record, Table, "Loss by every definition")
    losses = {str(row[0]): row[1:] for row in table.rows}
    whole = torch.cat([two_sided(net.gaps(batch)) for batch in held.batches()]).mean().detach()
    assert isinstance(losses["whole net"][0], Estimate)
    assert losses["whole net"][0].value == pytest.approx(float(whole), abs=1e-6)
    loss, beside = losses["circuit alone, the rest at its mean"]
    assert isinstance(loss, Estimate) and isinstance(beside, str) and "(19 draws)" in beside
    least = re.search(r"median [\d.]+, ([\d.]+) to", beside)
    assert least is not None and float(least[1]) > 5 * (loss.value or 0.0)
    assert len(losses) == len(table.rows) == 15
    read = wt.Report.read(report.json(tmp_path / "report.json"))
    assert read.record.sections == report.record.sections and read.headline == report.headline
    assert 'class="graph"' in report.html(tmp_path / "report.html").read_text()
