"""Folders of packed weights: read to the bit, damage named, rows that a loop confirms; what does not fit is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from packed_files import HOW, NF4, Tensors, grid, in_groups, write_packed
from safetensors.torch import load_file
from test_sources_shipped import audited, llama, looped, task, trained  # noqa: F401  (two are fixtures)

import wheeltap as wt
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import WheeltapError
from wheeltap.sources import load_model
from wheeltap.sources.base import models
from wheeltap.sources.folder_weights import ShippedFolder
from wheeltap.sources.packed_weights import PackedFolder
from wheeltap.sources.shipped import compared

MIXED = ("gptq act-order", "gptq 8 bits")
ALONE = [kind for kind in HOW if kind != "torchao"]
"""Kinds that need no library."""

OUT = "model.layers.1.self_attn.o_proj.weight"
UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.1.mlp.up_proj"


@pytest.fixture(scope="session")
def original() -> Any:
    """A Llama that is random."""
    return llama(0)


def damaged(folder: Path, original: Any) -> set[str]:
    """Names of the tensors of a folder that are not sound."""
    rows = compared(ShippedFolder(folder, reference=wt.Subject(original)).weights(), original)
    assert len(rows) >= 19
    return {row.name for row in rows if row.fault != "sound"}


def written(kind: str, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What a kind keeps of a matrix, and half of the step that each number was rounded by; by loops of its own."""
    made: Tensors = HOW[kind][1]("m", weight)
    if kind == "bnb":
        table = torch.tensor(NF4)
        codes = torch.stack([made["m.weight"] >> 4, made["m.weight"] & 15], 1).reshape(-1, 64).long()
        scale = made["m.weight.absmax"][:, None]
        gaps = torch.diff(table).max() / 2.0
        return (table[codes] * scale).reshape(weight.shape), (scale * gaps).expand_as(codes).reshape(weight.shape)
    if kind == "torchao":
        step = weight.abs().amax(1, keepdim=True) / 127.0
        return (weight / step).round() * step, (step / 2.0).expand_as(weight)
    if kind == "ct float8":
        step = weight.abs().amax(1, keepdim=True) / 448.0
        return made["m.weight"].float() * step, (weight / 16.0).abs() + step * 2.0**-10
    bits = 8 if "8 bits" in kind else 4
    index = in_groups(weight.shape[1], ordered=kind not in MIXED)
    even = kind in ("gptq", "gptq 8 bits", "ct")
    codes, scale, zero = grid(weight, bits, even=even, index=index)
    ends = (codes == 0) | (codes == 2**bits - 1)  # what lies beyond the range is cut
    return (codes - zero[:, index]) * scale[:, index], scale[:, index] * (0.5 + ends.float())


@pytest.mark.parametrize("kind", ["gptq act-order", "awq", "ct float8", "bnb", "torchao"])
def test_numbers_are_those_that_were_written_and_a_sound_folder_has_no_fault(
    tmp_path: Path, original: Any, kind: str
) -> None:
    folder = write_packed(tmp_path / "m", original, kind)
    source = models.get(kind.partition(" ")[0])()
    opened = source.shipped(str(folder), reference=wt.Subject(original))
    assert opened is not None and opened.record("x").differs == ()
    made = PackedFolder(folder, HOW[kind][0]).dense(original)
    for name, weight in original.named_parameters():
        if name.endswith("_proj.weight"):
            expected, half = written(kind, weight)
            assert torch.allclose(made[name], expected, atol=1e-7), name
            assert ((made[name] - weight).abs() <= 1.001 * half + 1e-7).all(), name
        else:
            assert torch.equal(made[name], weight)
    assert damaged(folder, original) == set()
    if kind in ALONE:
        held = dict(opened.model().named_parameters())
        assert all(torch.equal(held[name], made[name]) for name in held)


def by(factor: float, rows: int) -> Callable[[Tensors], object]:
    """The scales of some rows, or of all, times a factor."""

    def change(tensors: Tensors) -> None:
        name = next(one for one in tensors if one.startswith(UP) and one.endswith(("scale", "scales", "SCB")))
        scales = tensors[name].T if name.endswith("scales") else tensors[name]
        scales[:rows] *= factor

    return change


