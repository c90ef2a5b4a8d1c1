"""Audits while training: the same bits as without them, the share of time that was asked for, and what is refused."""

import json
import os
import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributed import HashStore, destroy_process_group, init_process_group
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from tests.plugin_package.project import gated
from wheeltap.callbacks import TrainingAudit, send, unchanged
from wheeltap.core.errors import ModelError, RestorationError, UsageError

SHARE = 0.4


class Loop:
    """A training that leaves gradients, modes and random numbers of all kinds behind at each step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        self.net = nn.Sequential(nn.Linear(16, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 4))
        self.net.train()[1].eval()  # type: ignore[union-attr]
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=0.01)
        self.inputs, self.labels = gated.examples(200)

    def step(self) -> None:
        self.optimizer.zero_grad()
        noise = torch.randn_like(self.inputs) * float(np.random.rand()) * random.random()
        nn.functional.cross_entropy(self.net(self.inputs + noise), self.labels).backward()
        self.optimizer.step()

    def state(self) -> dict[str, Any]:
        held = list(self.optimizer.state_dict()["state"].values())
        return {
            **self.net.state_dict(), **{f"gradient {n}": p.grad for n, p in self.net.named_parameters()},
            **{f"{i} {name}": value for i, state in enumerate(held) for name, value in state.items()},
            "modes": [module.training for module in self.net.modules()], "torch": torch.get_rng_state(),
            "python": random.getstate(), "numpy": str(np.random.get_state()), "threads": torch.get_num_threads(),
        }  # fmt: skip


def same(one: Any, other: Any) -> bool:
    return torch.equal(one, other) if isinstance(one, Tensor) else one == other


def test_training_goes_on_to_the_same_bits_within_its_share_of_the_time(tmp_path: Path) -> None:
    logged, steps, audits, elapsed = list[tuple[int, dict[str, float]]](), 0, 0, 0.0
    watch = TrainingAudit(gated.examples(300), every=1, share=SHARE, folder=tmp_path / "history", schemes="int8",
                          log=lambda values, step: logged.append((step, values)))  # fmt: skip
    loop = Loop()
    began = time.perf_counter()
    while audits < 6:
        loop.step()
        time.sleep(0.01)
        steps += 1
        if watch(loop.net, steps, loop.optimizer) is not None:
            audits, elapsed = audits + 1, time.perf_counter() - began
    assert 0.8 * SHARE <= watch.spent / elapsed <= 1.2 * SHARE
    audited, alone = loop.state(), Loop()
    for _ in range(steps):
        alone.step()
    assert [name for name, value in alone.state().items() if not same(value, audited[name])] == []
    # One line an audit, one for the first of steps that had to wait; a report each; the logger got the same numbers.
    lines = [json.loads(line) for line in (tmp_path / "history" / "scalars.jsonl").read_text().splitlines()]
    done = [line for line in lines if "Sequential/int8/lost" in line]
    assert [line["step"] for line in done] == [step for step, _ in logged] and len(done) == 6
    assert all(logged[at][1].items() <= line.items() for at, line in enumerate(done))
    assert lines[0]["step"] == 1 and "an audit takes about" in lines[0]["skipped"] and len(lines) <= 13
    assert {path.name for path in (tmp_path / "history").glob("*.json")} == {f"step-{step}.json" for step, _ in logged}


def test_what_an_audit_changes_is_named_and_modes_and_random_numbers_come_back_after_an_error() -> None:
    loop = Loop()
    loop.step()
    before = loop.state()
    with pytest.raises(KeyError), unchanged(loop.net, [loop.optimizer]):
        assert not any(module.training for module in loop.net.modules())
        torch.rand(1), random.random(), np.random.rand()
        raise KeyError
    assert all(same(value, loop.state()[name]) for name, value in before.items())
    first = next(iter(loop.optimizer.state.values()))
    for change, named in (
        (lambda: first["exp_avg"].add_(1.0), "optimizer 0, 1: exp_avg"),
        (lambda: loop.optimizer.param_groups[0].update(lr=1.0), "optimizer 0, 0: lr"),
        (lambda: loop.net[0].weight.grad.add_(1.0), "gradient of 0.weight"),  # type: ignore[union-attr, operator]
        (lambda: loop.net[1].running_mean.add_(1.0), "1.running_mean"),  # type: ignore[operator]
    ):
        with (
            pytest.raises(RestorationError, match=f"where: {named}"),
            unchanged(loop.net, [loop.optimizer]),
            torch.no_grad(),
        ):
            change()


def test_what_cannot_be_used_is_said_before_training() -> None:
    for bad, said in (
        ({"share": 1}, "below 1"), ({"every": 0}, "a whole number from 1"), ({"log": 3}, "add_scalar"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            TrainingAudit(gated.examples(8), **{"every": 1, **bad})  # type: ignore[arg-type]


def test_a_share_that_can_pay_for_no_audit_of_the_whole_training_is_an_error(tmp_path: Path) -> None:
    watch = TrainingAudit(gated.examples(50), every=2, share=1e-6, steps=100, folder=tmp_path)
    loop = Loop()
    loop.step()
    assert watch(loop.net, 1, loop.optimizer) is None
    with pytest.raises(UsageError, match="can pay for no audit"):
        watch(loop.net, 2, loop.optimizer)


def test_a_sharded_model_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(4, 4))
    net[0].weight.ds_id = 0  # type: ignore[assignment]
    watch = TrainingAudit(gated.examples(8), every=1, folder=tmp_path)
    with pytest.raises(UsageError, match="sharded model cannot be audited") as caught:
        watch(net, 1)
    assert "ds_id" in str(caught.value)
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    try:
        split = nn.Sequential(nn.Linear(4, 4))
        mesh = init_device_mesh("cpu", (1,))
        split[0].weight = nn.Parameter(distribute_tensor(split[0].weight.detach(), mesh, [Shard(0)]))  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="DTensor"):
            watch(split.train(), 2)
        assert split.training
    finally:
        destroy_process_group()


def test_weights_that_are_not_finite_are_written_down_and_end_no_training(tmp_path: Path) -> None:
    net = gated.net().train()
    watch = TrainingAudit(gated.examples(50), every=1, share=0.99, schemes="int8", folder=tmp_path)
    step = 1
    while watch(net, step) is None:
        step += 1
        time.sleep(0.05)
    with torch.no_grad():
        net[0].weight[0, 0] = torch.nan  # type: ignore[index]
    rows = list[dict[str, Any]]()
    while not rows or "failed" not in rows[-1]:
        step += 1
        time.sleep(0.05)
        assert watch(net, step) is None and net.training
        rows = [json.loads(line) for line in (tmp_path / "scalars.jsonl").read_text().splitlines()]
    assert "not finite" in rows[-1]["failed"]
    with pytest.raises(ModelError):  # of one that never was fit for an audit
        TrainingAudit(gated.examples(50), every=1, folder=tmp_path)(net, 1)


def test_loggers_are_known_by_what_they_have() -> None:
    got = list[Any]()
    lightning = SimpleNamespace(log_metrics=lambda metrics, step: got.append((metrics, step)))
    wandb = SimpleNamespace(log=lambda data, step: got.append((data, step)))
    board = SimpleNamespace(add_scalar=lambda name, value, step: got.append(({name: value}, step)))
    for log in (lightning, wandb, board):
        send(log, {"a": 1.0}, 7)
    assert got == [({"a": 1.0}, 7)] * 3


@pytest.fixture(autouse=True)
def _quiet() -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
