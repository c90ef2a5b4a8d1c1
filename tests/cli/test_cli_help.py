"""Every verb's help has examples of it, in lines that a terminal can hold."""

from typing import get_args

import pytest

from wheeltap.cli import application, main
from wheeltap.cli.whole import Whole

VERBS = [name for name in application(overview=True) if not name.startswith("-")]


@pytest.mark.parametrize("words", [*([verb] for verb in VERBS), ["fer", "fetch"]], ids=" ".join)
def test_help_shows_how_it_is_used(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    said = capsys.readouterr().out
    assert "Try it:" in said
    assert f"  wheeltap {words[0]}" in said


@pytest.mark.parametrize("verb", ["audit", "compare", "plan"])
def test_help_names_what_some_audits_need_of_the_data(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([verb, "--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("factor_NAME", "symmetry [element,", "groups", "factors"))


def test_every_option_that_counts_refuses_parts() -> None:
    """A plain ``int`` would be rounded by cyclopts; also of an option that is added later."""
    (converts,) = (kind.converter for kind in get_args(Whole) if kind is not int)
    verbs = application(overview=False)
    counts = {
        (verb, one.name): one.parameter.converter
        for verb in VERBS
        for one in verbs[verb].assemble_argument_collection()
        if one.hint in (int, int | None)
    }
    assert ("fer", "--seeds") in counts and ("audit", "--draws") in counts
    assert [option for option, converter in counts.items() if converter is not converts] == []
