"""Models that accelerate has placed by hooks: disturbed where they lie, or refused where they were offloaded."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import wheeltap as wt
from wheeltap.core.errors import ModelError
from wheeltap.core.fingerprint import weights_digest
from wheeltap.core.subject import Subject
from wheeltap.sources import load_model

PARTS = ("model.embed_tokens", "model.layers.0", "model.layers.1", "model.norm", "model.rotary_emb", "lm_head")


class NextToken(nn.Module):
    """Scores of the token after each sequence."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval()

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(ids).logits[:, -1]


def placed(folder: Path, where: dict[str, str], **how: Any) -> nn.Module:
    accelerate = pytest.importorskip("accelerate", reason="needs accelerate (extra train)")
    return accelerate.dispatch_model(load_model(f"hf:{folder}").model, where, main_device="cpu", **how)


def test_hooked_layers_are_disturbed_where_they_lie(llama_folder: Path) -> None:
    hooked = placed(llama_folder, dict.fromkeys(PARTS, "cpu"), force_hooks=True)
    assert any("_hf_hook" in vars(module) for module in hooked.modules())
    ids, found = torch.randint(3, 16, (60, 6), generator=torch.Generator().manual_seed(0)), list[Any]()
    for model in (hooked, load_model(f"hf:{llama_folder}").model):
        net, before = NextToken(model), weights_digest(model)
        with torch.no_grad():
            task = wt.Task(ids, net(ids).argmax(1))
        report = wt.audit(Subject(net, name="net"), task, audits=["score", "deployment"], schemes="int4,noise5")
        found.append([(one.code, one.status, one.estimates) for one in report.findings])
        assert weights_digest(model) == before
    assert found[0] == found[1]


def test_offloaded_layers_are_refused(llama_folder: Path, tmp_path: Path) -> None:
    where = dict.fromkeys(PARTS, "cpu") | {"model.layers.1": "disk"}
    offloaded = placed(llama_folder, where, offload_dir=tmp_path / "offloaded")
    with pytest.raises(ModelError, match=r"layers\.1\."):
        Subject(NextToken(offloaded))
