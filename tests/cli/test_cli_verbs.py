"""Every verb, as a user would type it."""

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from wheeltap.cli import main
from wheeltap.cli.execution import planned
from wheeltap.cli.options import RequestFlags
from wheeltap.report import jsonfile
from wheeltap.runs import loop
from wheeltap.sources import digits


def report(path: Path) -> dict[str, Any]:
    """The report in a file, checked against the schema."""
    data = json.loads(path.read_text())
    jsonschema.validate(data, jsonfile.schema())
    return data


def found(data: dict[str, Any], name: str, subject: str) -> dict[str, Any]:
    """The one finding with this code, or on this way of shipping, and this subject."""
    (finding,) = [f for f in data["findings"] if name in (f["code"], f["scheme"]) and f["subject"] == subject]
    return finding


def test_a_profile_says_where_the_time_went(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.perf_counter()
    assert main(["audit", "nets:sound", "--data", "data.npz", "--audits", "score", "--profile"]) == 1, "at chance"
    wall = time.perf_counter() - began
    said = capsys.readouterr().err
    rows = dict(re.findall(r"^(\S.*?)  +(-?[\d.]+) +-?[\d.]+ +[\d,]+$", said, flags=re.M))
    assert {"passes over the examples", "fingerprints", "loading", "everything else"} <= rows.keys()
    spent = {name: float(seconds) for name, seconds in rows.items()}
    assert abs(2 * spent["all"] - sum(spent.values())) < 0.1 * len(spent), "each second counts once"
    assert spent["all"] > wall - 0.5, "it counts from the start of the process"


def test_plan_run_status_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "digits", "--audits", "score,quantization", "--draws", "2", "-o", "d.plan.json"]) == 0
    assert main(["run", "d.plan.json", "--store", "d.wheeltap", "--json", "run.json", "--fail-on", "never"]) == 0
    assert main(["status"]) == 0, "there is one store"
    (here / "e.wheeltap").touch()
    assert main(["status"]) == 2, "which of two?"
    assert main(["report", "d.wheeltap", "--json", "judge.json", "--fail-on", "never"]) == 0
    ran, judged = report(here / "run.json"), report(here / "judge.json")
    assert ran["findings"] == judged["findings"] and ran["controls"] == judged["controls"]
    assert main(["report", "d.wheeltap", "--html", "d.html", "--fail-on", "never"]) == 0
    assert (here / "d.html").read_text().startswith("<!doctype html>")
    capsys.readouterr()
    assert main(["report", "run.json", "wt103"]) == 0
    assert "WT103 digits" in capsys.readouterr().out
    assert main(["report", "d.wheeltap"]) == 0


