"""``wheeltap dictionary`` and ``wt.dictionaries`` whole, on a net whose features were planted."""

import copy
import json
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

import wheeltap as wt
from benchmarks.dictionaries.known import planted
from wheeltap.cli import main
from wheeltap.core.errors import ModelError, UnknownName, UsageError
from wheeltap.runs.loop import run
from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionarySettings
from wheeltap.suites.dictionaries.doors import prepared
from wheeltap.suites.dictionaries.sources import ioi

FAST: dict[str, Any] = {"seeds": 2, "steps": 12, "nulls": ("frozen decoder", "random")}
FLAGS = ("--seeds", "2", "--steps", "12", "--nulls", "frozen decoder,random")


@pytest.fixture(scope="module", autouse=True)
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is made is kept here, not in the user's cache."""
    with pytest.MonkeyPatch.context() as held:
        held.setenv("WHEELTAP_NETS", str(tmp_path_factory.mktemp("nets")))
        yield


OWN = """
from benchmarks.dictionaries.known import planted

def plain():
    net, task, _ = planted(0, each=4)
    return net, task

def redundant():
    net, task, _ = planted(0, each=2)
    return net, task.with_factors({"parity": task.annotations.factors["a"] % 2})
"""
"""Models with their examples; an attribute of the second one follows from another."""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a module of models."""
    (tmp_path / "own_pair.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_a_planted_dictionary_is_judged_beside_its_nulls(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    net, task, entry = planted(0, each=4)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    report = wt.dictionaries.check(net, entry, task, site="site", store=here / "d.wheeltap", **FAST)
    codes = {one.code for one in report.findings}
    assert {"WT401", "WT402", "WT403", "WT404", "WT405"} <= codes
    assert not [one.because for one in report.findings if one.status == "error"]
    f1 = next(one for one in report.findings if one.title == "Features stand for values")
    assert next(one.value for one in f1.estimates if one.name.startswith("F1")) == pytest.approx(1.0)
    assert not report.headline.startswith("NO BETTER") and len(report.record.sections[0].blocks) == 4
    again = wt.dictionaries.check(net, entry, task, site="site", store=here / "d.wheeltap", **FAST)
    assert again.cost.trials == 0 and again.headline == report.headline
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    wt.dictionaries.save(entry, "true.safetensors")
    asked = ["dictionary", "check", "own_pair:plain", "true.safetensors", "--store", "d.wheeltap"]
    assert main([*asked, "--site", "site", *FLAGS]) == 0
    said = capsys.readouterr().out
    assert "edits" in said.partition(".")[0] and re.search(r"(\d+) of \1 results reused", said)
    assert main(asked) == 2 and "The site is missing" in capsys.readouterr().err
    with pytest.raises(UnknownName, match="null"):
        wt.dictionaries.check(net, entry, task, site="site", nulls=("frozen",))
    with pytest.raises(ModelError):
        wt.dictionaries.check(net, entry, task, site="combine", **FAST)


def test_vectors_in_a_file_are_trained_on_and_the_file_is_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = np.random.default_rng(0).standard_normal((300, 12)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    out = tmp_path / "d.safetensors"
    vectors_file = tmp_path / "vectors.npy"
    asked = ["dictionary", "train", "--vectors", str(vectors_file), "--steps", "5", "--k", "3", "-o", str(out)]
    assert main(asked) == 0 and "96 features of vectors of width 12 (topk)" in capsys.readouterr().out
    made = wt.dictionaries.load(out)
    assert made.settings.features == 96 and made.settings.k == 3
    same = wt.dictionaries.train(None, vectors, steps=5, k=3)
    assert torch.equal(same.W_dec, made.W_dec)
    assert main(["dictionary", "train", "-o", str(out)]) == 2 and "or on vectors in a file" in capsys.readouterr().err
    assert main([*asked[:-1], str(tmp_path / "d.pt")]) == 2 and "not written in this format" in capsys.readouterr().err


def test_a_trained_dictionary_is_judged_as_the_last_line_says(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nulls of another number of steps, or vectors of other positions, would be another question."""
    out = here / "my own.safetensors"
    asked = ["--site", "site", "--positions", "all", "--steps", "12"]
    made = ["dictionary", "train", "own_pair:plain", *asked, "--features", "16", "-o", str(out)]
    assert main(made) == 0
    last = shlex.split(capsys.readouterr().out.splitlines()[-1].partition("wheeltap ")[2])
    assert last == ["dictionary", "check", "own_pair:plain", str(out), *asked]
    assert main(made[:3] + made[3:5] + made[9:]) == 0
    assert "--steps" not in capsys.readouterr().out


