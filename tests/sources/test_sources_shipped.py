"""Files as they are shipped: read to the bit, damaged tensors named, and rows that an independent loop confirms."""

import copy
import json
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gguf_files import BYTES, Change, by_gguf, write_gguf

import wheeltap as wt
from wheeltap.cli import main
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import FileFormatError, WheeltapError
from wheeltap.plans.store import Outcomes, Store
from wheeltap.report.report import Report
from wheeltap.runs import planning
from wheeltap.sources import hf, load_model
from wheeltap.sources.folder_weights import ShippedFolder
from wheeltap.sources.gguf_weights import ShippedGguf
from wheeltap.sources.shipped import ShippedModule, compared

FORMS = ("F16", "Q8_0", "Q4_0")
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "head_dim": 8}


def llama(seed: int, *, vocabulary: int = len(BYTES) + 2, steps: int = 0) -> Any:
    """A Llama that is random, or has learned to say the second of four tokens again."""
    pytest.importorskip("gguf", reason="needs the extra llm")
    transformers = hf.library(needed_for="tests")
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=64,
        rms_norm_eps=1e-5, rope_theta=10000.0, bos_token_id=0, eos_token_id=1, tie_word_embeddings=True, **SIZES,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.LlamaForCausalLM(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.mul_(1.0 + 0.1 * torch.randn(parameter.shape)) if "norm" in name else None
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        for _ in range(steps):
            tokens = torch.randint(2, vocabulary, (32, 4))
            loss = torch.nn.functional.cross_entropy(model(tokens).logits[:, -1], tokens[:, 1])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def trained() -> Any:
    """Learned in a few seconds."""
    return llama(0, vocabulary=24, steps=120)


@pytest.fixture(scope="session")
def task() -> ChoiceTask:
    """Which of two tokens was the second one? One item in ten has options of two tokens."""
    rng = np.random.default_rng(0)
    contexts = [[int(one) for one in row] for row in rng.integers(2, 24, (300, 4))]
    answers = [int(one) for one in rng.integers(0, 2, 300)]
    choices: list[list[list[int]]] = []
    for at, (context, answer) in enumerate(zip(contexts, answers, strict=True)):
        other = 2 + (context[1] - 1) % 22
        pair = [[context[1]], [other]] if answer == 0 else [[other], [context[1]]]
        choices.append([[*one, 5] for one in pair] if at % 10 == 0 else pair)
    return ChoiceTask(contexts, choices, answers, name="second")


def looked_at(path: Path, original: Any) -> dict[str, str]:
    """What is wrong with tensors of a file, by name; where another tensor's values are found, with its name."""
    opened = ShippedGguf(path, reference=wt.Subject(original))
    rows = compared(opened.weights(), original)
    assert len(rows) >= 20
    return {row.name: row.fault for row in rows if row.fault != "sound"}


# ---- tensors ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_weights_are_those_of_gguf_to_the_bit_and_a_sound_file_has_no_fault(tmp_path: Path, form: str) -> None:
    original = llama(0)
    write_gguf(tmp_path / "m.gguf", original, form=form)
    made = dict(ShippedGguf(tmp_path / "m.gguf", reference=wt.Subject(original)).model().named_parameters())
    for name, values in by_gguf(tmp_path / "m.gguf", original.config).items():
        assert np.array_equal(made[name].numpy(), values.reshape(made[name].shape)), name
    assert looked_at(tmp_path / "m.gguf", original) == {}


def again(values: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    return values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)


def at(where: str, change: Callable[[Any], Any]) -> Change:
    return lambda name, values: change(values) if name == where else values


def later_constant(name: str, values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return np.full_like(values, 0.01) if name.startswith("blk.1.attn_output") else values


def overwritten(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Other numbers as large in the first rows."""
    other = np.random.default_rng(0).normal(0.0, values.std(), values.shape).astype(values.dtype)
    return np.concatenate([other[:32], values[32:]])


VALUES: dict[str, tuple[Change, dict[str, str]]] = {
    "overwritten rows": (at("blk.1.ffn_up.weight", overwritten), {"blk.1.ffn_up.weight": "error"}),
    "scale": (at("blk.1.ffn_up.weight", lambda v: v * 1.3), {"blk.1.ffn_up.weight": "error"}),
    "constant": (later_constant, {"blk.1.attn_output.weight": "error"}),
    "permuted twice": (at("blk.0.attn_q.weight", lambda v: again(v, 8)), {"blk.0.attn_q.weight": "error"}),
    "transposed": (at("blk.1.attn_output.weight", lambda v: v.T), {"blk.1.attn_output.weight": "error"}),
    "norm offset": (at("blk.1.ffn_norm.weight", lambda v: v + 1.0), {"blk.1.ffn_norm.weight": "error"}),
    "not finite": (at("blk.0.attn_norm.weight", lambda v: v * np.inf), {"blk.0.attn_norm.weight": "not finite"}),
}


def test_a_damaged_tensor_is_named_and_no_other(tmp_path: Path) -> None:
    original = llama(0)
    for form, (kind, (damage, expected)) in zip(cycle(FORMS), VALUES.items()):
        write_gguf(tmp_path / "m.gguf", original, form=form, damage=damage)
        assert looked_at(tmp_path / "m.gguf", original) == expected, kind


def test_a_missing_tensor_swapped_layers_and_another_models_layer_are_named(tmp_path: Path) -> None:
    path, original, other, form = tmp_path / "m.gguf", llama(0), llama(1), "Q4_0"
    write_gguf(path, original, form=form, leave_out="layers.1.mlp.gate_proj")
    assert looked_at(path, original) == {"model.layers.1.mlp.gate_proj.weight": "missing"}
    up, down = "blk.0.ffn_up.weight", "blk.1.ffn_up.weight"
    held = {name: original.model.layers[1 - int(name[4])].mlp.up_proj.weight.numpy() for name in (up, down)}
    write_gguf(path, original, form=form, damage=held.get)
    assert looked_at(path, original) == {up: "error", down: "error"}
    strange = other.model.layers[0].mlp.gate_proj.weight.numpy()
    write_gguf(path, original, form=form, damage=at("blk.0.ffn_gate.weight", lambda _: strange))
    assert looked_at(path, original) == {"blk.0.ffn_gate.weight": "error"}
    write_gguf(path, original, form=form, change=lambda made: made.add_tensor("extra.weight", np.ones(3, np.float32)))
    assert looked_at(path, original) == {"extra.weight": "unread"}


# ---- rows ------------------------------------------------------------------------------------------------------


def looped(model: Any, items: ChoiceTask) -> torch.Tensor:
    """Scores ``[item, option]``, by one call for each of the options of one length."""
    scores = torch.zeros(len(items.contexts), 2, dtype=torch.float64)
    for length in (1, 2):
        rows = [row for row, options in enumerate(items.choices) if len(options[0]) == length]
        for column in (0, 1):
            tokens = torch.tensor([[*items.contexts[row], *items.choices[row][column]] for row in rows])
            logprobs = model(tokens).logits.detach().double().log_softmax(-1)[:, 3:-1]
            scores[rows, column] = logprobs.gather(2, tokens[:, 4:, None]).sum((1, 2))
    return scores


def audited(trained: Any, task: ChoiceTask, *schemes: Any, **how: Any) -> Report:
    return wt.audit(wt.Subject(trained, name="base"), task, schemes=list(schemes), audits="score", margin=0.05, **how)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory, trained: Any) -> dict[str, Path]:
    """The trained net in three formats, and one with a layer of noise."""
    folder = tmp_path_factory.mktemp("shipped")
    for form in FORMS:
        write_gguf(folder / f"m.{form}.gguf", trained, form=form)
    rng = np.random.default_rng(0)
    broken = at("blk.0.attn_v.weight", lambda v: rng.normal(0.0, v.std(), v.shape).astype(np.float32))
    write_gguf(folder / "broken.gguf", trained, form="Q8_0", damage=broken)
    return {path.stem: path for path in folder.iterdir()}


def test_rows_of_files_stand_beside_schemes_and_are_what_a_loop_gives(
    trained: Any, task: ChoiceTask, files: dict[str, Path], tmp_path: Path
) -> None:
    specs, store = [f"gguf:{path}" for path in files.values()], tmp_path / "s.wheeltap"
    report = audited(trained, task, "int8", *specs, store=store)
    rows = {row.scheme: row for row in report.findings if row.code == "WT100"}
    assert list(rows) == ["int8", *specs] and not report.void
    targets = task.targets.numpy()
    plan = planning.plan(wt.Subject(trained, name="base"), task, schemes=["int8", *specs], audits="score", margin=0.05)
    with Store(store, readonly=True) as kept:
        known = Outcomes(kept)
        for spec, file in zip(specs, plan.files, strict=True):
            model, outcome = llama(1, vocabulary=24), known(plan.ship(file, "answers").key)
            for name, values in by_gguf(Path(spec[5:]), trained.config).items():
                parameter = model.get_parameter(name)
                parameter.copy_(torch.from_numpy(values).reshape(parameter.shape))
            scores = looped(model, task).numpy()
            assert outcome is not None
            right = scores.argmax(1) == targets
            assert np.array_equal(outcome.values["accuracy"].astype(bool), right)
            lost = np.log(np.exp(scores - scores.max(1)[:, None]).sum(1)) - (
                scores[np.arange(len(targets)), targets] - scores.max(1)
            )
            assert np.abs(outcome.values["nll"] - lost).max() < 1e-6 * max(1.0, lost.max())
            score = next(one for one in rows[spec].estimates if one.name == "score")
            assert score.value == pytest.approx(right.mean(), abs=1e-6)
    assert rows[f"gguf:{files['m.Q8_0']}"].verdict == "safe" and rows[f"gguf:{files['m.F16']}"].verdict == "safe"
    assert rows[f"gguf:{files['broken']}"].verdict == "costs"
    found = {row.title.rpartition(" ")[2]: row for row in report.findings if row.code == "WT003"}
    assert found["m.Q4_0.gguf"].verdict == "as its formats give" and found["broken.gguf"].verdict == "damaged"
    assert "error of blk.0.attn_v.weight" in [estimate.name for estimate in found["broken.gguf"].estimates]
    (_, loss), *rest = [(one.name, one.value or 0.0) for one in rows[f"gguf:{files['broken']}"].estimates]
    changes = dict(rest)
    assert changes["answers lost"] - changes["answers gained"] == pytest.approx(loss)
    assert changes["same top answer"] == pytest.approx(1.0 - changes["answers changed"])
    assert 0.0 < changes["mean KL divergence"] < changes["99 % KL divergence"]
    again = audited(trained, task, "int8", *specs, store=store)
    assert again.cost.trials == 0 and again.headline == report.headline


def test_folders_and_functions_are_rows_too(trained: Any, task: ChoiceTask, tmp_path: Path) -> None:
    trained.save_pretrained(tmp_path / "half", dtype=torch.float16)

    def rounded() -> torch.nn.Module:
        made = copy.deepcopy(trained)
        for parameter in made.parameters():
            parameter.copy_(parameter.bfloat16())
        return made

    report = audited(trained, task, f"hf:{tmp_path / 'half'}", rounded)
    rows = [row for row in report.findings if row.code == "WT100"]
    assert [row.verdict for row in rows] == ["safe", "safe"], report


# ---- what does not fit -----------------------------------------------------------------------------------------


def original_of(path: Path, model: Any, **how: Any) -> wt.Subject:
    """A model that came from a file, with its tokens beside it."""
    write_gguf(path, model, **how)
    return load_model(f"gguf:{path}")


def refused(path: Path, reference: wt.Subject) -> WheeltapError:
    with pytest.raises(WheeltapError) as error:
        ShippedGguf(path, reference=reference).record(f"gguf:{path}")
    return error.value


def test_another_architecture_or_size_is_refused(tmp_path: Path) -> None:
    model, path = llama(0), tmp_path / "m.gguf"
    original = original_of(tmp_path / "original.gguf", model)
    write_gguf(path, model)
    assert ShippedGguf(path, reference=original).differences() == ()
    write_gguf(path, model, change=lambda made: made.add_rope_freq_base(5000.0))
    assert "rope_theta 10000" in str(refused(path, original))
    write_gguf(path, model, architecture="qwen2")
    assert "architecture llama" in str(refused(path, original))
    data = (tmp_path / "original.gguf").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "cut short" in refused(path, original).what
    (tmp_path / "m-00001-of-00002.gguf").write_bytes(b"")
    write_gguf(tmp_path / "m-00001-of-00002.gguf", model, change=lambda made: made.add_uint16("split.count", 2))
    assert "m-00002-of-00002.gguf" in str(refused(tmp_path / "m-00001-of-00002.gguf", original))


def test_a_file_that_cannot_be_loaded_costs_its_row_alone_and_its_fault_is_named(
    trained: Any, task: ChoiceTask, tmp_path: Path
) -> None:
    write_gguf(tmp_path / "short.gguf", trained, leave_out="layers.0.mlp.down_proj")
    report = audited(trained, task, "int8", f"gguf:{tmp_path / 'short.gguf'}")
    rows = {row.title: row for row in report.findings}
    assert rows["8 bits, per channel"].verdict == "safe" and rows["short.gguf"].status == "error"
    assert "layers.0.mlp.down_proj.weight is missing" in rows["File against original: short.gguf"].because


def test_tensors_alone_need_no_examples_and_no_pass_and_the_original_may_be_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, wrong = llama(0), at("blk.0.ffn_up.weight", lambda v: 2.0 * v)
    write_gguf(tmp_path / "original.gguf", model)
    write_gguf(tmp_path / "m.gguf", model, form="Q8_0")
    write_gguf(tmp_path / "wrong.gguf", model, form="Q8_0", damage=wrong)
    words = ["audit", "gguf:original.gguf", "--audits", "file", "--for"]
    assert main([*words, "gguf:m.gguf"]) == 0
    assert main([*words, "gguf:m.gguf,gguf:wrong.gguf"]) == 1
    assert main(["audit", "gguf:original.gguf", "--audits", "file"]) == 2

    def never_called(*_: object) -> None:
        raise AssertionError("the model was run")

    model.register_forward_pre_hook(never_called)
    report = wt.audit(wt.Subject(model), schemes=["gguf:m.gguf"], audits="file")
    assert [one.code for one in report.findings] == ["WT003"] and report.findings[0].verdict == "as its formats give"
    assert not report.controls


def test_running_statistics_are_compared_too() -> None:
    def net() -> torch.nn.Module:
        torch.manual_seed(0)
        made = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))
        made(torch.randn(64, 4))
        return made.eval()

    def damaged() -> torch.nn.Module:
        made = net()
        made.get_buffer("1.running_var").mul_(100.0)
        return made

    for make, expected in ((net, set[str]()), (damaged, {"1.running_var"})):
        original = wt.Subject(net())
        rows = compared(ShippedModule(make, reference=original, where="here").weights(), original.model)
        assert {row.name for row in rows if row.fault != "unknown"} == expected


def test_damaged_folders_are_named(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    original, folder = llama(0), tmp_path / "half"
    original.save_pretrained(folder, dtype=torch.bfloat16)
    held = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    name = "model.layers.1.mlp.up_proj.weight"
    changes: tuple[dict[str, torch.Tensor], ...] = (
        {}, {name: held[name] * 2.0}, {name: held[name] * 0.0 + 0.5},
        {name: held[name.replace(".1.", ".0.")].clone()},
    )  # fmt: skip
    for change in changes:
        save_file({**held, **change}, folder / "model.safetensors", {"format": "pt"})
        rows = compared(ShippedFolder(folder, reference=wt.Subject(original)).weights(), original)
        found = {row.name: row.fault for row in rows if row.fault != "sound"}
        assert found == dict.fromkeys(change, "error")


def test_a_setting_that_a_folder_leaves_out_is_that_of_its_class(tmp_path: Path) -> None:
    model = llama(0)
    model.config.rms_norm_eps = 0.1
    model.save_pretrained(tmp_path)
    original = wt.Subject(model, name="original")
    assert ShippedFolder(tmp_path, reference=original).differences() == ()
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "rms_norm_eps"}))
    [said] = ShippedFolder(tmp_path, reference=original).differences()
    assert "rms_norm_eps is 0.1 in the original, and 1e-06 in the folder, by default" in said
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_attention_heads": "many"}))
    with pytest.raises(FileFormatError, match="config"):
        ShippedFolder(tmp_path, reference=original).differences()


def test_settings_of_generation_of_a_folder_are_compared(tmp_path: Path) -> None:
    model = llama(0)
    model.save_pretrained(tmp_path)
    path = tmp_path / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [1, 7]}))
    [difference] = ShippedFolder(tmp_path, reference=wt.Subject(model, name="original")).differences()
    assert "eos_token_id is 1 in the original, and [1, 7]" in difference
