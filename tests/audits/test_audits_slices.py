"""WT113: the slice that a scheme ruins is named though the average is safe; few examples conclude nothing; recalls."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.cli import main
from wheeltap.core.errors import UsageError
from wheeltap.report.gate import GateError
from wheeltap.report.report import Report

EACH, RUINED = 120, 7


def net() -> nn.Module:
    """Reads one input a class; of the class 7 a quarter by an input with a weight that 2 bits round to 0."""
    model = nn.Sequential(nn.Linear(14, 10, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(10, 14))
        model[0].weight[RUINED, 10] = 0.4
    return model


def examples() -> tuple[Tensor, Tensor]:
    """Of every class as many; the last three inputs say nothing."""
    targets = torch.arange(10).repeat_interleave(EACH)
    inputs = torch.zeros(len(targets), 14)
    inputs[torch.arange(len(targets)), targets] = 1.0
    rare = (targets == RUINED) & (torch.arange(len(targets)) % 4 == 0)
    inputs[rare, RUINED], inputs[rare, 10] = 0.0, 1.0
    inputs[:, 11:] = torch.randn(len(targets), 3, generator=torch.Generator().manual_seed(0))
    return inputs, targets


@pytest.fixture(scope="module")
def ruined() -> Report:
    return wt.audit(net(), examples(), name="net", schemes="int8,int2", slices="class", margin=0.05)


def test_the_class_that_a_scheme_ruins_is_the_headline_though_the_average_is_safe(ruined: Report) -> None:
    inputs, targets = examples()
    with torch.no_grad():
        rounded = inputs @ net()[0].weight.round().T  # type: ignore[index]  # 2 bits: each row on -1, 0, 1
    lost = (targets != rounded.argmax(1)).numpy()
    assert lost[targets == RUINED].mean() == 0.25 and lost.mean() == 0.025
    assert {one.scheme: one.verdict for one in ruined["WT100"]} == {"int8": "safe", "int2": "safe"}
    found = {one.scheme: one for one in ruined["WT113"]}
    assert len(found) == 20
    for at in range(10):
        loss = found[f"int2 on class {at}"].estimates[0]
        assert loss.value == pytest.approx(lost[targets == at].mean(), abs=1e-12) and loss.n == EACH
    costs = [name for name, one in found.items() if one.verdict == "costs"]
    assert costs == [f"int2 on class {RUINED}"]
    assert ruined.headline.startswith("SAFE ON AVERAGE, COSTS ON class 7: ") and not ruined.passed
    for limits in ({"int2": 0.14}, {"int2 on class 7": 0.14}):
        with pytest.raises(
            GateError, match=r"got: int2 on class 7: [^;]*\n"
        ):  # a limit of the whole is that of a slice
            ruined.check(limits)
    ruined.check({"int2": 0.14, "int2 on class 7": 0.4})


def test_every_test_of_a_slice_pays_for_all_others(ruined: Report) -> None:
    """Two rows and twenty slices are 22 tests of one report; intervals hold for the ten slices of a scheme."""
    (mine,) = [one for one in ruined["WT113"] if one.verdict == "costs"]
    assert mine.estimates[0].level == pytest.approx(1.0 - 0.05 / 10)
    for alpha, verdict in ((1.01, "costs"), (0.99, "may cost")):
        level = alpha * 22 * (mine.estimates[0].p or 1.0)
        again = wt.audit(net(), examples(), name="net", schemes="int8,int2", slices="class", margin=0.05, alpha=level)
        assert {one.scheme: one.verdict for one in again["WT113"]}[f"int2 on class {RUINED}"] == verdict


def test_slices_of_few_examples_say_so_and_nothing_else() -> None:
    inputs, targets = examples()
    rare = torch.where(torch.arange(len(targets)) < 3, 1, 0)
    task = wt.Task(inputs, targets).with_factors({"rare": rare, "all": torch.zeros_like(rare)})
    report = wt.audit(net(), task, name="net", schemes="int2", slices=["rare", "all"], margin=0.05)
    found = {one.scheme: one for one in report["WT113"]}
    few = found["int2 on rare 1"]
    assert (few.status, few.verdict, few.estimates) == ("inconclusive", "too few examples", ())
    assert found["int2 on rare 0"].estimates[0].n == len(targets) - 3 and found["int2 on all 0"].verdict == "safe"


def test_groups_count_as_examples_of_a_slice() -> None:
    inputs, targets = examples()
    half = (torch.arange(len(targets)) % 2).long()
    task = (
        wt.Task(inputs, targets)
        .with_factors({"half": half})
        .with_groups(torch.arange(len(targets)) // 2 * 2 % 60 + half)
    )
    report = wt.audit(net(), task, name="net", schemes="int2", slices="half", margin=0.05)
    assert {one.verdict for one in report["WT113"]} <= {"safe", "cannot tell", "may cost"}
    few = wt.Task(inputs, targets).with_factors({"half": half}).with_groups(torch.arange(len(targets)) % 12)
    report = wt.audit(net(), few, name="net", schemes="int2", slices="half", margin=0.05)
    assert {one.verdict for one in report["WT113"]} == {"too few examples"}


def test_an_error_grows_on_one_site_alone() -> None:
    """Of wanted outputs the margin of a slice is a share of the slice's own error."""
    generator = torch.Generator().manual_seed(0)
    inputs, site = torch.randn(900, 2, generator=generator), torch.arange(900) % 3
    inputs[site != 2, 1] = 0.0
    targets = inputs @ torch.tensor([[1.0], [0.4]]) + 0.5 * torch.randn(900, 1, generator=generator)
    model = nn.Sequential(nn.Linear(2, 1, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.4]]))  # type: ignore[index]
    task = wt.Task(inputs, targets).with_factors({"site": site})
    report = wt.audit(model, task, name="net", schemes="int2", slices="site", margin=0.2)
    found = {one.scheme: one for one in report["WT113"]}
    error = (model(inputs) - targets).square().flatten().detach().numpy()
    after = (inputs[:, :1] - targets).square().flatten().numpy()
    for at in range(3):
        on = (site == at).numpy()
        loss = found[f"int2 on site {at}"]
        assert loss.estimates[0].value == pytest.approx((after - error)[on].mean(), abs=1e-6)
        assert loss.margin == pytest.approx(0.2 * error[on].mean(), rel=1e-5)
    assert found["int2 on site 2"].verdict == "costs"
    assert not any(one.title == "Recall of each class" for one in report.record.sections)


