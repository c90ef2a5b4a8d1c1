"""Several test sets in one run: each set's numbers are those of a run on it alone; the set that loses is named."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from reports import without_copies
from torch import Tensor, nn
from twins import Wired

import wheeltap as wt
from wheeltap.audits.slices import part_of
from wheeltap.cli import main
from wheeltap.core.errors import DataError, UnknownName, UsageError, WheeltapError
from wheeltap.core.sets import JoinedTask
from wheeltap.plans.store import Outcomes, Store
from wheeltap.report.gate import GateError
from wheeltap.report.report import Report
from wheeltap.testing import assert_survives

CLASSES = 5


def net() -> nn.Module:
    """Reads one input a class; of the last one also an input with a weight that 2 bits round to 0."""
    model = nn.Sequential(nn.Linear(CLASSES + 3, CLASSES, bias=False)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(CLASSES, CLASSES + 3))
        model[0].weight[-1, CLASSES] = 0.4
    return model


def examples(seed: int, *, lost: float = 0.0, count: int = 300) -> tuple[Tensor, Tensor]:
    """Of every class as many; that share of the last class is lost at 2 bits, and one in ten answers is wrong."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(count) % CLASSES
    inputs = torch.zeros(count, CLASSES + 3)
    inputs[torch.arange(count), targets] = 1.0
    rare = (targets == CLASSES - 1) & (torch.rand(count, generator=generator) < lost)
    inputs[rare, CLASSES - 1], inputs[rare, CLASSES] = 0.0, 1.0
    inputs[:, -2:] = torch.randn(count, 2, generator=generator)
    wrong = torch.rand(count, generator=generator) < 0.1
    return inputs, torch.where(wrong, (targets + 1) % CLASSES, targets)


@pytest.fixture(scope="module")
def ruined() -> Report:
    sets = {"easy": examples(0), "plain": examples(1, count=150), "hard": examples(2, lost=0.8)}
    return wt.audit(net(), sets, name="net", schemes="int8,int2", margin=0.05)


def test_the_set_that_a_scheme_ruins_is_named_and_the_others_are_safe(ruined: Report) -> None:
    sets = {"easy": examples(0), "plain": examples(1, count=150), "hard": examples(2, lost=0.8)}
    lost = {name: ((net()(x).argmax(1) == y).float() - ((x @ net()[0].weight.round().T).argmax(1) == y).float()).mean()
            for name, (x, y) in sets.items()}  # type: ignore[index]  # 2 bits: each row on -1, 0, 1  # fmt: skip
    assert lost["easy"] == lost["plain"] == 0.0 < lost["hard"]
    found = {one.scheme: one for one in ruined["WT113"]}
    assert {name for name, one in found.items() if one.verdict == "costs"} == {"int2 on hard"}
    assert {one.verdict for name, one in found.items() if name != "int2 on hard"} == {"safe"} and len(found) == 6
    for name, loss in lost.items():
        assert found[f"int2 on {name}"].estimates[0].value == pytest.approx(float(loss), abs=1e-6)
    pooled = next(one for one in ruined["WT100"] if one.scheme == "int2").estimates[0].value
    assert pooled == pytest.approx(sum(float(lost[name]) * len(y) for name, (_, y) in sets.items()) / 750, abs=1e-6)
    assert ruined.headline.startswith("SAFE ON easy, plain, COSTS ON hard: ")
    right = {name: 100.0 * float((net()(x).argmax(1) == y).float().mean()) for name, (x, y) in sets.items()}
    assert f"(easy {right['easy']:.1f}, plain {right['plain']:.1f}, hard {right['hard']:.1f})" in ruined.text()
    assert not ruined.passed
    ruined.check({"int2 on easy": 0.05})
    with pytest.raises(Exception, match="hard"):
        ruined.check({"int2 on hard": 0.05})