@torch.no_grad()
def test_a_gain_of_the_encoder_makes_no_random_dictionary_better_than_the_nulls() -> None:
    """The null that is matched in scale and sparsity stands beside it, whatever kinds of nulls are asked for."""
    net, task, entry = planted(1, each=4)
    rows = torch.nn.functional.normalize(
        torch.randn(64, entry.settings.width, generator=torch.Generator().manual_seed(101)), dim=1
    )
    how = DictionarySettings(architecture="topk", width=rows.shape[1], features=64, k=8)
    state = {"W_enc": 2.0 * rows.T, "b_enc": torch.zeros(64), "W_dec": rows, "b_dec": torch.zeros(rows.shape[1])}
    subject, judged, plan = prepared(
        net, Dictionary(how, state), task, site="site", seeds=5, steps=40, nulls="random", seed=1
    )
    assert {"random", "matched random"} <= {entry.kind for entry in subject.model.dictionaries}
    with tempfile.TemporaryDirectory() as folder:
        plan = msgspec.structs.replace(plan, audits=plan.audits[1:2])  # edits, which a gain of 2 makes better
        report = run(plan, [subject], judged, store=Path(folder) / "gain.wheeltap")
    [edits] = [each for each in report.findings if each.code == "WT402" and each.estimates]
    assert edits.status != "found", edits.because


def test_supervised_dictionaries_are_fitted_on_the_other_half() -> None:
    net, task, _ = planted(0, each=4)
    made = wt.dictionaries.train(net, task, site="site", kind="mean codes")
    assert made.settings.attributes == ("a", "b", "c") and made.settings.features == 12


def test_without_attributes_reconstructions_alone_are_judged() -> None:
    net, task, entry = planted(0, each=4)
    bare = wt.Task(task.inputs, task.targets, name="bare")
    report = wt.dictionaries.check(net, entry, bare, site="site", **FAST)
    asked = {one.code: one.status for one in report.findings if one.title.startswith(("Dictionary c", "Features st"))}
    assert asked == {"WT402": "not_applicable", "WT403": "not_applicable"}
    assert "without an answer for edits" in report.headline


def test_what_cannot_be_asked_is_refused() -> None:
    net, task, entry = planted(0, each=4)
    for wrong in ({"nulls": ()}, {"nulls": ""}, {"seeds": 0}):
        with pytest.raises(UsageError):
            wt.dictionaries.check(net, entry, task, site="site", **{**FAST, **wrong})
    with pytest.raises(UnknownName, match="'frozen'"):
        wt.dictionaries.check(net, entry, task, site="site", nulls="random,frozen")
    with pytest.raises(UsageError):
        wt.dictionaries.train(net, task, steps=1)
    with pytest.raises(ModelError):
        wt.dictionaries.train(net, ioi(), site="site", features=4, k=1, steps=1)
    with torch.no_grad():
        broken = copy.deepcopy(entry)
        broken.b_dec[0] = torch.inf
    with pytest.raises(ModelError):
        wt.dictionaries.check(net, broken, task, site="site", **FAST)


def test_without_codes_of_attributes_the_others_are_judged() -> None:
    net, task, entry = planted(0, each=4)
    labels = task.annotations.factors
    redundant = task.with_factors({"parity": labels["a"] % 2})
    _, _, plan = prepared(net, entry, redundant, site="site", **FAST)
    first, other = plan.audits[0].settings, plan.audits[1].settings
    kinds = str(first["entries"]).split(",")
    assert "mean codes" in kinds and "least squares" not in kinds and "notes" not in other
    note = str(first["notes"])
    assert note.startswith("Warning: Left out: least squares.") and "attribute parity follows from a" in note
    constant = task.with_factors({"one": torch.zeros_like(labels["a"])})
    _, _, plan = prepared(net, entry, constant, site="site", **FAST)
    notes = str(plan.audits[0].settings["notes"]).split("\n\n")
    assert [note.split(".")[0][9:] for note in notes] == ["Left out: mean codes", "Left out: least squares"]


def test_a_dead_dictionary_fails(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dead = planted(0, each=2)[2]
    with torch.no_grad():
        dead.W_enc.zero_()
    wt.dictionaries.save(dead, "dead")
    config = json.loads((here / "dead" / "cfg.json").read_text())
    config["metadata"]["hook_name"] = "blocks.7"
    (here / "dead" / "cfg.json").write_text(json.dumps(config))
    asked = ["dictionary", "check", "own_pair:redundant", "dead", "--site", "site", *FLAGS]
    assert main(asked) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "Left out: least squares" in said and "blocks.7" in said
    assert main([*asked, "--fail-on", "never"]) == 0 and "results reused" in capsys.readouterr().out
