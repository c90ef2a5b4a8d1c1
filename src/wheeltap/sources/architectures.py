"""What a Hugging Face folder holds, as its config says before anything is loaded."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from wheeltap.core.errors import ModelError

Kind = Literal["language", "text", "image"]
"""A causal language model; a classifier of texts; one of images."""

DOORS: dict[Kind, str] = {
    "language": "AutoModelForCausalLM",
    "text": "AutoModelForSequenceClassification",
    "image": "AutoModelForImageClassification",
}
"""The class of transformers that loads each kind."""

_WRAP = (
    "Write a function that returns a module in eval mode whose forward gives one row of scores per example, and audit "
    "that: wheeltap audit my_module:function --data FILE.npz."
)
_HEADS = {
    "MaskedLM": "a masked language model, which gives scores of words in a gap, not of options",
    "PreTraining": "a model as it was pretrained, with the heads of that",
    "NextSentencePrediction": "a model that tells whether a sentence follows another",
    "TokenClassification": "a classifier of tokens, which gives scores per token, not per example",
    "QuestionAnswering": "a model that finds answers in a text, with scores per token, not per example",
    "MultipleChoice": "a model that reads every choice as a text of its own",
    "CTC": "an audio model",
    "SpeechSeq2Seq": "an audio model",
    "ObjectDetection": "a detector, which gives boxes, not scores per example",
}
_PARTS = {
    "Audio": "an audio model",
    "Speech": "an audio model",
    "Segmentation": "a model of images that gives scores per pixel, not per example",
    "Depth": "a model of images that gives a number per pixel, not scores per example",
    "Video": "a model of videos",
    "MaskedImage": "a model of images as it was pretrained",
    "ZeroShot": "a model that compares images or sounds with texts",
}


@dataclass(frozen=True)
class Architecture:
    """What is known of a model before it is loaded.

    Attributes:
        name: Its class, as in ``BertForSequenceClassification``; empty where the config does not say.
        kind: What loads it.
        family: What transformers knows its config by, as in ``bert``.
        headless: Whether it was saved without the part that gives scores.
    """

    name: str
    kind: Kind
    family: str = ""
    headless: bool = False


def architecture_of(config: Mapping[str, Any], *, where: str) -> Architecture:
    """What kind of model the config describes.

    Args:
        config: The contents of ``config.json``.
        where: The folder.

    Raises:
        ModelError: If models of its kind cannot be audited as they stand; it says what can be done.
    """
    named: Any = config.get("architectures")
    name = str(cast("list[Any]", named)[0]) if isinstance(named, list) and named else ""
    if name.endswith("ForSequenceClassification"):
        _require_one_label(config, name, where)
        return Architecture(name, "text")
    if re.search(r"ForImageClassification(WithTeacher)?$", name):
        _require_one_label(config, name, where)
        return Architecture(name, "image")
    if config.get("is_encoder_decoder") is True:
        raise _refused(name, "an encoder-decoder model, which wheeltap cannot score items with", where)
    head = re.search(r"For([A-Z]\w*)$", name)
    if head and head[1] not in ("CausalLM", "ConditionalGeneration"):
        what = _HEADS.get(head[1]) or next((words for part, words in _PARTS.items() if part in head[1]), "")
        raise _refused(name, what or f"a model for {_spaced(head[1])}", where)
    headless = bool(re.search(r"(Model|Encoder)$", name)) and "LMHead" not in name
    return Architecture(name, "language", family=str(config.get("model_type", "")), headless=headless)


def require_language(found: Architecture, families: Collection[str], *, where: str) -> None:
    """Checks that a model can be loaded as a causal language model, where its class leaves that open.

    Args:
        found: What its config says.
        families: Those of which transformers has causal language models.
        where: The folder.

    Raises:
        ModelError: If it cannot.
    """
    if found.kind != "language" or found.family in families:
        return
    if found.headless:
        raise without_head(found.name, where=where)
    if found.name.endswith("ForConditionalGeneration"):
        raise _refused(found.name, "a model that reads more than text", where)


def without_head(name: str, *, where: str) -> ModelError:
    """The error of a model that was saved without the part that gives scores."""
    return ModelError(
        "The model has no head: it gives hidden states, not scores.",
        where=where,
        expected="a causal language model (...ForCausalLM), or a classifier (...ForSequenceClassification, "
        "...ForImageClassification)",
        got=f"architectures: {name}",
        do="Save the whole model, with the head that was trained; or wrap it with a head of your own. " + _WRAP,
    )


def _refused(name: str, what: str, where: str) -> ModelError:
    return ModelError(
        "Models of this kind cannot be audited as they are.",
        where=where,
        expected="a causal language model (...ForCausalLM), or a classifier (...ForSequenceClassification, "
        "...ForImageClassification)",
        got=f"architectures: {name or 'not named'}: {what}",
        do=_WRAP,
    )


def _require_one_label(config: Mapping[str, Any], name: str, where: str) -> None:
    if config.get("problem_type") == "multi_label_classification":
        raise ModelError(
            "The classifier gives several labels per example.",
            where=where,
            expected="one right label per example",
            got=f"architectures: {name}, problem_type: multi_label_classification",
            do="Ask one label: wrap the model so that it gives torch.stack([torch.zeros_like(z), z], dim=1) for that "
            "label's logit z, and name it module:callable.",
        )


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