def test_a_statistic_of_all_examples_has_no_slices() -> None:
    """An example's part of F1 says nothing of the F1 of some examples."""
    task = wt.Task(*examples(), measure="f1")
    with pytest.raises(UsageError, match="no f1 of their own"):
        wt.plan(wt.Subject(net(), name="net"), task, slices="class")


@pytest.mark.parametrize(
    ("named", "said"),
    [("kind", "no slices by kind"), ("class,many", "too many slices"), ([], "names no slices")],
)  # fmt: skip
def test_slices_that_cannot_be_are_refused_with_what_to_do(named: object, said: str) -> None:
    inputs, targets = examples()
    task = wt.Task(inputs, targets).with_factors({"many": torch.arange(len(targets)) % 21})
    with pytest.raises(UsageError, match=said) as caught:
        wt.plan(wt.Subject(net(), name="net"), task, slices=named)  # type: ignore[arg-type]
    assert caught.value.do


def test_the_command_and_a_settings_file_ask_for_slices(tmp_path: Path) -> None:
    inputs, targets = examples()
    data = tmp_path / "data.npz"
    np.savez(data, inputs=inputs.numpy(), targets=targets.numpy(), factor_part=(targets == RUINED).long().numpy())
    model, store = f"{__name__}:net", ["--store", str(tmp_path / "s.wheeltap")]
    asked = ["audit", model, "--data", str(data), "--for", "int2", "--margin", ".05", "--quiet", *store]
    assert main([*asked, "--slice", "part"]) == 1
    settings = tmp_path / "s.toml"
    settings.write_text('slice = ["part"]\n')
    assert main([*asked, "--config", str(settings)]) == 1
    assert main([*asked, "--slice", "kind"]) == 2


def test_a_comparison_names_the_slice_of_either_model() -> None:
    sound = net()
    with torch.no_grad():
        sound[0].weight[RUINED, 10] = 1.0  # type: ignore[index]
    report = wt.compare(
        sound, net(), examples(), names=("sound", "ruined"), schemes="int2", slices="class", margin=0.05
    )
    assert {one.subject for one in report["WT113"] if one.verdict == "costs"} == {"ruined"}
    found = {one.scheme: one for one in report["WT113"] if one.subject == "sound vs ruined"}
    assert len(found) == 20 and {name for name, one in found.items() if one.verdict == "differ"} == {"int2 on class 7"}
    rest = {one.verdict for name, one in found.items() if name != "int2 on class 7"}
    assert rest <= {"equivalent", "cannot tell"}  # of 120 examples each
    assert found["int2 on class 7"].estimates[0].value == pytest.approx(0.25, abs=1e-9)
    assert "vs ruined: DIFFER ON class 7, " in report.headline
