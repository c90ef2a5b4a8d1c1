"""Models as they come: outputs of several parts, tokens with padding, denoisers, columns, quantized references."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor, nn

import wheeltap as wt
from tests.doors.by_hand import drawn, linear, verdicts
from wheeltap.cli import main as run
from wheeltap.core.errors import DataError, ModelError
from wheeltap.core.fingerprint import weights_digest

# ---- outputs of several parts -----------------------------------------------------------------------------------


class Heads(nn.Module):
    """Two heads; the first answers the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = linear(-torch.eye(3)), linear(torch.eye(3))

    def forward(self, inputs: Tensor) -> Any:
        return self.one(inputs), self.two(inputs)


def three(count: int = 300) -> tuple[Tensor, Tensor]:
    targets = torch.arange(count) % 3
    return torch.eye(3)[targets] + 0.1 * drawn(count, 3), targets


def test_the_part_that_is_asked_for_is_scored_and_the_model_comes_back_as_it_was() -> None:
    net, data = Heads().eval(), three()
    digest, held = weights_digest(net), dict(vars(net))
    subjects = [wt.Subject(net, name="net", output=at) for at in (0, 1)]
    reports = [wt.audit(one, data, audits="score", schemes="int8,prune90") for one in subjects]
    scores = [one["WT001"][0].estimates[0].value for one in reports]
    assert scores == [0.0, 1.0] and verdicts(reports[1]) == {"int8": "safe", "prune90": "costs"}
    records = [one.record.subjects[0] for one in reports]
    assert records[0].fingerprint != records[1].fingerprint and records[1].output == "1"
    assert records[1].weights == ("one.weight", "two.weight"), "modules have the names that they had"
    assert weights_digest(net) == digest and vars(net) == held and not net._forward_hooks
    for wrong in (net, wt.Subject(net, output=2), wt.Subject(net.one, output="tags")):
        with pytest.raises(ModelError):
            wt.audit(wrong, data, schemes="int8")


MODULE = """
import torch
from torch import nn

class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(12, 4)
        with torch.no_grad():
            self.table.weight.copy_(torch.eye(4).repeat(3, 1))

    def forward(self, input_ids, attention_mask):
        scores = self.table(input_ids)
        return {"reversed": -scores, "tags": scores, "length": attention_mask.sum(1)}

def tagger():
    return Tagger().eval()
"""


