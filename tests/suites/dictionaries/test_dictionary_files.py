"""Files of dictionaries: each layout gives what plain code gives, and what is not exactly known is refused."""

import collections
import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from wheeltap.core.errors import FileFormatError, MissingFile, UsageError
from wheeltap.suites.dictionaries.dictionary import Architecture, Dictionary, DictionarySettings, Normalization
from wheeltap.suites.dictionaries.files import read, write

WIDTH, FEATURES, K = 8, 24, 4
Codes = Callable[[Tensor], Tensor]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


X = draw(40, WIDTH, seed=9)
W_ENC, B_ENC = draw(WIDTH, FEATURES), draw(FEATURES) / 4
W_DEC, B_DEC, THRESHOLD = draw(FEATURES, WIDTH, seed=3), draw(WIDTH) / 2, draw(FEATURES, seed=2).abs()
GATE = {"b_gate": draw(FEATURES, seed=4), "r_mag": draw(FEATURES, seed=5) / 4, "b_mag": draw(FEATURES, seed=6)}
TENSORS = {"W_enc": W_ENC, "b_enc": B_ENC, "W_dec": W_DEC, "b_dec": B_DEC}


def largest(values: Tensor) -> Tensor:
    """Of each row the ``K`` largest, no less than 0."""
    kept = torch.zeros_like(values)
    for row, line in enumerate(values):
        for at in line.argsort(descending=True)[:K]:
            kept[row, at] = max(float(line[at]), 0.0)
    return kept


def linear(x: Tensor, *, center: bool = True) -> Tensor:
    return (x - B_DEC if center else x) @ W_ENC + B_ENC


def jump(values: Tensor, threshold: Tensor = THRESHOLD) -> Tensor:
    return torch.where(values > threshold, values.clamp_min(0.0), torch.zeros(()))


def gated(x: Tensor) -> Tensor:
    along = (x - B_DEC) @ W_ENC
    magnitude = (along * GATE["r_mag"].exp() + GATE["b_mag"]).clamp_min(0.0)
    return torch.where(along + GATE["b_gate"] > 0, magnitude, torch.zeros(()))


# ---- folders as the libraries write them -----------------------------------------------------------------------------

NOW = {
    "d_in": WIDTH, "d_sae": FEATURES, "dtype": "float32", "device": "cpu", "apply_b_dec_to_input": True,
    "normalize_activations": "none", "reshape_activations": "none", "architecture": "standard",
    "metadata": {"sae_lens_version": "6.54.12", "model_name": "gpt2", "hook_name": "blocks.5.hook_resid_pre"},
}  # fmt: skip
TRAINER = {"trainer_class": "Trainer", "activation_dim": WIDTH, "dict_size": FEATURES, "lr": 1e-3, "steps": 10,
           "layer": 5, "lm_name": "gpt2", "submodule_name": "resid_post_layer_5", "device": "cpu"}  # fmt: skip
ENCODER = {"encoder.weight": W_ENC.T, "encoder.bias": B_ENC}
COUNT = {"k": torch.tensor(K, dtype=torch.int32), "threshold": torch.tensor(0.7)}


@dataclass
class Case:
    """A folder, and the codes that its library gives.

    Attributes:
        name: Of the case.
        tensors: In it.
        settings: In it.
        codes: Of vectors.
        layout: Which library wrote it.
        unused: Tensors that the library does not use.
        change: How vectors are normalized: what features read, by what and plus what decoded vectors come back.
    """

    name: str
    layout: str
    settings: dict[str, Any]
    tensors: dict[str, Tensor]
    codes: Codes
    norms: bool = False
    unused: tuple[str, ...] = ()
    change: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]] = field(
        default=lambda x: (x, torch.ones(()), torch.zeros(()))
    )

    def written(self, folder: Path) -> Path:
        """The folder, once it is written."""
        folder.mkdir(parents=True)
        held = {name: tensor.contiguous().clone() for name, tensor in self.tensors.items()}
        match self.layout:
            case "saelens":
                save_file(held, folder / "sae_weights.safetensors")
            case _:
                torch.save(held, folder / "ae.pt")
        name = "config.json" if self.layout == "learning" else "cfg.json"
        whole = {"trainer": self.settings, "buffer": {"d_submodule": WIDTH}}
        (folder / name).write_text(json.dumps(whole if self.layout == "learning" else self.settings))
        return folder