def test_an_unfinished_run_says_what_is_missing_and_how_to_go_on(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    audit = ["audit", "digits", "--audits", "score,relative-noise", "--draws", "3", "--store", "d.wheeltap"]
    plan, subjects, task = planned(("digits",), RequestFlags(audits="score,relative-noise", draws=3))

    def stop(state: loop.Progress) -> None:
        if state.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(plan, subjects, task, store="d.wheeltap", watch=stop, again=shlex.join(("wheeltap", *audit)))
    assert main(["status", "d.wheeltap"]) == 0
    left = re.search(rf"(\d+) trials to go.*: resume with: wheeltap {' '.join(audit)}$", capsys.readouterr().out, re.M)
    assert left is not None
    assert main(["report", "d.wheeltap", "--out", "out"]) == 2
    data = report(here / "out" / "report.json")
    assert data["headline"].startswith("Unfinished") and data["provenance"]["missing_trials"] == int(left[1])
    assert main(["report", "out/report.json"]) == 0
    assert main(audit) == main(["report", "d.wheeltap", "--json", "whole.json"]) == 0
    assert "missing_trials" not in report(here / "whole.json")["provenance"]


def test_compare_and_exit_codes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    audit = ["audit", "nets:sound", "--data", "data.npz", "--draws", "2", "--out", "out"]
    code = main(audit)
    data = report(here / "out" / "report.json")
    assert (here / "out" / "report.html").is_file() and (here / "nets-sound.wheeltap").is_file()
    # An untrained net on random labels is at chance: nothing to lose, and that is no pass.
    assert found(data, "WT105", "nets:sound")["status"] == "not_applicable"
    assert data["headline"].startswith("AT CHANCE")
    assert code == 1 and "exit code 1: WT001 nets:sound: at chance" in capsys.readouterr().err
    pair = ["compare", "digits", "digits", "--draws", "2", "--json", "pair.json", "--store", "pair.wheeltap"]
    pair += ["--audits", "score,relative-noise"]
    assert main(pair) == 0
    pair_data = report(here / "pair.json")
    assert found(pair_data, "WT101", "digits vs digits-2")["status"] == "excluded"
    fragile = ["audit", "digits", "--audits", "quantization,quantization", "--config", "two.toml"]
    (here / "two.toml").write_text("[quantization]\ndoses = [8, 2]\ntested = 2\n")
    assert main([*fragile, "--json", "q.json"]) == 1
    assert main([*fragile, "--fail-on", "never"]) == 0
    assert [f["code"] for f in report(here / "q.json")["findings"]] == ["WT103", "WT002"]  # named twice, run once


def test_names_in_a_settings_file_are_a_list_or_a_text(here: Path) -> None:
    made: list[str] = []
    for factors in ('["even", "much_ink"]', '"even,much_ink"'):
        (here / "two.toml").write_text(f'audits = ["decodable"]\n[decodable]\nfactors = {factors}\nlayers = ["0"]\n')
        assert main(["plan", "digits", "--config", "two.toml", "-o", "p.json"]) == 0
        made.append((here / "p.json").read_text())
    assert made[0] == made[1]
    for factors in ('["even", "odd"]', "[]", '["even", 3]'):
        (here / "two.toml").write_text(f"audits = ['decodable']\n[decodable]\nfactors = {factors}\n")
        assert main(["plan", "digits", "--config", "two.toml"]) == 2


@pytest.mark.parametrize(
    ("command", "instead"),
    [
        ("dictionary train --data vectors.npy", "--vectors"),
        ("dictionary check ioi d.safetensors --data=x.npz", "--task"),
        ("claims retest C4 --data folder", "--files"),
        ("claims diff a.json b.json", "retest --json"),
        ("verify digits digits.seal --full", "wheeltap verify"),
        ("audit digits --audits std-noise", "relative-noise"),
        ("audit digits --audits WT109", "was removed"),
        ("study example-detection", "was removed"),
    ],
)
def test_a_removed_name_is_refused_with_the_one_to_use(
    command: str, instead: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command.split()) == 2
    assert instead in capsys.readouterr().err


def test_findings_in_full_are_named_by_codes_and_audits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "digits", "--for", "int8", "--store", "d.wheeltap", "--quiet"]) == 0
    capsys.readouterr()
    assert main(["report", "d.wheeltap", "wt100,census"]) == 0
    shown = capsys.readouterr().out
    assert "WT100 digits: safe" in shown and "WT002 digits: measured" in shown
    assert main(["report", "d.wheeltap", "WT100,WT999"]) == 2


def test_draws_reach_the_deployment_rows_unless_their_table_says_otherwise(here: Path) -> None:
    (here / "c.toml").write_text("[deployment]\ndraws = 12\n")
    for more, draws in ((["--draws", "8"], 8), (["--draws", "8", "--config", "c.toml"], 12)):
        assert main(["plan", "digits", "--for", "noise25", *more, "-o", "p.json"]) == 0
        audits = {audit["name"]: audit["settings"] for audit in json.loads((here / "p.json").read_text())["audits"]}
        assert audits["deployment"]["draws"] == draws


def test_examples_of_one_class_leave_nothing_to_lose(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    examples = digits.task()
    kept = examples.targets == 3
    np.savez(here / "threes.npz", inputs=examples.inputs[kept], targets=examples.targets[kept])
    assert main(["audit", "digits", "--data", "threes.npz", "--for", "int8", "--json", "report.json"]) == 1
    assert found(report(here / "report.json"), "WT001", "digits")["verdict"] == "at chance"
    shown = capsys.readouterr().out
    assert "balanced_accuracy" not in shown and "weights covered" not in shown


@pytest.mark.release
def test_doctor() -> None:
    assert main(["doctor"]) == 0


def test_importing_the_package_and_its_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, wheeltap as wt; heavy = {'torch', 'altair', 'sklearn', 'transformers', 'scipy', 'ray'}\n"
        "assert all(one.__all__ for one in (wt.circuits, wt.lens, wt.seal)) and not heavy & set(sys.modules)\n"
        "from wheeltap.cli import main; main(['--help'])\n"
        "assert not heavy & set(sys.modules)\n"
        "import wheeltap.report; assert not {'torch', 'altair', 'vl_convert', 'jinja2'} & set(sys.modules)\n"
        "wt.Subject; assert not {'altair', 'sklearn', 'transformers', 'ray'} & set(sys.modules)\n"
        "print(sorted(set(wt.__all__) - set(dir(wt))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]") and "wheeltap demo" in done.stdout