def sentences(count: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Words, which of them count, and tags that are the word's number modulo 4, a tenth of them wrong."""
    g = torch.Generator().manual_seed(seed)
    words = torch.randint(12, (count, 9), generator=g)
    some = torch.arange(9) < torch.randint(2, 10, (count, 1), generator=g)
    wrong = torch.rand(count, 9, generator=g) < 0.1
    return words, some, (words + wrong) % 4


def test_a_tagger_is_audited_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words, some, tags = sentences(400, seed=1)
    Path("my_tagger.py").write_text(MODULE)
    np.savez("test.npz", input_ids=words.numpy(), attention_mask=some.long().numpy(), targets=tags.numpy())
    np.savez("masked.npz", inputs_input_ids=words.numpy(), inputs_attention_mask=np.ones((400, 9), int),
             targets=tags.numpy(), mask=some.numpy())  # fmt: skip
    asked = ["my_tagger:tagger", "--output", "tags", "--audits", "score", "--for", "int8,prune90"]
    assert run(["audit", *asked, "--data", "test.npz", "--json", "one.json", "--quiet"]) == 1, "pruning costs"
    assert run(["plan", *asked, "--data", "masked.npz", "-o", "plan.json"]) == 0
    assert run(["run", "plan.json", "--allow-code", "--json", "two.json", "--quiet"]) == 1
    one, two = (json.loads(Path(name).read_text()) for name in ("one.json", "two.json"))
    right = metrics.accuracy_score(tags[some], words[some] % 4)
    for report in (one, two):
        assert report["task"]["measure"] == "token_accuracy"
        assert report["task"]["examples"] == 400, "tokens of a sentence are no examples"
        assert report["findings"][0]["estimates"][0]["value"] == pytest.approx(right, abs=1e-6)
        rows = {row["scheme"]: row["verdict"] for row in report["findings"] if row["code"] == "WT100"}
        assert rows == {"int8": "safe", "prune90": "costs"}
    assert run(["audit", "my_tagger:tagger", "--data", "test.npz", "--for", "int8"]) == 2, "which of two tensors?"


# ---- tokens -----------------------------------------------------------------------------------------------------


def test_tokens_are_counted_as_one_sum_and_vary_by_sentence() -> None:
    """Beside scikit-learn, and the jackknife over sentences."""
    _, some, tags = sentences(60, seed=2)
    scores = drawn(60, 9, 4, seed=3)
    marked = tags.masked_fill(~some, -100)
    marked[7] = -100
    task = wt.Task(drawn(60, 2), marked)
    flat, said = scores.mT.flatten(1), scores.argmax(2)
    values = task.measure(flat, task.targets, flat)
    kept = torch.arange(60) != 7
    assert bool(values[~kept].isnan().all()), "a sentence of padding alone has no value"

    def accuracy(rows: Tensor) -> float:
        there = (marked != -100) & rows[:, None]
        return float(metrics.accuracy_score(marked[there], said[there]))

    assert float(values[kept].mean()) == pytest.approx(accuracy(kept), abs=1e-12)
    without = [accuracy(kept & (torch.arange(60) != at)) for at in kept.nonzero()[:, 0]]
    jackknife = float(np.sqrt(np.var(without) * 58))
    assert float(values[kept].std() / 59**0.5) == pytest.approx(jackknife, rel=0.1)
    parts = wt.measure.beside(task.measure, flat[kept], task.targets[kept])["by_class"]
    for at, share in parts.tolist():
        there = (marked == at) & kept[:, None]
        assert share == pytest.approx(float((said[there] == at).double().mean()))


class Table(nn.Embedding):
    """Scores of words, each by itself; whatever class is 255 is one."""

    def __init__(self, classes: int) -> None:
        super().__init__(12, classes)
        with torch.no_grad():
            self.weight.copy_(torch.eye(classes)[-4:].repeat(3, 1))


def test_what_is_padding_changes_nothing_and_a_class_255_counts() -> None:
    words, some, tags = sentences(300, seed=4)
    net, marked = Table(256).eval(), (tags + 252).masked_fill(~some, -100)
    first = wt.audit(net, (words, marked), audits="score", schemes="int8")
    other = wt.audit(net, (words * some, marked), audits="score", schemes="int8")
    right = float((tags == words % 4)[some].double().mean())
    for report in (first, other):
        assert report["WT001"][0].estimates[0].value == pytest.approx(right, abs=1e-6)
    empty = marked.clone()
    empty[:5] = -100
    assert wt.audit(net, (words, empty), audits="score", schemes="int8").record.task.left_out == 5
    with pytest.raises(DataError, match="no class anywhere"):
        wt.audit(net, (words, torch.full_like(marked, -100)), schemes="int8")
    with pytest.raises(ModelError, match="score for each token"):
        wt.audit(net, (words, marked[:, :4]), schemes="int8")


# ---- outputs of any shape ---------------------------------------------------------------------------------------


class Denoiser(nn.Module):
    """Scales what it is given; the late times by a weight with outliers for a pixel that is always 0."""

    def __init__(self) -> None:
        super().__init__()
        self.early, late = linear(torch.eye(16)), 0.3 * torch.eye(16)
        late[:, 0] = 50.0
        self.late = linear(late)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        flat, late = x.flatten(1), (t >= 5)[:, None]
        return torch.where(late, self.late(flat), self.early(flat)).reshape(x.shape)


def test_a_denoiser_has_a_loss_at_each_time() -> None:
    times = torch.arange(1000) % 10
    noise = drawn(1000, 1, 4, 4, seed=1)
    noise[:, :, 0, 0] = 0.0
    noised = (noise + 0.2 * drawn(1000, 1, 4, 4, seed=2)) / torch.where(times >= 5, 0.3, 1.0)[:, None, None, None]
    noised[:, :, 0, 0] = 0.0
    task = wt.Task({"x": noised, "t": times}, noise).with_factors({"late": (times >= 5).long()})
    net = Denoiser().eval()
    report = wt.audit(net, task, audits="score", schemes="int16,int4", slices="late")
    errors = (net(noised, times).detach() - noise).square().flatten(1).sum(1)
    assert report["WT001"][0].estimates[0].value == pytest.approx(float(errors.mean()), rel=1e-5)
    sliced = {row.scheme: row.verdict for row in report["WT113"]}
    assert verdicts(report) == {"int16": "safe", "int4": "costs"}
    assert (sliced["int4 on late 0"], sliced["int4 on late 1"]) == ("safe", "costs")
    with pytest.raises(ModelError, match="shape of the targets"):
        wt.audit(net, wt.Task({"x": noised, "t": times}, noise.reshape(1000, 1, 2, 8)), schemes="int8")


# ---- models that are quantized already ----------------------------------------------------------------------------


class Packed(nn.Module):
    """A linear map as whole numbers with a scale for each row."""

    def __init__(self, held: nn.Linear) -> None:
        super().__init__()
        weight = held.weight.detach()
        scale = weight.abs().amax(1, keepdim=True) / 127.0
        self.register_buffer("codes", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ (self.codes * self.scale).T


def original() -> nn.Sequential:
    return nn.Sequential(linear(torch.cat([torch.eye(3), -torch.eye(3)])), nn.ReLU(), linear(torch.eye(3, 6))).eval()


def dynamic() -> nn.Module:
    return torch.ao.quantization.quantize_dynamic(original(), {nn.Linear}, dtype=torch.qint8).eval()


def whole() -> nn.Module:
    net = original()
    return nn.Sequential(Packed(net[0]), nn.ReLU(), Packed(net[2])).eval()  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("make", [dynamic, whole])
def test_a_quantized_model_is_a_reference_and_says_what_cannot_be_disturbed(make: Any) -> None:
    net, data = make(), three()
    before = net(data[0]).detach()
    report = wt.audit(net, data, audits="score", schemes="int8,noise30")
    assert {row.status for row in report["WT100"]} == {"not_applicable"} and not report.passed and not report.void
    assert "(18)" in report["WT100"][0].because, "it names the packed modules and their sizes"
    assert report["WT001"][0].estimates[0].value == 1.0
    for pair in ((net, original()), (original(), net)):
        compared = wt.compare(*pair, data, names=("a", "b"), audits="score", schemes="int8")
        one = next(row for row in compared["WT001"] if "vs" in row.subject)
        assert one.verdict == "equivalent", "what quantization cost is measured all the same"
        alone = {row.subject: row.status for row in compared["WT100"]}
        assert sorted(alone[name] for name in ("a", "b")) == ["excluded", "not_applicable"]
    assert torch.equal(net(data[0]), before)
    with pytest.raises(ModelError, match="no weights that wheeltap can disturb"):
        wt.audit(nn.ReLU().eval(), data)


class PackedTensor(Tensor):
    """Numbers of a class of its own, as torchao's: whole numbers and a scale for each row."""

    codes: Tensor
    scale: Tensor

    @staticmethod
    def __new__(cls, codes: Tensor, scale: Tensor) -> "PackedTensor":
        return Tensor._make_wrapper_subclass(cls, codes.shape, dtype=scale.dtype)  # type: ignore[attr-defined]

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        self.codes, self.scale = codes, scale

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["codes", "scale"], None

    @classmethod
    def __tensor_unflatten__(cls, parts: dict[str, Tensor], *_: object) -> "PackedTensor":
        return cls(parts["codes"], parts["scale"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.ops.aten.detach.default, torch.ops.aten.alias.default):
            return cls(args[0].codes, args[0].scale)
        if func not in (torch.ops.aten.t.default, torch.ops.aten.mm.default, torch.ops.aten.addmm.default):
            raise NotImplementedError(str(func))
        plain = [one.codes * one.scale if isinstance(one, PackedTensor) else one for one in args]
        return func(*plain, **(kwargs or {}))


def test_weights_of_a_class_of_their_own_are_left_alone_and_named() -> None:
    net, data = original(), three()
    packed = Packed(net[2])  # type: ignore[arg-type]
    net[2].weight = nn.Parameter(PackedTensor(packed.codes, packed.scale), requires_grad=False)  # type: ignore
    digest, before = weights_digest(net), net(data[0]).detach()
    report = wt.audit(net, data, audits="score,single-point", schemes="int8")
    record = report.record.subjects[0]
    assert record.weights == ("0.weight",) and record.parameters == 36 and record.untouched[0].name == "2"
    assert report["WT100"][0].verdict.startswith("too few weights") and not report.void
    assert all(row.status != "error" for row in report.findings)
    assert weights_digest(net) == digest and torch.equal(net(data[0]), before)
    packed.codes[0, 0] -= 1
    assert weights_digest(net) != digest