def test_a_limit_of_a_scheme_holds_on_every_set(ruined: Report) -> None:
    ruined.check({"int8": 0.05})
    for limits in ({"int2": 0.08}, {"int2": 0.08, "int2 on easy": 0.9}):
        with pytest.raises(GateError, match="int2 on hard: loses") as caught:
            ruined.check(limits)
        assert "int2: loses" not in str(caught.value) and "easy" not in str(caught.value)
    ruined.check({"int2": 0.08, "int2 on hard": 0.9})
    with pytest.raises(UnknownName, match="int2 on hard"):
        ruined.check({"int2 on herd": 0.9})
    open_cell = [
        msgspec.structs.replace(one, status="not_applicable") if one.scheme == "int8 on plain" else one
        for one in ruined.record.findings
    ]
    with pytest.raises(GateError, match="int8 on plain: not measured"):
        Report(msgspec.structs.replace(ruined.record, findings=tuple(open_cell))).check({"int8": 0.05})


def test_a_model_survives_only_where_it_does_on_every_set(tmp_path: Path) -> None:
    sets, store = {"easy": examples(0), "hard": examples(2, lost=0.8)}, tmp_path / "gate.wheeltap"
    with pytest.raises(GateError, match="int2 on hard: loses"):
        assert_survives(net(), sets, store=store, int2=0.09)
    report = assert_survives(net(), sets, store=store, int8=0.09, **{"int2 on easy": 0.09, "int2 on hard": 0.5})
    assert {one.scheme for one in report["WT100"]} == {"int8", "int2"}


def test_every_cell_pays_for_all_others(ruined: Report) -> None:
    """Two pooled rows and six cells are eight tests of one report."""
    (mine,) = [one for one in ruined["WT113"] if one.verdict == "costs"]
    sets = {"easy": examples(0), "plain": examples(1, count=150), "hard": examples(2, lost=0.8)}
    for alpha, verdict in ((1.01, "costs"), (0.99, "may cost")):
        level = alpha * 8 * (mine.estimates[0].p or 1.0)
        again = wt.audit(net(), sets, name="net", schemes="int8,int2", margin=0.05, alpha=level)
        assert next(one.verdict for one in again["WT113"] if one.scheme == mine.scheme) == verdict


def wide() -> nn.Module:
    """As many options as inputs: ``[example, option]`` of ``[example, option, 2]``."""
    each = nn.Linear(2, 1, bias=False)
    each.weight.data = torch.tensor([[1.0, 0.4]])
    return Wired(lambda net, x: net.each(x)[..., 0], each=each)


def choices(options: int, count: int) -> wt.Task:
    inputs = torch.randn(count, options, 2, generator=torch.Generator().manual_seed(options))
    return wt.Task(inputs, (inputs[..., 0] + inputs[..., 1]).argmax(1), name=f"of {options}", batch=64)


def outcomes(model: nn.Module, task: Any, store: Path, **asked: Any) -> tuple[Report, list[dict[str, Any]]]:
    """A report, and what trials of the model gave, as they were asked for."""
    subject = wt.Subject(model, name="net")
    fixed = wt.AuditSpec("deployment", {"schemes": "int2,noise30", "draws": 16, "most_draws": 16})
    plan = without_copies(wt.plan(subject, task, audits=["score", fixed], **asked))
    report = wt.run(plan, subject, task, store=store)
    keys = [plan.clean(plan.reference).key, *(key for one in report["WT100"] for key in one.trials)]
    with Store(store, readonly=True) as kept:
        found = [Outcomes(kept)(key) for key in keys]
    return report, [one.values for one in found if one is not None]


