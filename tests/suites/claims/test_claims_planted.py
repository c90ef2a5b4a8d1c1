"""Worlds with a planted answer (``benchmarks.claims`` runs them): each is a retest of the ledger with sound rules."""

from pathlib import Path

from benchmarks.claims import PLANTED, asked
from tests.nets import lanes
from wheeltap.core.subject import Subject
from wheeltap.runs.request import StudyRequest
from wheeltap.suites.circuits.recipes.search import CircuitSearch
from wheeltap.suites.claims.ledger import read
from wheeltap.suites.claims.retest import RetestRun


def test_every_world_is_a_retest_of_the_ledger_with_rules_that_can_be_decided(tmp_path: Path) -> None:
    ledger = read()
    run = RetestRun("small", StudyRequest(alpha=ledger.alpha), tmp_path)
    for name, worlds in PLANTED.items():
        assert [world.answer for world in worlds.values()] == ["supports", "refutes", "undecided"]
        for world in worlds.values():
            run.sound(*asked(ledger, name, world))


def test_the_search_finds_lanes_of_known_number_and_none_in_the_nonsense_task() -> None:
    """Units are those that were planted; between as many units, a dense net has over 8 times the weights."""
    task, edges, count = lanes.task(), dict[str, int](), 10
    how = {"target": 0.15, "steps": 40, "pairs": 32, "batch": 12}
    for kind, share in (("sparse", lanes.SHARE), ("dense", 1.0)):
        subject = Subject(lanes.net(3, lanes=count, share=share), name=kind)
        found, nonsense = (
            CircuitSearch({**how, "group": group}).read(subject, task, root=0, seed=0).values for group in (0, 8)
        )
        assert abs(int(found["size"]) - lanes.size(count)) <= 2 and int(nonsense["size"]) == 0
        edges[kind] = int(found["edges"])
    assert edges["dense"] > 8 * edges["sparse"]
