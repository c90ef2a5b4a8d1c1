"""Worlds with a planted answer (``benchmarks.claims`` runs them): each is a retest of the ledger with sound rules."""

from pathlib import Path

from benchmarks.claims import PLANTED, asked
from wheeltap.runs.request import StudyRequest
from wheeltap.suites.claims.ledger import read
from wheeltap.suites.claims.retest import RetestRun


def test_every_world_is_a_retest_of_the_ledger_with_rules_that_can_be_decided(tmp_path: Path) -> None:
    ledger = read()
    run = RetestRun("small", StudyRequest(alpha=ledger.alpha), tmp_path)
    for name, worlds in PLANTED.items():
        assert [world.answer for world in worlds.values()] == ["supports", "refutes", "undecided"]
        for world in worlds.values():
            run.sound(*asked(ledger, name, world))
