"""What ``wheeltap lens`` concludes: its exit code, its words, and nothing about networks."""

import json
import re
from pathlib import Path

import pytest

from wheeltap.cli import main


def log(path: Path, right: str, *, samples: int = 1) -> str:
    """Answers to each item, right where there is a 1."""
    rows = [
        {"id": f"item {at}", "sample": sample, "correct": one == "1"}
        for at, one in enumerate(right)
        for sample in range(samples)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_gate_fails_only_where_the_second_is_worse_or_nothing_is_known(tmp_path: Path) -> None:
    good, bad = log(tmp_path / "good.jsonl", "1" * 50), log(tmp_path / "bad.jsonl", "0" * 50)
    few = [log(tmp_path / f"{name}.jsonl", "10110") for name in ("a", "b")]
    one, two = log(tmp_path / "one.jsonl", "1" * 100), log(tmp_path / "two.jsonl", "1" * 94 + "0" * 6)
    three = log(tmp_path / "three.jsonl", "1" * 97 + "000")  # a difference too small after correction: it leans
    for files, level, code in (
        ((good, bad), "costs", 1), ((bad, good), "costs", 0), (few, "costs", 0), (few, "may-cost", 0),
        (few, "cannot-tell", 1), ((one, three, two), "costs", 0), ((one, three, two), "may-cost", 1),
        ((two, three, one), "costs", 0), ((two, three, one), "may-cost", 0),
    ):  # fmt: skip
        assert main(["lens", *files, "--quiet", "--fail-on", level]) == code, (files, level)


def test_the_answer_says_what_would_decide_and_that_tests_are_corrected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [log(tmp_path / f"{name}.jsonl", right) for name, right in (("a", "1011" * 8), ("b", "0111" * 8))]
    assert main(["lens", *files, log(tmp_path / "c.jsonl", "1100" * 8)]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"annot tell: a vs b, .*: 0\.0 points \[-[\d.]+, [\d.]+\]; at least [\d,]+ items would show", out)
    assert "would show 4 points, or exclude 2 points if there is none." in out
    assert "Look again once, with the number named and a fifth of alpha" in out
    assert "Verdicts are corrected for all 3 tests of this report" in out
    # Left out where an effect is seen: the number of items is that for no effect, or for one of twice the margin.
    one, two = log(tmp_path / "one.jsonl", "1" * 100), log(tmp_path / "two.jsonl", "1" * 94 + "0" * 6)
    main(["lens", one, log(tmp_path / "three.jsonl", "1" * 97 + "000"), two])
    out = " ".join(capsys.readouterr().out.split())
    assert re.search(r"May differ: one vs two, .*?: -6\.0 points \[-[\d.]+, -[\d.]+\]\. Cannot", out), out


def test_the_answer_alone_is_wrapped_like_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    main(["lens", log(tmp_path / "good.jsonl", "1" * 50), log(tmp_path / "bad.jsonl", "0" * 50), "--quiet"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1 and max(map(len, lines)) <= 60


@pytest.mark.parametrize("samples", [1, 3])
def test_a_report_on_answers_is_not_about_networks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], samples: int
) -> None:
    files = [log(tmp_path / f"{name}.jsonl", "101" * 20, samples=samples) for name in ("a", "b")]
    html = tmp_path / "x.html"
    main(["lens", *files, "--full", "--html", str(html)])
    text = re.sub(r"<style>.*?</style>", "", html.read_text(), flags=re.DOTALL)
    for shown in (capsys.readouterr().out, re.sub(r"<[^>]*>", " ", text)):
        words = " ".join(shown.split())
        for word in ("network", "disturb", "parameters", "forward pass", "not measured", "weights"):
            assert word not in words, (word, words[max(words.find(word) - 80, 0) :][:200])
        assert "Each system" in words and "60 items" in words
