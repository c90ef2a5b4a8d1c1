"""Stores that hold several plans, runs that are not over, and plans made with packages that are not installed."""

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

import wheeltap as wt
from wheeltap.cli import main
from wheeltap.core.errors import UsageError
from wheeltap.plans.plan import Plan
from wheeltap.plans.store import Store
from wheeltap.runs import loop
from wheeltap.runs.stored import judge, plan_of

INPUTS = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
EFFORT = wt.Effort(draws=4, control_draws=4, block_draws=0)


def net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


with torch.no_grad():
    GIVEN = (INPUTS, net()(INPUTS).argmax(1))


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of an audit and, after it, a comparison."""
    store = tmp_path_factory.mktemp("two") / "two.wheeltap"
    wt.audit(net(), GIVEN, name="first", audits="score", store=store, seed=3)
    wt.compare(net(), net(1), GIVEN, names=("first", "second"), audits=["score", "quantization"], store=store)
    return store


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """What a command prints, as one line."""
    capsys.readouterr()
    is_report = arguments[0] == "report" and not arguments[-1].startswith("WT") and "--fail-on" not in arguments
    gate = ("--fail-on", "never") if is_report else ()
    assert main([*arguments, *gate]) == code
    printed = capsys.readouterr()
    return " ".join((printed.out + printed.err).split())


# ---- several plans ---------------------------------------------------------------------------------------------


def test_any_plan_of_a_store_is_listed_shown_and_judged(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = list[Any]()
    for more in (["--plan", "1"], ["--plan", "2"], []):
        said(capsys, "report", str(two), *more, "--json", str(tmp_path / "r.json"), "--html", str(tmp_path / "r.html"))
        shown.append(json.loads((tmp_path / "r.json").read_text()))
    one, both, last = shown
    assert [len(data["subjects"]) for data in (one, both)] == [1, 2] and last == both
    assert [data["provenance"]["seed"] for data in (one, both)] == [3, 0]
    assert [len(judge(two, plan=number).record.subjects) for number in (1, 2)] == [1, 2]
    said(capsys, "report", str(two), "WT103", "--plan", "1", code=2)
    assert "WT103" in said(capsys, "report", str(two), "WT103")


def test_plans_there_are_not(two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in ("0", "3"):
        assert "expected: 1 to 2" in said(capsys, "report", str(two), "--plan", number, code=2)
    judge(two).json(tmp_path / "report.json")
    assert "--plan" in said(capsys, "report", str(tmp_path / "report.json"), "--plan", "1", code=2)
    with Store(tmp_path / "empty.wheeltap"):
        pass
    said(capsys, "report", str(tmp_path / "empty.wheeltap"), code=2)


# ---- how far a run is ------------------------------------------------------------------------------------------


def test_status_of_a_run_that_is_not_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "s.wheeltap"
    wt.audit(net(1), GIVEN, name="other", audits="score", store=store)
    plan = wt.plan(wt.Subject(net(), name="net"), GIVEN, audits=["score", "relative-noise"], effort=EFFORT)

    def stop(state: loop.Progress) -> None:
        if state.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        wt.run(plan, wt.Subject(net(), name="net"), GIVEN, store=store, watch=stop)
    text = said(capsys, "status", str(store))
    there, wanted, to_go = map(int, re.findall(r"(\d+) of (\d+) trials have run (\d+) trials to go so far", text)[0])
    assert there == 5 and there + to_go == wanted
    most = re.search(r"may ask for more: at most ([\d,]+) in all", text)
    assert most is not None and int(most[1].replace(",", "")) > wanted
    assert judge(store).record.provenance["missing_trials"] == to_go
    report = wt.run(plan, wt.Subject(net(), name="net"), GIVEN, store=store)
    text = said(capsys, "status", str(store))
    assert "to go" not in text and text.count("complete") == 2
    assert f"{5 + report.cost.trials} of {5 + report.cost.trials} trials have run complete" in text


# ---- packages that are not installed ---------------------------------------------------------------------------


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A store whose plan was made with an audit that another package adds."""
    path = tmp_path / "foreign.wheeltap"
    wt.audit(net(), GIVEN, name="first", audits="score", store=path)
    with Store(path) as store:
        _, plan = plan_of(store)
        made = json.loads(plan.to_bytes())
        made["audits"].append({"name": "salt", "settings": {}})
        salted = Plan.from_bytes(json.dumps(made).encode(), where="here")
        store.put_plan(salted.key, salted.to_bytes())
    return path


def test_an_audit_that_is_not_installed_is_named_with_its_group(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "'wheeltap.audits'" in said(capsys, "report", str(foreign), code=2)
    assert "'wheeltap.audits'" in said(capsys, "status", str(foreign))
    with Store(foreign, readonly=True) as store:
        _, plan = plan_of(store)
    with pytest.raises(UsageError, match=r"'salt' that this was run with(.|\n)*where: the plan"):
        wt.run(plan, wt.Subject(net(), name="first"), GIVEN)


def test_a_plan_of_another_version_of_a_perturbation_is_refused(tmp_path: Path) -> None:
    """Else today's draws would be stored under the keys of yesterday's."""
    plan = wt.plan([net()], GIVEN, audits="relative-noise", effort=wt.Effort(draws=2, control_draws=2))
    old = msgspec.structs.replace(plan, versions={**plan.versions, "relative": 1})
    with pytest.raises(UsageError, match="another version of the perturbation 'relative'"):
        wt.run(old, [net()], GIVEN, store=tmp_path / "s.wheeltap")
    wt.run(plan, [net()], GIVEN, store=tmp_path / "t.wheeltap")
