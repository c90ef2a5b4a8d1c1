"""Planted truth: each world is a retest of the ledger with sound rules; one of each is decided right."""

from pathlib import Path

import pytest

from benchmarks.claims import PLANTED, asked, decided
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


@pytest.mark.full
@pytest.mark.parametrize("name", list(PLANTED))
def test_planted_claims_are_decided_right(name: tuple[str, str]) -> None:
    for world in PLANTED[name].values():
        assert decided(read(), name, world, seed=100) == world.answer