def require_same_numbers(model: nn.Module, parts: list[wt.Task], tmp_path: Path) -> Report:
    """To the bit: values of each example, estimates and margins; the correction is of the whole report."""
    sets: dict[str, Any] = {f"set {at}": part for at, part in enumerate(parts)}
    joined, values = outcomes(model, sets, tmp_path / "all.wheeltap")
    start = 0
    for name, part in sets.items():
        alone, own = outcomes(model, part, tmp_path / f"{name}.wheeltap")
        stop = start + len(part.targets)
        for mine, theirs in zip(own, values, strict=True):
            for measure in (one.name for one in part.measures):
                assert np.array_equal(mine[measure], theirs[measure][start:stop])
        cells = [one for one in joined["WT113"] if part_of(one)[1] == name]
        for cell, row in zip(cells, alone["WT100"], strict=True):
            several = [msgspec.structs.replace(one, name="") for one in cell.estimates]
            assert several == [msgspec.structs.replace(one, name="") for one in row.estimates]
            assert cell.margin == row.margin is not None and cell.trials != row.trials
        start = stop
    weights = [len(part.targets) for part in parts]
    for at, row in enumerate(joined["WT100"]):
        each = [[one for one in joined["WT113"] if part_of(one)[1] == name][at].estimates[0].value for name in sets]
        assert row.estimates[0].value == pytest.approx(np.average(each, weights=weights), rel=1e-5, abs=1e-7)
    return joined


def test_f1_and_its_intervals_are_those_of_each_set_alone(tmp_path: Path) -> None:
    first, second = examples(0), examples(1, lost=0.8, count=205)
    parts = [wt.Task(*first, measure="f1"), wt.Task(*second, measure="f1", batch=7)]
    require_same_numbers(net(), parts, tmp_path)


def test_sets_of_other_shapes_and_options_are_scored_as_alone(tmp_path: Path) -> None:
    parts = [choices(2, 100), choices(4, 200)]
    task = require_same_numbers(wide().eval(), parts, tmp_path).record.task
    assert task.chance == pytest.approx(1 / 3) and task.answer is None
    assert task.common == pytest.approx(np.average([part.common or 0.0 for part in parts], weights=[1, 2]))


def test_an_example_of_two_sets_counts_once() -> None:
    """In the pooled row it is one group; each set has it alone."""
    inputs, targets = examples(0)
    more, others = examples(1, count=200)
    both = (torch.cat([more, inputs[:150]]), torch.cat([others, targets[:150]]))
    report = wt.audit(net(), {"a": (inputs, targets), "b": both}, name="net", schemes="noise30")
    assert "500 groups" in str(report.record.provenance) and report.record.task.alike == 500


def test_a_set_at_chance_has_no_answer_and_takes_none_from_the_others() -> None:
    inputs, targets = examples(0)
    shuffled = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(1))]
    report = wt.audit(net(), {"a": (inputs, targets), "b": (inputs + 1e-3, shuffled)}, name="net", schemes="int8")
    found = {one.scheme: one for one in report["WT113"]}
    assert found["int8 on a"].verdict == "safe" and found["int8 on b"].status == "not_applicable"


def _two(model: nn.Module, first: Any, second: Any, **asked: Any) -> Report:
    return wt.audit(model, {"first": first, "second": second}, name="net", schemes="int8", **asked)


def test_sets_that_do_not_go_together_are_refused_by_name() -> None:
    wide, none = torch.randn(50, CLASSES + 3), torch.zeros(50).long()
    cases: list[tuple[Any, str, tuple[str, str]]] = [
        (wt.Task(*examples(1), measure="nll"), "", ("different measures", "first: accuracy, second: nll")),
        ((wide[:0], none[:0]), "", ("empty", "second")),
        ((wide, none + 9), "", ("out of range", "second")),
        ((wide, none), "mcc", ("all of one class", "second")),
    ]
    for second, measure, said in cases:
        with pytest.raises(WheeltapError) as caught:
            _two(net(), wt.Task(*examples(0)), second, measure=measure or None)
        assert said[0] in str(caught.value) and said[1] in str(caught.value)


def test_lists_names_and_numbers_of_sets_are_checked() -> None:
    tasks = [wt.Task(*examples(seed, count=60), name=f"set {seed}") for seed in range(16)]
    with pytest.raises(DataError, match="same name"):
        wt.plan(net(), [tasks[0], tasks[0]], schemes="int8")
    with pytest.raises(DataError, match="stay in their order"):
        JoinedTask(tasks[:2]).part(torch.tensor([1, 0]))
    with pytest.raises(UsageError, match="too many slices"):
        wt.plan(net(), tasks, schemes="int8", slices="class")


