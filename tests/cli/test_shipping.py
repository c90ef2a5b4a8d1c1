"""Would I ship this at 4 bits? Answered by one command, and true."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from wheeltap.cli import main
from wheeltap.core.task import Task
from wheeltap.recipes.randomness import reproducible
from wheeltap.recipes.train import TrainSettings, train_once
from wheeltap.sources import digits

NEVER = ("same score", "no difference", "nothing found", "not found", "does not stand")
"""What no screen may say: each was once said of a loss that had been measured."""

MODELS = """
from tests.cli import test_shipping as made
from wheeltap.sources import digits


def lstm(): return made.recurrent(), digits.task()
def perceptron(): return digits.train(0), digits.task()
def tuned(): return made.tuned(), digits.task()
"""


class Rows(nn.Module):
    """An LSTM that reads an image row by row: 95 % of its weights are recurrent."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.LSTM(8, 48, batch_first=True)
        self.head = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``[example, 10]`` of ``[example, 64]``."""
        return self.head(self.body(x.reshape(-1, 8, 8))[0][:, -1])


def recurrent() -> nn.Module:
    """That net, trained on the training digits; in eval mode."""
    with reproducible(0):
        net = Rows()
    data, settings = digits.split(), TrainSettings(seed=0, epochs=25)
    return train_once(net, data.train_inputs, targets=data.train_targets, settings=settings)


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


def test_a_recurrent_net_is_rounded_whole(screen: Screen) -> None:
    code, _, report = screen("audit", "lstm", "--for", "int2,int4,int8")
    net = recurrent()
    rounded(net, 2)
    found = row(report, "int2")
    assert score(found) == pytest.approx(accuracy(net, digits.task()), abs=1e-6)
    assert found["coverage"] > 0.9 and found["verdict"] == "costs" and code == 1


def test_a_comparison_says_what_differs_when_shipped(screen: Screen) -> None:
    _, printed, report = screen("compare", "perceptron", "tuned", "--for", "int8,int4,int3,int2,prune50")
    pairs = [f for f in report["findings"] if " vs " in f["subject"] and f["scheme"]]
    assert len(pairs) == 5 and all(f["estimates"][0]["low"] is not None for f in pairs)
    differs = [f for f in pairs if f["verdict"] == "differ"]
    assert differs
    values = [abs(f["estimates"][0]["value"]) for f in pairs]
    largest = pairs[values.index(max(values))]
    lines = printed.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("shipped as"))
    assert lines[first + 1].startswith(largest["title"]), "the largest difference is not the first row"
