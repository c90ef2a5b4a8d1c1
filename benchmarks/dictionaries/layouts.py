"""Folders that the libraries themselves write, read here; and what is written here, read by SAELens.

    python -m benchmarks.dictionaries layouts

Needs sae-lens and dictionary-learning, each in its turn: a library that is not installed is left out.
"""

import importlib
import json
import tempfile
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wheeltap.suites.dictionaries.files import read, write

WIDTH, FEATURES, K = 16, 64, 5

Written = tuple[str, Path, Tensor, Tensor]
"""Its name, its folder, and the codes and vectors that the library gives."""


def drawn(model: nn.Module) -> nn.Module:
    """The module with other numbers."""
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn_like(parameter) / WIDTH**0.5
        if "threshold" in name:
            parameter.data = parameter.data.abs() + 0.2
    return model


def saelens(folder: Path, x: Tensor) -> Iterator[Written]:
    """Every architecture."""
    saes = importlib.import_module("sae_lens.saes")
    settings: dict[str, dict[str, Any]] = {"Standard": {}, "JumpReLU": {}, "Gated": {}, "TopK": {"k": K}}
    normalizations = ("none", "layer_norm", "constant_norm_rescale")
    for (kind, own), norm, center, lengths in product(settings.items(), normalizations, (True, False), (True, False)):
        if lengths and kind != "TopK":
            continue
        extra = own | ({"rescale_acts_by_decoder_norm": True} if lengths else {})
        config = getattr(saes, f"{kind}SAEConfig")(
            d_in=WIDTH, d_sae=FEATURES, normalize_activations=norm, apply_b_dec_to_input=center, **extra
        )
        sae: Any = drawn(getattr(saes, f"{kind}SAE")(config))
        name = f"saelens {kind} {norm} {'centered' if center else ''} {'lengths' if lengths else ''}".strip()
        sae.save_model(folder / name)
        codes = sae.encode(x)
        yield name, folder / name, codes, sae.decode(codes)
    for lengths in (True, False):
        config = saes.BatchTopKTrainingSAEConfig(d_in=WIDTH, d_sae=FEATURES, k=K, rescale_acts_by_decoder_norm=lengths)
        trained: Any = drawn(saes.BatchTopKTrainingSAE(config))
        trained.topk_threshold = torch.tensor(0.7, dtype=torch.float64)
        trained.save_inference_model(folder / f"inference {lengths}")
        trained.save_model(folder / f"training {lengths}")
        sae = saes.SAE.load_from_disk(folder / f"inference {lengths}")
        for kind in ("inference", "training"):
            codes = sae.encode(x)
            yield f"saelens BatchTopK {kind}", folder / f"{kind} {lengths}", codes, sae.decode(codes)


def dictionary_learning(folder: Path, x: Tensor) -> Iterator[Written]:
    """Every class of dictionaries."""
    homes = {"AutoEncoder": "dictionary", "AutoEncoderNew": "dictionary", "GatedAutoEncoder": "dictionary",
             "JumpReluAutoEncoder": "dictionary", "AutoEncoderTopK": "trainers.top_k",
             "BatchTopKSAE": "trainers.batch_top_k", "MatryoshkaBatchTopKSAE": "trainers.matryoshka_batch_top_k"}  # fmt: skip
    for kind, home in homes.items():
        made = getattr(importlib.import_module(f"dictionary_learning.{home}"), kind)
        counted = (K,) if home != "dictionary" else ()
        groups = ([16, 48],) if kind.startswith("Matryoshka") else ()
        model: Any = drawn(made(WIDTH, FEATURES, *counted, *groups))
        if counted:
            model.threshold.fill_(0.6)
        (folder / kind).mkdir()
        torch.save({name: tensor.cpu() for name, tensor in model.state_dict().items()}, folder / kind / "ae.pt")
        trainer = {"dict_class": kind, "activation_dim": WIDTH, "dict_size": FEATURES, "layer": 3, "lm_name": "gpt2",
                   "submodule_name": "resid", "lr": 1e-3, "steps": 10} | ({"k": K} if counted else {})  # fmt: skip
        (folder / kind / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"d_submodule": WIDTH}}))
        yield kind, folder / kind, model.encode(x), model(x)


@torch.no_grad()
def main(argv: list[str]) -> None:
    """Prints the largest difference of codes and of vectors, as shares of the largest of them."""
    del argv
    torch.manual_seed(0)
    x, furthest = torch.randn(100, WIDTH) * 2 + 0.2, 0.0
    libraries: tuple[Callable[[Path, Tensor], Iterator[Written]], ...] = (saelens, dictionary_learning)
    for library in libraries:
        with tempfile.TemporaryDirectory() as place:
            try:
                for name, folder, codes, vectors in library(Path(place), x):
                    one = read(folder)
                    far = [float((one.encode(x) - codes).abs().max() / codes.abs().max())]
                    far.append(float((one(x) - vectors).abs().max() / vectors.abs().max()))
                    if library is saelens:
                        write(one, Path(place) / "back")
                        back = importlib.import_module("sae_lens").SAE.load_from_disk(Path(place) / "back")
                        far.append(float((back(x) - vectors).abs().max() / vectors.abs().max()))
                    furthest = max(furthest, *far)
                    print(f"{name:50s}", " ".join(f"{value:.1e}" for value in far))
            except ImportError as error:
                print(f"{library.__name__}: left out, {error}")
    print(f"furthest: {furthest:.1e}")
    assert furthest < 1e-6
