"""``wheeltap dictionary`` and ``wt.dictionaries`` whole, on a net whose features were planted."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import wheeltap as wt
from benchmarks.dictionaries.known import planted
from wheeltap.cli import main
from wheeltap.core.errors import ModelError, UnknownName, UsageError
from wheeltap.suites.dictionaries.doors import prepared
from wheeltap.suites.dictionaries.sources import ioi

FAST: dict[str, Any] = {"seeds": 2, "steps": 12, "nulls": ("frozen decoder", "random")}


@pytest.fixture(scope="module", autouse=True)
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What is made is kept here, not in the user's cache."""
    with pytest.MonkeyPatch.context() as held:
        held.setenv("WHEELTAP_NETS", str(tmp_path_factory.mktemp("nets")))
        yield


def test_a_planted_dictionary_is_judged_beside_its_nulls(tmp_path: Path) -> None:
    net, task, entry = planted(0, each=4)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    report = wt.dictionaries.check(net, entry[0], task, site="site", store=tmp_path / "d.wheeltap", **FAST)
    codes = {one.code for one in report.findings}
    assert {"WT401", "WT402", "WT403", "WT404", "WT405", "WT406"} <= codes
    assert not [one.because for one in report.findings if one.status == "error"]
    f1 = next(one for one in report.findings if one.title == "Features stand for values")
    assert next(one.value for one in f1.estimates if one.name.startswith("F1")) == pytest.approx(1.0)
    assert not report.headline.startswith("NO BETTER") and len(report.record.sections[0].blocks) == 3
    again = wt.dictionaries.check(net, entry[0], task, site="site", store=tmp_path / "d.wheeltap", **FAST)
    assert again.cost.trials == 0 and again.headline == report.headline
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    with pytest.raises(UnknownName, match="null"):
        wt.dictionaries.check(net, entry[0], task, site="site", nulls=("frozen",))
    with pytest.raises(ModelError, match="another width"):
        wt.dictionaries.check(net, entry[0], task, site="combine", **FAST)


def test_vectors_in_a_file_are_trained_on_and_the_file_is_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vectors = np.random.default_rng(0).standard_normal((300, 12)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    out = tmp_path / "d.safetensors"
    asked = ["dictionary", "train", "--data", str(tmp_path / "vectors.npy"), "--steps", "5", "--k", "3", "-o", str(out)]
    assert main(asked) == 0 and "96 features of vectors of width 12 (topk)" in capsys.readouterr().out
    made = wt.dictionaries.load(out)
    assert made.settings.features == 96 and made.settings.k == 3
    same = wt.dictionaries.train(None, vectors, steps=5, k=3)
    assert torch.equal(same.W_dec, made.W_dec)
    assert main(["dictionary", "train", "-o", str(out)]) == 2 and "or on vectors in a file" in capsys.readouterr().err
    assert main([*asked[:-1], str(tmp_path / "d.pt")]) == 2 and "not written in this format" in capsys.readouterr().err


def test_supervised_dictionaries_are_fitted_on_the_other_half() -> None:
    net, task, _ = planted(0, each=4)
    made = wt.dictionaries.train(net, task, site="site", kind="mean codes")
    assert made.settings.attributes == ("a", "b", "c") and made.settings.features == 12


def test_without_attributes_reconstructions_alone_are_judged() -> None:
    net, task, entry = planted(0, each=4)
    bare = wt.Task(task.inputs, task.targets, name="bare")
    report = wt.dictionaries.check(net, entry[0], bare, site="site", **FAST)
    asked = {one.code: one.status for one in report.findings if one.title.startswith(("Dictionary c", "Features st"))}
    assert asked == {"WT402": "not_applicable", "WT403": "not_applicable"}
    assert "without an answer for edits" in report.headline


def test_what_cannot_be_asked_is_refused() -> None:
    net, task, entry = planted(0, each=4)
    for wrong in ({"nulls": ()}, {"nulls": ""}, {"seeds": 0}):
        with pytest.raises(UsageError, match="beside nulls"):
            wt.dictionaries.check(net, entry[0], task, site="site", **{**FAST, **wrong})
    with pytest.raises(UnknownName, match="'frozen'"):
        wt.dictionaries.check(net, entry[0], task, site="site", nulls="random,frozen")
    with pytest.raises(UsageError, match=r"site is missing[\s\S]*site"):
        wt.dictionaries.train(net, task, steps=1)
    with pytest.raises(ModelError, match="whose inputs are tokens"):
        wt.dictionaries.train(net, ioi(), site="site", features=4, k=1, steps=1)
    with torch.no_grad():
        broken = copy.deepcopy(entry[0])
        broken.b_dec[0] = torch.inf
    with pytest.raises(ModelError, match="NaN or infinity"):
        wt.dictionaries.check(net, broken, task, site="site", **FAST)


def test_without_codes_of_attributes_the_others_are_judged() -> None:
    net, task, entry = planted(0, each=4)
    labels = task.annotations.factors
    redundant = task.with_factors({"parity": labels["a"] % 2})
    made = prepared(net, entry[0], redundant, site="site", **FAST)
    kinds = made.plan.audits[0].settings["entries"].split(",")  # type: ignore[union-attr]
    assert "mean codes" in kinds and "least squares" not in kinds
    (note,) = made.notes
    assert note.startswith("Left out: least squares.") and "attribute parity follows from a" in note
    constant = task.with_factors({"one": torch.zeros_like(labels["a"])})
    made = prepared(net, entry[0], constant, site="site", **FAST)
    assert [note.split(".")[0] for note in made.notes] == ["Left out: mean codes", "Left out: least squares"]
