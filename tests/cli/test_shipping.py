"""Would I ship this at 4 bits? Answered by the last screen of one command, for every family, and true."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.nets import shipped
from wheeltap.cli import main
from wheeltap.core.task import Task
from wheeltap.sources import digits

NEVER = ("same score", "no difference", "nothing found", "not found", "does not stand")
"""What no screen may say: each was once said of a loss that had been measured."""

MODELS = """
from tests.nets import shipped
from tests.cli import test_shipping as made
from wheeltap.sources import digits


def resnet(): return shipped.resnet(), digits.task()
def lstm(): return shipped.recurrent("lstm"), digits.task()
def gru(): return shipped.recurrent("gru"), digits.task()
def gpt2(): return made.language("gpt2"), shipped.letters()
def mixtral(): return made.language("mixtral"), shipped.letters()
def perceptron(): return digits.train(0), digits.task()
def tuned(): return made.tuned(), digits.task()
"""


def language(kind: str) -> nn.Module:
    """A tiny language model that has learned its task: half as many epochs as benchmarks give it are enough."""
    return shipped.language(kind, epochs=7)


def tuned() -> nn.Module:
    """The digits net after a few more steps on images with noise."""
    net, data = digits.train(0), digits.split()
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    for _ in range(60):
        rows = torch.randint(0, len(data.train_inputs), (64,), generator=generator)
        noisy = data.train_inputs[rows] + 0.5 * torch.randn(64, 64, generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(noisy), data.train_targets[rows]).backward()  # pyright: ignore[reportUnknownMemberType]
        optimizer.step()  # pyright: ignore[reportUnknownMemberType]
    return net.eval()


Screen = Callable[..., tuple[int, str, dict[str, Any]]]


@pytest.fixture
def screen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Screen:
    """Runs a command in a folder with the models; gives exit code, what was printed, and the report."""
    (tmp_path / "shipped_nets.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")

    def run(*arguments: str) -> tuple[int, str, dict[str, Any]]:
        named = [re.sub(r"^([a-z_0-9]+)$", r"shipped_nets:\1", one) if at else one for at, one in enumerate(arguments)]
        code = main([*named, "--json", "report.json"])
        printed = capsys.readouterr().out
        for words in NEVER:
            assert words not in printed.lower(), f"the screen says {words!r}"
        return code, printed, json.loads(Path("report.json").read_text())

    return run


def row(report: dict[str, Any], scheme: str, *, subject: str | None = None) -> dict[str, Any]:
    found = [f for f in report["findings"] if f["scheme"] == scheme and (subject is None or f["subject"] == subject)]
    return found[0]


def score(finding: dict[str, Any]) -> float:
    return next(e["value"] for e in finding["estimates"] if e["name"] == "score")


def rounded(net: nn.Module, bits: int, *, spared: tuple[str, ...] = ()) -> None:
    """Rounds every matrix of a net in place, a grid a row, with a loop over rows: an independent quantizer."""
    for name, parameter in net.named_parameters():
        if parameter.ndim < 2 or name in spared:
            continue
        held = parameter.detach()
        for line in held.reshape(-1, held.shape[-1]) if held.ndim == 3 else held.flatten(1):
            step = line.abs().max() / (2 ** (bits - 1) - 1)
            if step > 0:
                line.copy_((line / step).round() * step)


def accuracy(net: nn.Module, task: Task) -> float:
    with torch.no_grad():
        scores: Tensor = task.forward(net)
    return float((scores.argmax(1) == task.targets).float().mean())


@pytest.mark.parametrize("kind", shipped.RECURRENT)
def test_a_recurrent_net_is_rounded_whole(kind: str, screen: Screen) -> None:
    code, printed, report = screen("audit", kind, "--for", "int2,int4,int8")
    net = shipped.recurrent(kind)
    rounded(net, 2)
    found = row(report, "int2")
    assert score(found) == pytest.approx(accuracy(net, digits.task()), abs=1e-6)
    assert found["coverage"] > 0.9 and found["verdict"] == "costs" and code == 1
    assert "COSTS WHEN SHIPPED" in printed and "2 bits, per channel" in printed


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["resnet", "lstm", "gpt2", "mixtral"])
def test_the_last_screen_answers(kind: str, screen: Screen) -> None:
    """At most 40 lines; the last 15 hold the answer and the row of 4 bits, in agreement with the report."""
    _, printed, report = screen("audit", kind, "--for", "int8,nf4,int4-g32,int4,prune30")
    lines = printed.rstrip().splitlines()
    assert len(lines) <= 40
    last = "\n".join(lines[-15:])
    found = row(report, "int4")
    assert re.search(rf"4 bits, per channel .*{re.escape(found['verdict'])}", last), last
    assert re.search(r"(COSTS|MAY COST|CANNOT TELL|SAFE)", last)
    assert report["headline"].split(":")[0] in last


@pytest.mark.parametrize(("one", "two"), [("perceptron", "tuned"), ("perceptron", "resnet")])
def test_a_comparison_says_what_differs_when_shipped(one: str, two: str, screen: Screen) -> None:
    _, printed, report = screen("compare", one, two, "--for", "int8,int4,int3,int2,prune50")
    pairs = [f for f in report["findings"] if " vs " in f["subject"] and f["scheme"]]
    assert len(pairs) == 5 and all(f["estimates"][0]["low"] is not None for f in pairs)
    differs = [f for f in pairs if f["verdict"] == "differ"]
    assert differs and "DIFFER" in printed
    values = [abs(f["estimates"][0]["value"]) for f in pairs]
    largest = pairs[values.index(max(values))]
    lines = printed.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("shipped as"))
    assert lines[first + 1].startswith(largest["title"]), "the largest difference is not the first row"
