"""What a Hugging Face folder holds, told from its config: what cannot be audited says what can be done."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import save_tokenizer, tiny_bert, tiny_llama, tiny_vit

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import MissingFile, ModelError
from wheeltap.sources import load
from wheeltap.sources.hf import architecture_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("LlamaForCausalLM", "language"),
        ("Gemma3ForConditionalGeneration", "language"),
        ("BertForSequenceClassification", "text"),
        ("ViTForImageClassification", "image"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    found = architecture_of({"architectures": [name]}, where="folder")
    assert (found.kind, found.headless) == (kind, False)


def test_a_config_that_names_no_architecture_is_taken_for_a_language_model() -> None:
    for config in ({}, {"architectures": None}, {"architectures": []}):
        assert architecture_of(config, where="folder").kind == "language"


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("T5ForConditionalGeneration", {"is_encoder_decoder": True}),
        ("BertForMaskedLM", {}),
        ("DetrForObjectDetection", {}),
        ("BertForSequenceClassification", {"problem_type": "multi_label_classification"}),
    ],
)
def test_an_architecture_that_cannot_be_audited_is_named(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=name):
        architecture_of({"architectures": [name], **settings}, where="folder")


def test_folders_of_models_that_cannot_be_audited(tmp_path: Path) -> None:
    for model in (tiny_bert("BertModel"), tiny_vit("ViTModel")):
        folder = tmp_path / type(model).__name__.lower()
        model.save_pretrained(folder)
        save_tokenizer(folder)
        with pytest.raises(ModelError, match=type(model).__name__):
            load(f"hf:{folder}")
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text("{}")
    with pytest.raises(MissingFile, match="merge_and_unload"):
        load(f"hf:{tmp_path / 'adapter'}")


def test_a_decoder_whose_head_is_its_embedding_needs_no_other(tmp_path: Path) -> None:
    tiny_llama().model.save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architectures"] == ["LlamaModel"]
    assert isinstance(load(f"hf:{tmp_path}").task, ChoiceTask)
    for change in (
        {"tie_word_embeddings": False},
        {"architectures": ["BlipForConditionalGeneration"], "model_type": "blip"},
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ModelError):
            load(f"hf:{tmp_path}")
