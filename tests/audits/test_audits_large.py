"""What is asked where nothing is asked for, what a large model is spared, and that settings given by the user win."""

import torch
from torch import nn

import wheeltap as wt
from wheeltap.audits import create
from wheeltap.audits.deployment import USUAL, USUAL_LARGE


def plan_of(audits: str | list[str] | None, *names: str) -> wt.Plan:
    nets = [nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval() for _ in names]
    subjects = [wt.Subject(net, name=name) for net, name in zip(nets, names, strict=True)]
    return wt.plan(subjects, wt.Task(torch.zeros(2, 3), torch.tensor([0, 1])), audits=audits)


NOISE = ["score", "relative-noise", "function-noise"]


STRUCTURE = ["single-point", "redundancy", "entanglement"]
FOUND: list[tuple[str | list[str] | None, list[str]]] = [
    (None, ["score", "deployment", "single-point"]),
    ("noise", NOISE),
    ("structure", [*NOISE, *STRUCTURE]),
    ("survival", [*NOISE, "low-rank-noise", "quantization", "pruning", "bit-flips", "fine-tuning"]),
    (["noise", "structure", "score"], [*NOISE, *STRUCTURE]),
    (["WT100", "wt103", "score"], ["deployment", "quantization", "score"]),
    ("pruning", ["pruning"]),
]


def test_audits_are_asked_for_by_name_group_or_code() -> None:
    """One model and several are asked alike, and a small one is spared nothing; every plan ends with the census."""
    for audits, found in FOUND:
        for names in (("net",), ("a", "b"), ("a", "b", "c")):
            plan = plan_of(audits, *names)
            assert [spec.name for spec in plan.audits] == [*found, "census"]
            assert all(spec.settings == {} for spec in plan.audits)
    once = [spec.name for spec in plan_of(["score", "survival", "score"], "net").audits]
    assert len(once) == len(set(once))


def test_a_large_model_is_spared_single_weights_dear_schemes_and_fine_curves() -> None:
    large = wt.Subject(nn.Sequential(nn.Linear(5_000, 4_100), nn.ReLU(), nn.Linear(4_100, 2)).eval())
    task = wt.Task(torch.zeros(2, 5_000), torch.tensor([0, 1]))
    plan = wt.plan(large, task)
    assert [spec.name for spec in plan.audits] == ["score", "deployment", "census"]
    assert plan.audits[1].settings == {"schemes": USUAL_LARGE, "draws": 4} != {"schemes": USUAL}
    own = wt.AuditSpec(name="function-noise", settings={"block_map": True, "rungs": [-2, 0, 1]})
    for asked, rungs, block_map in (("relative-noise", (-2, 0, 2, 4), True), ("function-noise", (-2, 0, 2, 4), False),
                                    (own, (-2, 0, 1), True)):  # fmt: skip
        plan = wt.Plan.from_bytes(wt.plan(large, task, audits=[asked]).to_bytes(), where="here")
        settings = create(plan.audits[0].name, dict(plan.audits[0].settings)).settings
        assert (settings.rungs, settings.block_map) == (rungs, block_map)
        assert set(settings.control_rungs) <= set(settings.rungs)
