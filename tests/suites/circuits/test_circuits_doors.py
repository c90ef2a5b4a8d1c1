"""``wheeltap circuits`` as a user types it, and the same from Python: trained, found, checked, resumed, refused."""

import io
import json
from pathlib import Path
from typing import Any

import planted_nets
import pytest
import torch

import wheeltap as wt
from wheeltap.cli import main
from wheeltap.core.errors import WheeltapError
from wheeltap.runs import loop, planning
from wheeltap.runs.pace import Progress, in_cell
from wheeltap.sources import artifact
from wheeltap.suites.circuits import runs
from wheeltap.suites.circuits.circuit import Circuit, UnitCircuit, is_mib, load
from wheeltap.suites.circuits.engine.ablation import halves, pairs_of

MODULE = """
from tests.nets.planted_circuit import planted_circuit


def net():
    return planted_circuit(3, fake=False, count=32).net


def poor():
    model = net()
    for parameter in model.unembed.parameters():
        parameter.data.mul_(1e-3)
    return model
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a user's module and pairs in it; the current one."""
    (tmp_path / "mynets.py").write_text(MODULE)
    pairs = planted_nets.true(count=32).pairs
    names = ("clean", "corrupted", "answer", "wrong")
    rows = zip(*(getattr(pairs, name).tolist() for name in names), strict=True)
    written(tmp_path / "pairs.jsonl", [json.dumps(dict(zip(names, row, strict=True))) for row in rows])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def written(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n")
    return path


def find(model: str, out: str, *, target: str = "0.4", more: tuple[str, ...] = ()) -> list[str]:
    return ["circuits", "find", f"mynets:{model}", "--task", "pairs.jsonl", "--steps", "8", "--penalties", "1e-4",
            "--target", target, "--store", f"{out}.wheeltap", "-o", f"{out}.json", "--quiet", *more]  # fmt: skip


def estimates(path: Path, code: str) -> list[Any]:
    findings = json.loads(path.read_text())["findings"]
    return [finding["estimates"] for finding in findings if finding["code"] == code]


@pytest.mark.release
def test_a_circuit_is_found_and_checked(place: Path) -> None:
    code = main(find("net", "found", more=("--json", "report.json")))
    circuit = load(place / "found.json")
    assert code in (0, 1) and 0 < circuit.size < 640 and circuit.undecided == ""
    check = ["circuits", "check", "mynets:net", "found.json", "--task", "pairs.jsonl", "--store", "check.wheeltap"]
    assert main([*check, "--quiet", "--json", "checked.json"]) == code
    for name in ("WT301", "WT302"):
        assert estimates(place / "report.json", name) == estimates(place / "checked.json", name) != []
    assert main(["circuits", "check", "mynets:poor", "found.json", "--task", "pairs.jsonl"]) == 2  # another model
    # Of the store of this run, a run that asks for more searches has the one that both make.
    task, subject = wt.circuits.task(place / "pairs.jsonl"), wt.Subject(planted_nets.true(count=32).net, name="net")
    asked: dict[str, Any] = {"steps": 8, "penalties": "1e-4,1e-3", "target": 0.4}
    plan = planning.plan([subject], task, audits=runs.search_audits(asked, subject), seed=0)
    partial = runs.found(plan, subject, task, place / "found.wheeltap")
    assert isinstance(partial, UnitCircuit) and partial.undecided and partial.sites == circuit.sites


def test_in_python_edges_are_found_saved_and_checked(place: Path) -> None:
    task, net = wt.circuits.task(place / "pairs.jsonl"), planted_nets.true(count=32).net
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    found = wt.circuits.find(net, task, method="eap", subsets=1, random=19, tries=1, again=1)
    assert isinstance(found.circuit, Circuit) and is_mib(found.save(place / "edges.json")) and not found.undecided
    # By default edges are patched: there an empty circuit gives swapped answers, which is no null.
    assert found.circuit.origin is not None and found.circuit.origin.found["ablation"] == "patch"
    assert sum(one.code == "WT303" for one in found.report.findings) == 2
    report = wt.circuits.check(net, task, place / "edges.json")
    by_title = [{one.title: one for one in held.findings} for held in (found.report, report)]
    mean = [findings["Circuit is sufficient: mean ablation"].estimates[0] for findings in by_title]
    assert mean[0] == mean[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_no_time_left_is_said_while_more_trials_may_follow(place: Path) -> None:
    """What is asked of a circuit follows from the search for it: a figure from the searches alone would grow."""
    task, subject = wt.circuits.task(place / "pairs.jsonl"), wt.Subject(planted_nets.true(count=32).net, name="net")
    asked: dict[str, Any] = {"method": "eap", "subsets": 1, "random": 19, "tries": 1, "again": 1, "target": 0.4}
    plan = planning.plan([subject], task, audits=runs.search_audits(asked, subject), seed=0)
    states, line = list[Progress](), io.StringIO()
    with in_cell(line, after=0.0, every=0.0) as watch:

        def each(state: Progress) -> None:
            states.append(state)
            assert watch is not None
            watch(state)

        loop.run(plan, [subject], task, watch=each)
    settled = [state for state in states if not state.growing]
    assert states[0].growing and {state.total for state in settled} == {states[-1].done}
    assert len(settled) < len(states) and max(state.total for state in states if state.growing) < states[-1].done
    said = [text for text in line.getvalue().split("\r") if "trials" in text]
    assert not any("left" in text for text in said[: len(states) - len(settled)])
    assert any("left" in text for text in said[len(states) - len(settled) :])


@pytest.mark.release
def test_where_no_search_reaches_the_target_the_best_is_written_and_marked(place: Path) -> None:
    assert main(find("net", "units", target="1e-9")) in (1, 2)
    circuit = load(place / "units.json")
    assert circuit.undecided and 0 < circuit.kept.sum() < len(circuit.kept)


def test_a_net_that_cannot_do_the_task_has_no_circuit(place: Path) -> None:
    main(find("poor", "poor", more=("--method", "eap", "--workers", "1")))
    assert not (place / "poor.json").exists()


def test_pairs_that_are_there_twice_are_asked_once(place: Path) -> None:
    lines = (place / "pairs.jsonl").read_text().splitlines()
    swap = {"clean": "corrupted", "corrupted": "clean", "answer": "wrong", "wrong": "answer"}
    turned = [json.dumps({swap[key]: value for key, value in json.loads(line).items()}) for line in lines]
    searched, held = halves(pairs_of(wt.circuits.task(written(place / "twice.jsonl", [*lines, *turned, *lines]))))
    keys = [{(one, two) for one, two in zip(half.clean, half.corrupted, strict=True)} for half in (searched, held)]
    assert len(keys[0]) == len(searched) and not keys[0] & keys[1]
    assert len(searched) + len(held) == len(set(lines))


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (["find", "mynets:net", "--task", "with_as"], "with_as"),  # was a task
        (["find", "mynets:net", "--task", "agreement"], "agreement"),
        (["find", "artifact:there.safetensors", "--task", "quote"], "there.safetensors"),
        (["check", "mynets:net", "mynets.py", "--task", "pairs.jsonl"], "mynets.py"),
        (["check", "mynets:net", "there.json", "--task", "pairs.jsonl"], "there.json"),
        (["find", "mynets:net", "--task", "broken.jsonl"], "line 3"),
        (["train", "--model", "mynets:net", "-o", "x.safetensors"], "--model"),  # was a flag
    ],
)
def test_what_cannot_be_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], name: str
) -> None:
    lines = (place / "pairs.jsonl").read_text().splitlines()
    broken = json.loads(lines[2])
    broken["corrupted"] = broken["corrupted"][:-1]
    written(place / "broken.jsonl", [*lines[:2], json.dumps(broken)])
    assert main(["circuits", *words]) == 2
    assert name in " ".join(capsys.readouterr().err.split())


def test_a_trained_net_comes_back_from_its_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = place / "net.safetensors"
    assert main(["circuits", "train", "--steps", "2", "--quiet", "-o", str(path)]) == 0
    again = artifact.load_artifact(path).subject
    nonzero = sum(int(torch.count_nonzero(one)) for name, one in again.model.named_parameters()
                  if "blocks" in name and one.ndim == 2)  # fmt: skip
    assert again.name == "net" and f"{nonzero:,} weights" in capsys.readouterr().out
    data = path.read_bytes()
    renamed = data.replace(b'\\"sparse\\"', b'\\"sparsa\\"')
    for changed in (data[:100], data[:-8], renamed, b"pickle"):
        path.write_bytes(changed)
        with pytest.raises(WheeltapError):
            artifact.load_artifact(path)
