"""Of which draws an option is."""

from pathlib import Path

from wheeltap.audits.settle import audits_of
from wheeltap.cli import main
from wheeltap.plans.plan import Plan


def test_flipped_bits_have_draws_of_their_own(tmp_path: Path) -> None:
    for config, draws in (("", 64), ("[bit-flips]\ndraws = 7\n", 7)):
        (tmp_path / "few.toml").write_text(config)
        where = ["--config", str(tmp_path / "few.toml"), "-o", str(tmp_path / "a.plan.json")]
        assert main(["plan", "digits", "--audits", "relative-noise,bit-flips", "--draws", "5", *where]) == 0
        made = Plan.read(tmp_path / "a.plan.json")
        assert made.effort.draws == 5
        assert [audit.settings.draws for audit in audits_of(made) if audit.name == "bit-flips"] == [draws]
