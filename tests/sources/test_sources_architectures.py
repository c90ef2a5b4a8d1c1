"""What a Hugging Face folder holds, told from its config: what cannot be audited says what can be done."""

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import WORDS, save_tokenizer, tiny_bert, tiny_llama, tiny_vit

from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import MissingFile, ModelError
from wheeltap.sources import hf, load
from wheeltap.sources.hf import architecture_of


def described(**config: Any) -> str:
    """The message about a config."""
    with pytest.raises(ModelError) as caught:
        architecture_of(config, where="folder")
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("LlamaForCausalLM", "language"),
        ("GPT2LMHeadModel", "language"),
        ("XLMWithLMHeadModel", "language"),
        ("Gemma3ForConditionalGeneration", "language"),
        ("BertForSequenceClassification", "text"),
        ("ViTForImageClassification", "image"),
        ("DeiTForImageClassificationWithTeacher", "image"),
    ],
)
def test_kinds(name: str, kind: str) -> None:
    found = architecture_of({"architectures": [name]}, where="folder")
    assert (found.kind, found.headless) == (kind, False)


def test_a_config_that_names_no_architecture_is_taken_for_a_language_model() -> None:
    for config in ({}, {"architectures": None}, {"architectures": []}):
        assert architecture_of(config, where="folder").kind == "language"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True}, "an encoder-decoder model"),
        ({"architectures": ["WhisperForConditionalGeneration"], "is_encoder_decoder": True}, "an encoder-decoder"),
        ({"architectures": ["BertForMaskedLM"]}, "a masked language model"),
        ({"architectures": ["BertForPreTraining"]}, "as it was pretrained"),
        ({"architectures": ["BertForTokenClassification"]}, "scores per token"),
        ({"architectures": ["BertForQuestionAnswering"]}, "scores per token"),
        ({"architectures": ["Wav2Vec2ForCTC"]}, "an audio model"),
        ({"architectures": ["ASTForAudioClassification"]}, "an audio model"),
        ({"architectures": ["DetrForObjectDetection"]}, "a detector"),
        ({"architectures": ["SegformerForSemanticSegmentation"]}, "scores per pixel"),
        ({"architectures": ["TimesformerForVideoClassification"]}, "a model of videos"),
        ({"architectures": ["PatchTSTForPrediction"]}, "a model for prediction"),
    ],
)
def test_what_cannot_be_audited_is_named_and_says_what_can_be_done(config: dict[str, Any], words: str) -> None:
    text = described(**config)
    assert config["architectures"][0] in text and words in text
    assert "my_module:function" in text and "AutoModel" not in text


def test_several_labels_per_example() -> None:
    text = described(architectures=["BertForSequenceClassification"], problem_type="multi_label_classification")
    assert "several labels" in text and "torch.stack" in text


def save(model: Any, folder: Path) -> str:
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return f"hf:{folder}"


def test_a_real_encoder_decoder(tmp_path: Path) -> None:
    transformers = hf.library(needed_for="tests")
    config = transformers.T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    with hf.quiet(transformers):
        spec = save(transformers.T5ForConditionalGeneration(config), tmp_path / "t5")
    with pytest.raises(ModelError, match=r"T5ForConditionalGeneration: an encoder-decoder model"):
        load(spec)


def test_models_without_a_head(tmp_path: Path) -> None:
    folders = {
        "bert": save(tiny_bert("BertModel"), tmp_path / "bert"),
        "vit": save(tiny_vit("ViTModel"), tmp_path / "vit"),
    }
    for kind, spec in folders.items():
        with pytest.raises(ModelError, match=rf"no head(.|\n)*{kind}(.|\n)*(Bert|ViT)Model"):
            load(spec)


def test_a_decoder_whose_head_is_its_embedding_needs_no_other(tmp_path: Path) -> None:
    model = tiny_llama()
    spec = save(model.model, tmp_path / "tied")
    config = json.loads((tmp_path / "tied" / "config.json").read_text())
    assert config["architectures"] == ["LlamaModel"]
    assert isinstance(load(spec).task, ChoiceTask)
    (tmp_path / "tied" / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    with pytest.raises(ModelError, match="no head"):
        load(spec)


def test_the_architecture_is_read_before_anything_else(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ModelError, match="BertForMaskedLM"):
        load(f"hf:{tmp_path}")


def test_more_kinds_of_input_than_text(tmp_path: Path) -> None:
    model = tiny_llama()
    spec = save(model, tmp_path / "both")
    config = json.loads((tmp_path / "both" / "config.json").read_text())
    both = {**config, "architectures": ["BlipForConditionalGeneration"], "model_type": "blip"}
    (tmp_path / "both" / "config.json").write_text(json.dumps(both))
    with pytest.raises(ModelError, match="BlipForConditionalGeneration: a model that reads more than text"):
        load(spec)


def test_an_adapter_is_told_to_be_merged(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(MissingFile, match="merge_and_unload"):
        load(f"hf:{tmp_path}")
