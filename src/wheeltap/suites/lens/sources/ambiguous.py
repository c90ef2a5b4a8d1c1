"""Ambiguous premises and hypotheses as a task for language models: labels, statements, sentences to go on from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from wheeltap.core.choices import ChoiceTask, Tokenizer
from wheeltap.core.errors import DataError
from wheeltap.suites.lens.ambiguity import Ambiguity, AmbiguousSentence, Tokens
from wheeltap.suites.lens.specs import LABELS, TEMPLATES, Label

QUESTION: Final = "{premise}\nQuestion: {hypothesis} True, False or Neither?\nAnswer:"
"""What labels are asked by, with an answer for each: lm-eval's words for ANLI."""

ANSWERS: Final[Mapping[Label, str]] = {"entailment": " True", "neutral": " Neither", "contradiction": " False"}

STATEMENT: Final = "Q: {sentence} {template} {reading} True or False?\nA:"
"""Source: arXiv:2304.14399, app. D.2."""

OPTIONS: Final = (" False", " True")

STEM: Final = '"'
"""What comes before a sentence that is gone on from: of a base model. Source: arXiv:2304.14399, sec. 4.3."""

ENDS: Final = (".", "!", "?", '."', '!"', '?"', ".\n", ".\n\n", '."\n', '."\n\n', "!\n", "?\n", "\n", "\n\n")
"""How a sentence ends, each where a tokenizer has a token for it."""

SIDES: Final = ("premise", "hypothesis")


@final
@dataclass(frozen=True)
class Several:
    """The readings of one ambiguous sentence.

    Attributes:
        readings: A sentence for each, all different.
        distractor: A sentence that is no reading.
    """

    readings: tuple[str, ...]
    distractor: str


@final
@dataclass(frozen=True, kw_only=True)
class Example:
    """One item.

    Attributes:
        id: Its identifier.
        premise: What is given.
        hypothesis: What is asked of it.
        labels: Labels that are right under some reading, the first reading's first; each once.
        readings: Of ``premise``, of ``hypothesis`` or of both, where these are ambiguous.
        kind: What makes it ambiguous, where that is known.
    """

    id: str
    premise: str
    hypothesis: str
    labels: tuple[Label, ...]
    readings: Mapping[str, Several] = field(default_factory=dict[str, Several])
    kind: str = ""

    def side(self, name: str) -> str:
        """The premise or the hypothesis."""
        return self.premise if name == "premise" else self.hypothesis


def task_of(examples: Sequence[Example], tokenizer: Tokenizer, *, name: str) -> ChoiceTask:
    """The labels of these examples as a task, with what is known of their readings.

    A benchmark of one label an item would keep that of the first reading: this is what the score counts as right.

    Raises:
        DataError: If there are no examples, or the tokenizer joins the end of a question with its answer.
    """
    if not examples:
        raise DataError("There are no examples.", where=name, expected="one item at least", got="none")
    questions = [QUESTION.format(premise=one.premise, hypothesis=one.hypothesis) for one in examples]
    labels = [answer(tokenizer, questions[0], ANSWERS[label], where=name) for label in LABELS]
    stated = STATEMENT.format(sentence="It rained.", template=TEMPLATES[0][0], reading="It rained.")
    false, true = (answer(tokenizer, stated, option, where=name) for option in OPTIONS)
    ends = [tokenizer.more(text) for text in ENDS]
    known = Ambiguity(
        sentences=tuple(_sentences(one, tokenizer) for one in examples),
        statements=tuple(_statements(one, tokenizer) for one in examples),
        options=(false, true), ends=frozenset(one[0] for one in ends if len(one) == 1),
        labels=tuple(tuple(label in one.labels for label in LABELS) for one in examples),
    )  # fmt: skip
    task = ChoiceTask(
        [tokenizer.start(question) for question in questions], [labels] * len(examples),
        [LABELS.index(one.labels[0]) for one in examples], name=name, tokens_per_batch=2048,
    )  # fmt: skip
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(one.kind for one in examples))}
    grouped = task.with_behaviors([kinds[one.kind] for one in examples]) if len(kinds) > 1 else task
    return grouped.with_annotation(known)


def answer(tokenizer: Tokenizer, question: str, option: str, *, where: str) -> Tokens:
    """The tokens of an answer after a question, where those of the question stay as they are.

    Raises:
        DataError: If the last token of the question is another one when an answer follows.
    """
    before, whole = tokenizer.start(question), tokenizer.start(question + option)
    if whole[: len(before)] != before or len(whole) == len(before):
        raise DataError(
            "The tokenizer joins the end of a question with its answer.",
            where=where,
            expected=f"the tokens of ...{question[-9:]!r} and then those of {option!r}",
            got=f"other tokens where both are together ({len(before)} and {len(whole)}): the answer cannot be scored",
            do="Audit a model whose tokenizer splits before a space, or at a line's end.",
        )
    return tuple(whole[len(before) :])


def _sentences(one: Example, tokenizer: Tokenizer) -> tuple[AmbiguousSentence, ...]:
    def start(sentence: str) -> Tokens:
        return tuple(tokenizer.start(STEM + sentence))

    return tuple(
        AmbiguousSentence(
            side=SIDES.index(side), sentence=start(one.side(side)),
            readings=tuple(map(start, several.readings)), distractor=start(several.distractor),
        )
        for side, several in sorted(one.readings.items(), key=lambda each: SIDES.index(each[0]))
    )  # fmt: skip


def _statements(one: Example, tokenizer: Tokenizer) -> tuple[tuple[Tokens, ...], ...]:
    """Of the premise's readings first."""
    return tuple(
        tuple(
            tuple(tokenizer.start(STATEMENT.format(sentence=one.side(side), template=template, reading=reading)))
            for template, _ in TEMPLATES
        )
        for side in SIDES
        if side in one.readings
        for reading in one.readings[side].readings
    )
