"""What is asked where nothing is asked for, what a large model is spared, and that settings given by the user win."""

import pytest
import torch
from torch import nn

import wheeltap as wt
from wheeltap.audits import create
from wheeltap.audits.deployment import USUAL, USUAL_LARGE


def asked(audits: str | list[str] | None, *, names: tuple[str, ...] = ("net",)) -> list[str]:
    """The audits of a plan on small nets, but for the census that every plan ends with."""
    nets = [nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval() for _ in names]
    subjects = [wt.Subject(net, name=name) for net, name in zip(nets, names, strict=True)]
    plan = wt.plan(subjects, wt.Task(torch.zeros(2, 3), torch.tensor([0, 1])), audits=audits)
    *found, always = [spec.name for spec in plan.audits]
    assert always == "census"
    return found


@pytest.mark.parametrize("names", [("net",), ("a", "b"), ("a", "b", "c")])
def test_one_model_and_several_are_asked_alike(names: tuple[str, ...]) -> None:
    assert asked(None, names=names) == ["score", "deployment", "single-point"]


NOISE = ["score", "relative-noise", "function-noise"]


@pytest.mark.parametrize(
    ("audits", "found"),
    [
        ("noise", NOISE),
        ("structure", [*NOISE, "single-point", "redundancy", "entanglement"]),
        (
            "survival",
            [*NOISE, "low-rank-noise", "quantization", "pruning", "bit-flips", "fine-tuning"],
        ),
        (["noise", "structure", "score"], [*NOISE, "single-point", "redundancy", "entanglement"]),
        (["WT100", "wt103", "score"], ["deployment", "quantization", "score"]),
        ("pruning", ["pruning"]),
    ],
)  # fmt: skip
def test_audits_are_asked_for_by_name_group_or_code(audits: str | list[str], found: list[str]) -> None:
    assert asked(audits) == found


def test_a_large_model_is_spared_single_weights_and_dear_schemes() -> None:
    model = nn.Sequential(nn.Linear(5_000, 4_100), nn.ReLU(), nn.Linear(4_100, 2)).eval()
    plan = wt.plan(wt.Subject(model), wt.Task(torch.zeros(2, 5_000), torch.tensor([0, 1])))
    assert [spec.name for spec in plan.audits] == ["score", "deployment", "census"]
    assert plan.audits[1].settings == {"schemes": USUAL_LARGE, "draws": 4} != {"schemes": USUAL}


def test_a_large_model_gets_coarser_curves_and_one_block_map() -> None:
    model = nn.Sequential(nn.Linear(5_000, 4_100), nn.ReLU(), nn.Linear(4_100, 2)).eval()
    task = wt.Task(torch.zeros(2, 5_000), torch.tensor([0, 1]))
    own = wt.AuditSpec(name="function-noise", settings={"block_map": True, "rungs": [-2, 0, 1]})
    for asked, rungs, block_map in (("relative-noise", (-2, 0, 2, 4), True), ("function-noise", (-2, 0, 2, 4), False),
                                    (own, (-2, 0, 1), True)):  # fmt: skip
        plan = wt.Plan.from_bytes(wt.plan(wt.Subject(model), task, audits=[asked]).to_bytes(), where="here")
        settings = create(plan.audits[0].name, dict(plan.audits[0].settings)).settings
        assert (settings.rungs, settings.block_map) == (rungs, block_map)
        assert set(settings.control_rungs) <= set(settings.rungs)


def test_a_small_model_is_spared_nothing() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    plan = wt.plan(wt.Subject(model), wt.Task(torch.zeros(2, 3), torch.tensor([0, 1])))
    assert all(spec.settings == {} for spec in plan.audits)