def constant(tensors: Tensors) -> None:
    """From layer 1 on each word is the same."""
    for name, tensor in tensors.items():
        if name.startswith(OUT.removesuffix(".weight")) and name.endswith(("qweight", "packed", "weight", "qdata")):
            tensor.fill_(0x77777777 if tensor.dtype == torch.int32 else 0x77)


def swapped(tensors: Tensors) -> None:
    """Two layers in each other's place."""
    for name in [name for name in tensors if name.startswith(UP)]:
        other = name.replace(UP, DOWN)
        tensors[name], tensors[other] = tensors[other], tensors[name]


@pytest.mark.parametrize("kind", ["awq", "torchao"])
def test_a_damaged_matrix_is_named_and_no_other(tmp_path: Path, original: Any, kind: str) -> None:
    for change, expected in (
        (by(1.1, 1000), {f"{UP}.weight"}), (constant, {OUT}), (swapped, {f"{UP}.weight", f"{DOWN}.weight"}),
    ):  # fmt: skip
        assert damaged(write_packed(tmp_path / "m", original, kind, change=change), original) == expected


# ---- smoothed weights ------------------------------------------------------------------------------------------


def smooth(held: Tensors) -> None:
    """What AWQ does first: columns times factors, and what feeds them divided by these."""
    generator = torch.Generator().manual_seed(0)
    for layer in ("model.layers.0.", "model.layers.1."):
        groups = {
            "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"), "mlp.up_proj": ("mlp.down_proj",),
        }  # fmt: skip
        for source, users in groups.items():
            fed = held[f"{layer}{source}.weight"]
            factors = torch.exp(0.5 * torch.randn(len(fed), generator=generator))
            fed /= factors if fed.ndim == 1 else factors[:, None]
            for user in users:
                held[f"{layer}{user}.weight"] *= factors


def test_smoothing_is_no_damage_where_it_is_undone(tmp_path: Path, original: Any) -> None:
    gate, kind = "model.layers.0.mlp.gate_proj.weight", "awq"

    def scaled(weights: Tensors) -> None:
        smooth(weights)
        weights[gate] *= 1.1

    assert damaged(write_packed(tmp_path / "m", original, kind, weights=smooth), original) == set()
    assert damaged(write_packed(tmp_path / "m", original, kind, weights=scaled), original) == {gate}


# ---- rows ------------------------------------------------------------------------------------------------------


def test_rows_are_what_a_loop_gives(trained: Any, task: ChoiceTask, tmp_path: Path) -> None:  # noqa: F811
    write_packed(tmp_path / "eight", trained, "gptq 8 bits")
    write_packed(tmp_path / "four", trained, "awq")
    noise = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    worn = {f"model.layers.0.self_attn.{part}_proj.weight": noise for part in "qo"}
    write_packed(tmp_path / "worn", trained, "ct", weights=lambda held: held.update(worn))
    specs = [f"gptq:{tmp_path / 'eight'}", str(tmp_path / "four"), f"hf:{tmp_path / 'worn'}"]
    report = audited(trained, task, *specs)
    rows = {row.title: row for row in report.findings if row.code == "WT100"}
    for name, kind in (("eight", "gptq 8 bits"), ("four", "awq"), ("worn", "ct")):
        model = llama(1, vocabulary=24)
        held = load_file(tmp_path / name / "model.safetensors")
        for parameter, weight in model.named_parameters():
            own = (worn if name == "worn" else {}).get(parameter, trained.get_parameter(parameter))
            weight.copy_(held[parameter] if parameter in held else written(kind, own)[0])
        score = next(one.value for one in rows[name].estimates if one.name == "score")
        assert score == pytest.approx(float((looped(model, task).argmax(1) == task.targets).double().mean()), abs=1e-6)
    assert rows["eight"].verdict == "safe" and rows["worn"].verdict == "costs"
    files = {row.title.rpartition(" ")[2]: row.verdict for row in report.findings if row.code == "WT003"}
    assert files == {"eight": "as its formats give", "four": "as its formats give", "worn": "damaged"}


