"""The net of sentences about two people: its words, and that it solves the task."""

from typing import Any, ClassVar

import pytest
import torch

from wheeltap.core.choices import ChoiceTask, Tokenizer
from wheeltap.core.errors import DataError
from wheeltap.recipes.base import Given, specified
from wheeltap.recipes.make import once
from wheeltap.suites.dictionaries.nets import NAMES, TEMPLATES, IoiNet, tokenizer
from wheeltap.testing.recipe_contract import RecipeContract


class TestIoiNet(RecipeContract):
    test_killed_it_comes_to_the_same_bits = None  # it is Fit alone, as nets of other suites are
    recipe = IoiNet
    settings: ClassVar[dict[str, Any]] = {"steps": 4}
    other: ClassVar[dict[str, Any]] = {"steps": 5}


def test_words() -> None:
    """Names are single tokens, a text is its words, a strange word is named."""
    own = tokenizer()
    assert isinstance(own, Tokenizer)
    assert all(len(own.more(f" {name}")) == 1 for name in NAMES)
    text = TEMPLATES[0].format(A="Mary", B="John", S="John")
    assert text == "Then Mary and John went to the store. John gave a drink to"
    assert [own.words[at] for at in own.start(text)] == text.replace(".", " .").split()
    with pytest.raises(DataError, match="zeppelin"):
        own.start("Mary saw a zeppelin")


@pytest.mark.release
def test_it_names_the_indirect_object() -> None:
    """Among all names, in every template and both orders."""
    own = tokenizer()
    options = [own.more(f" {name}") for name in NAMES]
    asked = [
        (template, one, two, subject)
        for template in TEMPLATES for one in NAMES[:4] for two in NAMES[:4] if one != two for subject in (one, two)
    ]  # fmt: skip
    contexts = [own.start(template.format(A=one, B=two, S=subject)) for template, one, two, subject in asked]
    answers = [NAMES.index(two if subject == one else one) for _, one, two, subject in asked]
    task = ChoiceTask(contexts, [options] * len(asked), answers)
    net = once(Given(specified(IoiNet, seed=1)))
    assert float((task.scores(net).argmax(1) == torch.tensor(answers)).float().mean()) > 0.95
