"""Every verb's help has examples of it, in lines that a terminal can hold."""

import pytest

from wheeltap.cli import application, main

VERBS = [name for name in application(overview=True) if not name.startswith("-")]


@pytest.mark.parametrize("words", [*([verb] for verb in VERBS), ["fer", "fetch"]], ids=" ".join)
def test_help_shows_how_it_is_used(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    said = capsys.readouterr().out
    assert "Try it:" in said
    assert f"  wheeltap {words[0]}" in said