@pytest.mark.parametrize("kind", ["bnb", "bnb 8 bits", "torchao"])
def test_libraries_write_and_run_what_is_read_here(tmp_path: Path, original: Any, kind: str) -> None:
    transformers = pytest.importorskip("transformers", reason="needs the extra llm")
    library = pytest.importorskip("torchao" if kind == "torchao" else "bitsandbytes")
    pytest.importorskip("accelerate", reason="needs the extra bnb")
    original.save_pretrained(tmp_path / "base")
    if kind == "torchao":
        how = transformers.TorchAoConfig(library.quantization.Int8WeightOnlyConfig(version=2))
    else:
        how = transformers.BitsAndBytesConfig(
            load_in_8bit=kind != "bnb", load_in_4bit=kind == "bnb", bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
        )  # fmt: skip
    packed = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base", quantization_config=how, dtype="float32")
    packed.save_pretrained(tmp_path / "packed")
    assert damaged(tmp_path / "packed", original) == set()
    loaded = ShippedFolder(tmp_path / "packed", reference=wt.Subject(original)).model()
    tokens = torch.arange(2, 10)[None]
    assert (loaded(tokens).logits - packed(tokens).logits).abs().max() < (0.03 if kind == "bnb" else 1e-6)
    dense = PackedFolder(tmp_path / "packed", {"quant_method": how.quant_method.value}).dense(original)
    numbers: dict[str, Callable[[Any], torch.Tensor]] = {
        "bnb": lambda layer: library.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state),
        "bnb 8 bits": lambda layer: layer.state.CB * layer.state.SCB[:, None] / 127.0,
        "torchao": lambda layer: layer.weight.dequantize(),
    }
    for name, layer in packed.named_modules():
        # On a CPU, bitsandbytes 0.50.2 reads 4 bits wrongly where a row is no whole number of blocks.
        if name.endswith("_proj") and (kind != "bnb" or "down" not in name):
            assert torch.allclose(dense[f"{name}.weight"], numbers[kind](layer), rtol=1e-6, atol=0.0), name


# ---- what does not fit -----------------------------------------------------------------------------------------


def cut(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({f"{UP}.{name}": tensors[f"{UP}.{name}"][:-1].contiguous()})


def dropped(name: str) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.pop(f"{UP}.{name}")


def emptied(tensors: Tensors) -> None:
    for name in [name for name in tensors if "_proj" in name]:
        del tensors[name]


def outside(tensors: Tensors) -> None:
    tensors[f"{UP}.g_idx"][0] = 7


BAD: tuple[tuple[str, dict[str, Any], str | None], ...] = (
    ("gptq", {"change": dropped("scales")}, "up_proj.scales"),
    ("gptq", {"change": outside}, "up_proj"),
    ("gptq", {"change": cut("qzeros")}, "up_proj"),
    ("bnb", {"change": cut("weight.absmax")}, "up_proj"),
    ("gptq", {"bits": 3}, "bits 3"),
    ("gptq", {"quant_method": "exl3"}, "exl3"),
    ("ct", {"config_groups": [1]}, "quantization_config"),
    ("gptq", {"change": emptied}, None),
)
"""A kind, the change of its folder, and the name in the refusal."""


def test_a_folder_that_is_not_as_its_format_has_it_is_refused(tmp_path: Path, original: Any) -> None:
    for kind, settings, named in BAD:
        folder = write_packed(tmp_path / "m", original, kind, **settings)
        with pytest.raises(WheeltapError, match=named or None):
            ShippedFolder(folder, reference=wt.Subject(original)).weights()
        if settings.get("quant_method") != "exl3":
            with pytest.raises(WheeltapError, match=named or None):
                load_model(f"hf:{folder}")


def test_a_prefix_a_config_and_a_whole_file_are_asked_for(tmp_path: Path, original: Any) -> None:
    folder = write_packed(tmp_path / "m", original, "awq")
    reference = wt.Subject(original)
    with pytest.raises(WheeltapError, match="awq"):
        models.get("gptq")().shipped(str(folder), reference=reference)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace("quantization_config", "other"))
    with pytest.raises(WheeltapError, match="quantization_config"):
        models.get("awq")().load(str(folder), name="m")
    (folder / "config.json").write_text(config.replace('"hidden_size": 64', '"hidden_size": 32'))
    with pytest.raises(WheeltapError, match="original"):
        ShippedFolder(folder, reference=reference).record("x")
