"""Tests of a project that has wheeltap installed; pytest runs them there, each failing or passing as it is called."""

from pathlib import Path

import gated

from wheeltap.testing import assert_survives


def test_passes(wheeltap_store: Path) -> None:
    assert assert_survives(gated.net(), gated.examples(), store=wheeltap_store, int8=0.02).cost.trials > 0


def test_passes_and_measures_nothing_again(wheeltap_store: Path) -> None:
    cost = assert_survives(gated.net(), gated.examples(), store=wheeltap_store, int8=0.02).cost
    assert cost.trials == 0 and cost.reused > 0


def test_fails_undecided(wheeltap_store: Path) -> None:
    assert_survives(gated.net(), gated.examples(), store=wheeltap_store, int8=0.001)


def test_fails_with_the_table(wheeltap_store: Path) -> None:
    assert_survives(gated.broken(), gated.examples(), store=wheeltap_store, int8=0.02, **{"int4-tensor": 0.01})
