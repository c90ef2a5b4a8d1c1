"""The callbacks in real trainers: everything that training goes on from is as without them, to the bit."""

import random
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import wheeltap as wt
from tests.plugin_package.project import gated
from wheeltap.core.errors import MissingExtra

TRAIN = ("accelerate", "lightning")
SLOW = 0.01
"""Seconds that a step takes at least."""


class End:
    """Ends a training after its second audit, or after as many steps as another one took."""

    def __init__(self, folder: Path, *, steps: int = 2000) -> None:
        self.folder, self.steps, self.taken = folder, steps, 0

    def reached(self, step: int) -> bool:
        time.sleep(SLOW)
        self.taken = step
        return step >= self.steps or len(list(self.folder.glob("step-*.json"))) > 1


class Net(nn.Module):
    """Dropout, and noise of three kinds on what it is given in training."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(16, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2), nn.Linear(24, 4))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        if self.training:
            x = x + torch.randn_like(x) * float(np.random.rand()) * random.random()
        scores = self.body(x)
        return scores if labels is None else {"loss": nn.functional.cross_entropy(scores, labels), "logits": scores}


def begin() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def states(model: nn.Module, optimizer: Any) -> list[Any]:
    """All that training goes on from, in one order."""
    held = [value for state in optimizer.state.values() for value in state.values()]
    return [*model.state_dict().values(), *held, torch.get_rng_state(), random.getstate(), str(np.random.get_state()),
            [module.training for module in model.modules()]]  # fmt: skip


def assert_same(one: list[Any], other: list[Any]) -> None:
    assert len(one) == len(other) > 20
    assert all(torch.equal(a, b) if isinstance(a, Tensor) else a == b for a, b in zip(one, other, strict=True))


@pytest.mark.skipif(not find_spec("accelerate"), reason="needs accelerate (extra train)")
@pytest.mark.filterwarnings("default")
def test_a_trainer_of_transformers(tmp_path: Path) -> None:
    from transformers import Trainer, TrainerCallback, TrainingArguments

    inputs, labels = gated.examples(96)
    rows = [{"x": x, "labels": label} for x, label in zip(inputs, labels, strict=True)]

    class Ending(TrainerCallback):
        def __init__(self, end: End) -> None:
            self.end = end

        def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            control.should_training_stop = self.end.reached(state.global_step)

    def trained(end: End, *callbacks: Any) -> list[Any]:
        begin()
        how = TrainingArguments(
            output_dir=str(tmp_path), max_steps=end.steps, per_device_train_batch_size=8, report_to=[],
            save_strategy="no", disable_tqdm=True, use_cpu=True, logging_strategy="no", lr_scheduler_type="constant",
            dataloader_pin_memory=False,
        )  # fmt: skip
        trainer = Trainer(Net(), how, train_dataset=rows, callbacks=[*callbacks, Ending(end)])
        trainer.train()
        return states(trainer.model, trainer.optimizer)

    end = End(tmp_path / "history")
    audits = wt.callbacks.Transformers((inputs, labels), every=5, share=0.7, schemes="int8", folder=end.folder)
    with_audits = trained(end, audits)
    assert 10 <= end.taken < end.steps
    assert_same(with_audits, trained(End(tmp_path / "none", steps=end.taken)))


@pytest.mark.skipif(not find_spec("lightning"), reason="needs lightning (extra train)")
@pytest.mark.filterwarnings("default")
def test_a_trainer_of_lightning(tmp_path: Path) -> None:
    import lightning
    from lightning.pytorch.loggers import CSVLogger
    from torch.utils.data import DataLoader, TensorDataset

    inputs, labels = gated.examples(96)

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Any, _: int) -> Tensor:
            return nn.functional.cross_entropy(self(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=0.01)

    class Ending(lightning.Callback):
        def __init__(self, end: End) -> None:
            self.end = end

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = self.end.reached(trainer.global_step)

    def trained(end: End, *callbacks: Any) -> list[Any]:
        begin()
        trainer = lightning.Trainer(
            max_steps=end.steps, accelerator="cpu", callbacks=[*callbacks, Ending(end)], logger=CSVLogger(tmp_path),
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        module = Module()
        trainer.fit(module, DataLoader(TensorDataset(inputs, labels), batch_size=8, shuffle=True))
        return states(module, trainer.optimizers[0])

    end = End(tmp_path / "history")
    audits = wt.callbacks.Lightning((inputs, labels), every=5, share=0.7, schemes="int8", folder=end.folder)
    with_audits = trained(end, audits)
    assert 10 <= end.taken < end.steps
    assert_same(with_audits, trained(End(tmp_path / "none", steps=end.taken)))
    logged = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert "Module/score" in logged.splitlines()[0]


@pytest.mark.skipif(find_spec("lightning") is not None, reason="lightning is installed")
def test_a_library_that_is_missing_is_named() -> None:
    with pytest.raises(MissingExtra, match=r"wheeltap\[train\]"):
        wt.callbacks.Lightning(gated.examples(8), every=1)
