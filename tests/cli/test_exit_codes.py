"""What must not pass for success: foreign exits, test sets without an answer, a gate without a question."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import wheeltap as wt
from wheeltap.cli import main
from wheeltap.core.errors import ModelError
from wheeltap.sources import digits

CODE = """
import sys
import torch
import wheeltap as wt
from torch import nn
from wheeltap.sources import digits

TASK = digits.task()


class Raising(nn.Module):
    def __init__(self, error):
        super().__init__()
        self.net, self.error = digits.subject().model, error

    def forward(self, inputs):
        raise self.error


def exits():
    return Raising(SystemExit()).eval()


def generator_exit():
    return Raising(GeneratorExit()).eval()


def surrogate():
    return Raising(RuntimeError("text with \\ud800")).eval()


def exits_when_loaded():
    sys.exit()


def good():
    return wt.Task(TASK.inputs, TASK.targets, name="good")


def wrong():
    return wt.Task(TASK.inputs, (TASK.targets + 1) % 10, name="wrong")


def five():
    return wt.Task(TASK.inputs[:5], TASK.targets[:5], name="five")


def broken(scores, targets):
    raise KeyError("label")


def badly_measured():
    return wt.Task(TASK.inputs, TASK.targets, name="badly measured", measure=wt.measure.of(broken, bounded=True))
"""


@pytest.fixture(autouse=True)
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foreign_code.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "foreign_code", raising=False)


def run(*words: str) -> int:
    return main([*words, "--store", "none", "--quiet"])


@pytest.mark.parametrize("model", ["exits", "generator_exit", "surrogate", "exits_when_loaded"])
def test_what_a_model_raises_is_an_error_without_a_traceback(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("audit", f"foreign_code:{model}", "--data", "digits", "--for", "int8") == 2
    said = capsys.readouterr().err
    assert "wheeltap: " in said and "Traceback" not in said and "bug in wheeltap" not in said


def test_doctor_fails_where_a_model_exits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "foreign_code:exits", "--data", "digits"]) == 2


def test_a_measure_that_raises_is_an_error_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("audit", "digits", "--data", "foreign_code:badly_measured", "--for", "int8") == 2
    said = capsys.readouterr().err
    assert "KeyError" in said and "broken" in said and "Traceback" not in said


@pytest.mark.parametrize("words", [[], ["claims"], ["circuits"], ["--version"], ["audit", "--help"]])
def test_help_and_the_version_are_no_failure(words: list[str]) -> None:
    assert main(words) == 0


def test_closed_standard_output_is_no_bug() -> None:
    command = [sys.executable, "-c", "import sys; from wheeltap.cli import main; sys.exit(main(['list', 'schemes']))"]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("data", ["wrong", "five"])
def test_a_test_set_without_an_answer_is_no_answer(data: str) -> None:
    sets = ("--data", "foreign_code:good", "--data", f"foreign_code:{data}")
    assert run("audit", "digits", *sets, "--for", "int8") == 2
    assert run("audit", "digits", *sets[:2], "--for", "int8") == 0


def test_a_gate_that_wants_verdicts_wants_a_question() -> None:
    assert run("audit", "digits", "--audits", "census", "--fail-on", "cannot-tell") == 2
    assert run("audit", "digits", "--audits", "census", "--fail-on", "undecided") == 2


def test_a_report_without_a_verdict_fails_as_undecided() -> None:
    few = ("audit", "digits", "--for", "int4", "--margin", "0.0001")
    assert run(*few) == 0
    assert run(*few, "--fail-on", "undecided") == 1
    assert run("audit", "digits", "--for", "int8", "--fail-on", "undecided") == 0


def test_a_gate_that_is_off_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("audit", "digits", "--for", "int2", "--fail-on", "never") == 0
    assert "gate is off" in capsys.readouterr().err


def test_one_code_of_a_report_is_neither_written_nor_judged(tmp_path: Path) -> None:
    assert main(["audit", "digits", "--for", "int2", "--store", "run.wheeltap", "--quiet"]) == 1
    assert main(["report", "run.wheeltap", "WT100"]) == 0
    assert main(["report", "run.wheeltap", "WT100", "--fail-on", "costs", "--junit", "x.xml"]) == 2
    assert not Path("x.xml").exists()


def test_alpha_has_a_least_value() -> None:
    assert run("audit", "digits", "--for", "int8", "--alpha", "1e-300") == 2
    with pytest.raises(wt.errors.UsageError):
        wt.audit(digits.subject(), digits.task(), schemes="int8", alpha=1e-7)


class Perturbable(nn.Module):
    """Fails as soon as its weights are not those it was made with."""

    def __init__(self, error: type[Exception]) -> None:
        super().__init__()
        self.net, self.error, self.calls = digits.subject().model, error, 0
        self._clean = {name: weight.clone() for name, weight in self.net.state_dict().items()}

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if any(not torch.equal(weight, self._clean[name]) for name, weight in self.net.state_dict().items()):
            raise self.error("can't allocate memory")
        return self.net(inputs)


def test_running_out_of_memory_costs_no_more_calls_than_another_error() -> None:
    calls = []
    for error in (ValueError, MemoryError):
        model = Perturbable(error).eval()
        wt.audit(wt.Subject(model, name="model"), digits.task(), schemes="int8,int4,nf4")
        calls.append(model.calls)
    assert calls[1] <= calls[0] + 10


class Writing(nn.Module):
    """Writes into its own weights, and fails."""

    def __init__(self) -> None:
        super().__init__()
        self.net = digits.subject().model

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            next(self.net.parameters()).add_(1.0)
        raise RuntimeError("written")


def test_a_forward_that_writes_and_fails_leaves_the_weights_as_they_were() -> None:
    model = Writing().eval()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    with pytest.raises(ModelError):
        wt.audit(wt.Subject(model, name="model"), digits.task(), schemes="int8")
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