def test_what_is_read_of_examples_is_read_of_one_set_at_a_time() -> None:
    report = wt.audit(net(), {"a": examples(0), "b": examples(1)}, name="net", audits="redundancy")
    (found,) = report["WT201"]
    assert found.status != "found"


def test_a_comparison_names_the_set_of_either_model() -> None:
    sound = net()
    with torch.no_grad():
        sound[0].weight[-1, CLASSES] = 1.0  # type: ignore[index]
    sets = {"easy": examples(0), "hard": examples(2, lost=0.8, count=600)}
    report = wt.compare(sound, net(), sets, names=("sound", "ruined"), schemes="int2", margin=0.05)
    found = {one.scheme: one for one in report["WT113"] if one.subject == "sound vs ruined"}
    assert {name: one.verdict for name, one in found.items()} == {
        "score on easy": "equivalent", "score on hard": "equivalent", "int2 on easy": "equivalent",
        "int2 on hard": "differ",
    }  # fmt: skip
    own = {one.subject: one.estimates[0].value for one in report["WT113"] if one.scheme == "int2 on hard"}
    assert own["sound vs ruined"] == pytest.approx(own["ruined"] - own["sound"], abs=1e-9)
    assert "DIFFER ON hard, EQUIVALENT ON easy: " in report.headline


def broken() -> nn.Module:
    """Reads nothing of what only the last class has."""
    model = net()
    with torch.no_grad():
        model[0].weight[-1, CLASSES] = 0.0  # type: ignore[index]
    return model


def big_and_small() -> dict[str, tuple[Tensor, Tensor]]:
    return {"big": examples(0, count=6000), "small": examples(2, lost=0.8, count=600)}


def test_scores_that_are_equal_together_and_differ_on_one_set_are_named_and_fail() -> None:
    """Undisturbed already, so that neither model loses anything beside its own score."""
    sets, models = big_and_small(), {"A": net(), "B": broken()}
    scores = [
        {on: (model(x).argmax(1) == y).float().mean().item() for on, (x, y) in sets.items()}
        for model in models.values()
    ]
    report = wt.compare(*models.values(), sets, names=tuple(models), schemes="int8", margin=0.05)
    pooled = [one for one in report.findings if one.subject == "A vs B" and one.code != "WT113"]
    assert len(pooled) == 2 and {one.verdict for one in pooled} == {"equivalent"}
    found = {one.scheme: one for one in report["WT113"] if one.subject == "A vs B"}
    assert {name for name, one in found.items() if one.verdict == "differ"} == {"score on small"} and len(found) == 4
    for on in sets:
        gap = found[f"score on {on}"].estimates[0]
        assert gap.value == pytest.approx(scores[0][on] - scores[1][on], abs=1e-6) and gap.n == len(sets[on][1])
    assert report.headline.startswith("A vs B: DIFFER ON small, EQUIVALENT ON big: ") and not report.passed
    with pytest.raises(UnknownName):
        report.check({"score on small": 0.05})


def test_files_are_given_one_after_the_other_or_in_a_settings_file(tmp_path: Path) -> None:
    for name, lost in (("easy", 0.0), ("hard", 0.8)):
        inputs, targets = examples(2, lost=lost)
        np.savez(tmp_path / f"{name}.npz", inputs=inputs.numpy(), targets=targets.numpy())
    model, files = f"{__name__}:net", [str(tmp_path / "easy.npz"), str(tmp_path / "hard.npz")]
    store = str(tmp_path / "a.wheeltap")
    how = ["--for", "int2", "--margin", ".05"]
    assert main(["audit", model, "--data", files[0], "--data", files[1], *how, "--quiet", "--store", store]) == 1
    (tmp_path / "s.toml").write_text(f"data = {files}\n")
    plan = str(tmp_path / "p.json")
    assert main(["plan", model, "--config", str(tmp_path / "s.toml"), *how, "-o", plan]) == 0
    assert main(["run", plan, "--allow-code", "--quiet", "--store", store]) == 1
    with Store(Path(store), readonly=True) as kept:
        assert len(kept.keys()) > 4
    assert main(["audit", model, "--data", files[0], "--data", files[0], *how]) == 2
