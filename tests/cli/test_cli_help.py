"""Every verb's help has examples of it, in lines that a terminal can hold."""

from pathlib import Path
from typing import get_args

import pytest

from wheeltap.audits.base import studies
from wheeltap.audits.settle import audits_of
from wheeltap.cli import application, main
from wheeltap.cli.options import Whole
from wheeltap.plans.plan import Plan

VERBS = [name for name in application(overview=True) if not name.startswith("-")]
SHOWN = [*([verb] for verb in VERBS), ["doctor", "--plant"]]


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_help_shows_how_it_is_used(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--help"]) == 0
    said = capsys.readouterr().out
    assert "Try it:" in said
    assert f"  wheeltap {words[0]}" in said


def test_help_names_what_audits_need_of_the_data_and_of_which_draws_an_option_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Flipped bits have draws of their own, as the help says."""
    for verb in ("audit", "compare", "plan"):
        assert main([verb, "--help"]) == 0
        said = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert all(name in said for name in ("factor_NAME", "symmetry [element,", "groups", "factors"))
        assert "Of noise alone" in said and "table [bit-flips]" in said
    for config, draws in (("", 64), ("[bit-flips]\ndraws = 7\n", 7)):
        (tmp_path / "few.toml").write_text(config)
        where = ["--config", str(tmp_path / "few.toml"), "-o", str(tmp_path / "a.plan.json")]
        assert main(["plan", "digits", "--audits", "relative-noise,bit-flips", "--draws", "5", *where]) == 0
        made = Plan.read(tmp_path / "a.plan.json")
        assert made.effort.draws == 5
        assert [audit.settings.draws for audit in audits_of(made) if audit.name == "bit-flips"] == [draws]


WITHIN = {
    "circuits": ("train", "find", "check"), "claims": ("retest",), "dictionary": ("train", "check"),
    "init": ("ci",),
}  # fmt: skip


def test_every_option_that_counts_refuses_parts() -> None:
    """A plain ``int`` would be rounded by cyclopts; also of an option that is added later."""
    (converts,) = (kind.converter for kind in get_args(Whole) if kind is not int)
    verbs = application(overview=False)
    own = {verb: [verbs[verb]] for verb in VERBS if verb not in WITHIN}
    own |= {verb: [verbs[verb][name] for name in names] for verb, names in WITHIN.items()}
    own["study"] = [verbs["study"][name] for name in studies if name != "declared"]
    own["doctor"].append(verbs["doctor"]["--plant"])
    counts = {
        (verb, one.name): one.parameter.converter
        for verb, commands in own.items()
        for command in commands
        for one in command.assemble_argument_collection()
        if one.hint in (int, int | None)
    }
    assert {("study", "--seeds"), ("audit", "--draws"), ("circuits", "--steps")} <= counts.keys()
    assert [option for option, converter in counts.items() if converter is not converts] == []