def lengths(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    length = x.norm(dim=1, keepdim=True) / WIDTH**0.5
    return x / length, length, torch.zeros(())


def standard(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean = x.mean(1, keepdim=True)
    deviation = ((x - mean).square().sum(1, keepdim=True) / (WIDTH - 1)).sqrt()
    return (x - mean) / (deviation + 1e-5), deviation, mean


def topk(**settings: Any) -> dict[str, Any]:
    return NOW | {"architecture": "topk", "k": K, "rescale_acts_by_decoder_norm": False} | settings


def learning(kind: str, tensors: dict[str, Tensor], codes: Codes, **settings: Any) -> Case:
    unused = ("k", "group_sizes", *(["threshold"] if kind == "AutoEncoderTopK" else []))
    return Case(kind, "learning", TRAINER | {"dict_class": kind} | settings, tensors, codes, unused=unused)


def relu(x: Tensor) -> Tensor:
    return linear(x).clamp_min(0.0)


CASES = [
    Case("saelens standard", "saelens", NOW, TENSORS, relu),
    Case("saelens uncentered", "saelens", NOW | {"apply_b_dec_to_input": False}, TENSORS,
         lambda x: linear(x, center=False).clamp_min(0.0)),
    Case("saelens topk", "saelens", topk(), TENSORS, lambda x: largest(linear(x))),
    Case("saelens topk, first versions", "saelens", NOW | {"architecture": "topk", "k": K}, TENSORS,
         lambda x: largest(linear(x))),
    Case("saelens topk, lengths", "saelens", topk(rescale_acts_by_decoder_norm=True), TENSORS,
         lambda x: largest(linear(x) * W_DEC.norm(dim=1)), norms=True),
    Case("saelens jumprelu", "saelens", NOW | {"architecture": "jumprelu"}, TENSORS | {"threshold": THRESHOLD},
         lambda x: jump(linear(x))),
    Case("saelens gated", "saelens", NOW | {"architecture": "gated"},
         {name: one for name, one in TENSORS.items() if name != "b_enc"} | GATE, gated),
    Case("saelens layer_norm", "saelens", NOW | {"normalize_activations": "layer_norm"}, TENSORS, relu,
         change=standard),
    Case("saelens constant_norm_rescale", "saelens", topk(normalize_activations="constant_norm_rescale"), TENSORS,
         lambda x: largest(linear(x)), change=lengths),
    Case("saelens batchtopk in training", "saelens", topk(architecture="batchtopk", topk_threshold_lr=0.01),
         TENSORS | {"topk_threshold": torch.tensor(0.6, dtype=torch.float64)},
         lambda x: jump(linear(x), torch.tensor(0.6))),
    learning("AutoEncoder", ENCODER | {"decoder.weight": W_DEC.T, "bias": B_DEC}, relu),
    learning("AutoEncoderNew", ENCODER | {"decoder.weight": W_DEC.T, "decoder.bias": B_DEC},
             lambda x: linear(x, center=False).clamp_min(0.0)),
    learning("GatedAutoEncoder", {"encoder.weight": W_ENC.T, "decoder.weight": W_DEC.T, "decoder_bias": B_DEC,
             "r_mag": GATE["r_mag"], "gate_bias": GATE["b_gate"], "mag_bias": GATE["b_mag"]}, gated),
    learning("JumpReluAutoEncoder", TENSORS | {"threshold": THRESHOLD}, lambda x: jump(linear(x, center=False))),
    learning("AutoEncoderTopK", ENCODER | COUNT | {"decoder.weight": W_DEC.T, "b_dec": B_DEC},
             lambda x: largest(linear(x)), k=K),
    learning("BatchTopKSAE", ENCODER | COUNT | {"decoder.weight": W_DEC.T, "b_dec": B_DEC},
             lambda x: jump(linear(x), torch.tensor(0.7)), k=K),
    learning("MatryoshkaBatchTopKSAE", TENSORS | COUNT | {"group_sizes": torch.tensor([4, 20])},
             lambda x: jump(linear(x), torch.tensor(0.7)), k=K, group_sizes=[4, 20]),
]  # fmt: skip


@torch.no_grad()
def test_each_layout_gives_the_codes_and_vectors_of_plain_code(tmp_path: Path) -> None:
    for at, case in enumerate(CASES):
        one = read(case.written(tmp_path / str(at)))
        inner, factor, shift = case.change(X)
        codes = case.codes(inner)
        assert float(codes.count_nonzero()) > 20, case.name
        assert float((one.encode(X) - codes).abs().max()) < 1e-6 * 10, case.name
        atoms = W_DEC / W_DEC.norm(dim=1, keepdim=True) if case.norms else W_DEC
        wanted = (codes @ atoms + B_DEC) * factor + shift
        assert float((one(X) - wanted).abs().max() / wanted.abs().max()) < 1e-6, case.name
        assert not one.training


def changes(case: Case) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Settings and tensors of other functions, or of none."""
    settings, tensors = case.settings, case.tensors
    yield settings, tensors | {"scale": torch.ones(FEATURES)}
    for name, one in tensors.items():
        if name not in case.unused:
            yield settings, {other: tensor for other, tensor in tensors.items() if other != name}
            yield settings, tensors | {name: torch.cat((one, one)) if one.ndim else one.expand(2, 3)}
            if one.is_floating_point():
                yield settings, tensors | {name: torch.full_like(one, torch.nan)}
                yield settings, tensors | {name: torch.ones_like(one, dtype=torch.int64)}
        elif name in ("group_sizes", "k"):
            yield settings, tensors | {name: torch.full((2,), torch.nan)}
            yield settings, tensors | {name: torch.ones(2, 2, dtype=torch.int64)}
    if settings:
        size = "activation_dim" if case.layout == "learning" else "d_in"
        for value in (WIDTH + 1, -1, None, "8", 2**70, 8.5):
            yield settings | {size: value}, tensors
        yield {name: value for name, value in settings.items() if name != size}, tensors
        yield settings | {"post_encoder_scale": 2.0}, tensors


def test_a_changed_setting_or_tensor_is_refused(tmp_path: Path) -> None:
    at = 0
    for case in CASES:
        for settings, tensors in changes(case):
            at += 1
            with pytest.raises(FileFormatError):
                read(replace(case, settings=settings, tensors=tensors).written(tmp_path / str(at)))
                pytest.fail(f"{case.name}: {settings}, {[(n, list(t.shape)) for n, t in tensors.items()]}")
    assert at > 200


def test_settings_that_change_what_is_computed_are_refused(tmp_path: Path) -> None:
    by_name = {case.name: case for case in CASES}
    changed: list[tuple[str, dict[str, Any]]] = [
        ("saelens topk", {"k": 0}), ("saelens topk", {"k": FEATURES + 1}), ("saelens topk", {"k": 2.5}),
        ("saelens topk", {"k": None}), ("saelens topk", {"architecture": "temporal"}),
        ("saelens topk", {"normalize_activations": "covariance_whitening"}),
        ("saelens topk", {"normalize_activations": "expected_average_only_in"}),
        ("saelens topk", {"reshape_activations": "other"}), ("saelens topk", {"apply_b_dec_to_input": 1}),
        ("saelens standard", {"architecture": "jumprelu"}), ("saelens jumprelu", {"architecture": "standard"}),
        ("saelens jumprelu", {"rescale_acts_by_decoder_norm": True}),
        ("saelens gated", {"architecture": "topk", "k": K}),
        ("AutoEncoderTopK", {"k": K + 1}), ("AutoEncoderTopK", {"k": None}), ("BatchTopKSAE", {"dict_class": "Sae"}),
        ("AutoEncoder", {"dict_class": "AutoEncoderNew"}), ("BatchTopKSAE", {"k": 2**70}),
        ("MatryoshkaBatchTopKSAE", {"dict_size": 2**70}), ("saelens batchtopk in training", {"d_sae": 2**70}),
    ]  # fmt: skip
    for at, (name, settings) in enumerate(changed):
        case = by_name[name]
        with pytest.raises(FileFormatError):
            read(replace(case, settings=case.settings | settings).written(tmp_path / str(at)))
            pytest.fail(f"{name}: {settings}")
    for name in ("architecture", "apply_b_dec_to_input", "normalize_activations"):
        left = {key: value for key, value in NOW.items() if key != name}
        with pytest.raises(FileFormatError):
            read(replace(by_name["saelens standard"], settings=left).written(tmp_path / name))


def test_layouts_of_before_are_refused_by_name(tmp_path: Path) -> None:
    for name, library in (("sae.safetensors", "eai-sparsify"), ("params.npz", "Gemma Scope")):
        (tmp_path / library).mkdir()
        (tmp_path / library / name).write_bytes(b"")
        for place in (tmp_path / library, tmp_path / library / name):
            with pytest.raises(FileFormatError, match=library):
                read(place)
    # Of SAELens before 6.0: it has no metadata.
    standard = next(case for case in CASES if case.name == "saelens standard")
    old = {name: value for name, value in standard.settings.items() if name != "metadata"}
    with pytest.raises(FileFormatError, match=r"6\.0"):
        read(replace(standard, settings=old).written(tmp_path / "old"))
    # Of ours, with a key that has gone: read where it changes nothing.
    how = DictionarySettings(architecture="relu", width=WIDTH, features=FEATURES)
    for skip in (False, True):
        text = json.dumps(json.loads(msgspec.json.encode(how)) | {"skip": skip})
        save_file(TENSORS, tmp_path / "ours.safetensors", {"wheeltap.dictionary": text})
        if skip:
            with pytest.raises(FileFormatError, match="skip"):
                read(tmp_path / "ours.safetensors")
        else:
            assert read(tmp_path / "ours.safetensors").settings == how


# ---- our own ---------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    architectures: tuple[Architecture, ...] = ("topk", "batchtopk", "jumprelu", "gated", "relu", "linear")
    normalizations: tuple[Normalization, ...] = ("none", "constant_norm_rescale", "layer_norm")
    for architecture, normalize, center in product(architectures, normalizations, (True, False)):
        counted = architecture in ("topk", "batchtopk")
        how = DictionarySettings(
            architecture=architecture, width=WIDTH, features=FEATURES, k=K if counted else 0, center=center,
            normalize=normalize,
        )  # fmt: skip
        held = TENSORS | GATE | {"threshold": THRESHOLD}
        one = Dictionary(how, {name: held[name] for name in how.shapes})
        write(one, tmp_path / "one.safetensors")
        again = read(tmp_path / "one.safetensors")
        assert again.settings == how and torch.equal(again(X), one(X))
        if architecture == "linear":
            with pytest.raises(UsageError):
                write(one, tmp_path / "folder")
            continue
        write(one, tmp_path / "folder")
        again = read(tmp_path / "folder")
        assert torch.equal(again.encode(X), one.encode(X)) and torch.equal(again(X), one(X))
    assert json.loads((tmp_path / "folder" / "cfg.json").read_text()).keys() >= NOW.keys()


def test_attributes_are_written_and_checked(tmp_path: Path) -> None:
    how = DictionarySettings(architecture="supervised", width=2, features=2, attributes=("name", "order"))
    state = {"W_dec": torch.eye(2), "b_dec": torch.zeros(2), "attribute": torch.tensor([0, 1]),
             "value": torch.tensor([5, 7])}  # fmt: skip
    path = tmp_path / "one.safetensors"
    write(Dictionary(how, state), path)
    again = read(path)
    assert again.settings == how and torch.equal(again.value, state["value"])
    wrong: list[dict[str, Tensor]] = [{"attribute": torch.tensor([0, 2])}, {"attribute": torch.tensor([0, -1])},
                                      {"value": torch.tensor([5.0, 7.0])}, {"W_enc": torch.eye(2)}]  # fmt: skip
    beside = {"wheeltap.dictionary": msgspec.json.encode(how).decode()}
    for change in wrong:
        save_file(state | change, path, beside)
        with pytest.raises(FileFormatError):
            read(path)
    for settings in (
        "{}",
        "[",
        "null",
        '{"architecture": "supervised"}',
        beside["wheeltap.dictionary"][:-1] + ',"x":1}',
        '{"where": 1, "state": 2}',
    ):
        save_file(state, path, {"wheeltap.dictionary": settings})
        with pytest.raises(FileFormatError):
            read(path)


def test_what_a_file_says_beside(tmp_path: Path) -> None:
    """Where the vectors came from is kept; a name that stands twice, and metadata of another kind, are refused."""
    case = next(one for one in CASES if one.name == "saelens standard")
    folder = case.written(tmp_path / "one")
    assert read(folder).origin == "blocks.5.hook_resid_pre of gpt2"
    whole = json.dumps(NOW)
    for settings, why in (
        (whole[:-1] + ',"apply_b_dec_to_input":false}', "'apply_b_dec_to_input' twice"),
        (json.dumps(NOW | {"metadata": 5}), "metadata"),
        (json.dumps(NOW | {"foo": 1}), "cfg.json: 'foo'"),
    ):
        (folder / "cfg.json").write_text(settings)
        with pytest.raises(FileFormatError, match=why):
            read(folder)
    for name in ("sae_weights.safetensors", "cfg.json"):
        with pytest.raises(FileFormatError, match=f"Give the folder: {folder}"):
            read(folder / name)
    made = Dictionary(DictionarySettings(architecture="relu", width=2, features=3))
    with pytest.raises(UsageError):
        write(made, tmp_path / "one.pt")


# ---- what is no dictionary -------------------------------------------------------------------------------------------


class Ran:
    """What unpickling would run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, ("/tmp/ran-by-a-pickle",))


def pickled(path: Path, held: Any) -> None:
    torch.save(held, path)


def test_a_pickle_of_anything_but_tensors_is_refused_and_not_run(tmp_path: Path) -> None:
    good = next(case for case in CASES if case.name == "AutoEncoder").written(tmp_path / "good")
    held = torch.load(good / "ae.pt", weights_only=True)
    big = torch.zeros(1).expand(2**20, 2**20)
    wrong: list[Any] = [nn.Linear(2, 2), held | {"x": Ran()}, Ran(), [1, 2], held | {"x": 3}, {1: torch.ones(2)},
                        held | {"encoder.weight": big}, held | {"x": torch.ones(2).to_sparse()},
                        held | {"x": torch.device("meta")}, torch.ones(3), bytearray(4)]  # fmt: skip
    for what in wrong:
        pickled(good / "ae.pt", what)
        with pytest.raises(FileFormatError):
            read(good)
            pytest.fail(str(what)[:80])
    assert not os.path.exists("/tmp/ran-by-a-pickle")
    (good / "ae.pt").write_bytes(pickle.dumps(held))
    with pytest.raises(FileFormatError):
        read(good)
    torch.save(collections.OrderedDict(held), good / "ae.pt")
    whole = (good / "ae.pt").read_bytes()
    read(good)
    for cut in (0, 1, 100, len(whole) // 2, len(whole) - 1):
        (good / "ae.pt").write_bytes(whole[:cut])
        with pytest.raises(FileFormatError):
            read(good)
    with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(good / "ae.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(FileFormatError):
        read(good)
    (good / "ae.pt").write_bytes(b"")
    with zipfile.ZipFile(good / "ae.pt", "w") as new, warnings.catch_warnings(action="ignore"):
        new.writestr("archive/data.pkl", b"c__builtin__\nbytearray\n(J\xff\xff\xff\x7ftR.")  # a second one follows
        with zipfile.ZipFile(io.BytesIO(whole)) as old:
            for name in old.namelist():
                new.writestr(f"archive/{name.partition('/')[2]}", old.read(name))
    assert torch.equal(read(good).W_enc, W_ENC)
    with zipfile.ZipFile(good / "ae.pt", "w") as new:
        new.writestr("a/data.pkl", b"c__builtin__\nbytearray\n(J\xff\xff\xff\x7ftR.")
    with pytest.raises(FileFormatError, match="bytearray"):
        read(good)


def test_headers_that_promise_more_than_there_is_are_refused(tmp_path: Path) -> None:
    folder = CASES[0].written(tmp_path / "a")
    path = folder / "sae_weights.safetensors"
    whole = path.read_bytes()
    huge = json.dumps({"W_enc": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}}).encode()
    for data in (
        b"",
        b"\xff" * 8,
        b"\xff" * 64,
        whole[:50],
        whole[:-1],
        whole + b"0",
        len(huge).to_bytes(8, "little") + huge,
    ):
        path.write_bytes(data)
        with pytest.raises(FileFormatError):
            read(folder)
    path.write_bytes(whole)
    read(folder)
    for text in ("", "{", "[]", "null", "1", '{"d_in": NaN}', "[" * 10**5, '{"a":' * 10**5, "\x00", " " * (2**20 + 1)):
        (folder / "cfg.json").write_text(text)
        with pytest.raises(FileFormatError):
            read(folder)


def test_links_and_other_folders(tmp_path: Path) -> None:
    folder = CASES[0].written(tmp_path / "a")
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("cfg.json", "sae_weights.safetensors"):  # as the cache of a hub lays them out
        (linked / name).symlink_to(Path("..") / "a" / name)
    assert torch.equal(read(linked).W_enc, read(folder).W_enc)
    empty = tmp_path / "empty"
    empty.mkdir()
    for place in (empty, tmp_path, folder / "cfg.json", folder / "sae_weights.safetensors"):
        with pytest.raises(FileFormatError):
            read(place)
    (folder / "ae.pt").mkdir()
    with pytest.raises(FileFormatError):
        read(folder)
    with pytest.raises(MissingFile):
        read(folder / "ae.pt" / "ae.pt")
