"""Tasks of pairs: a context, the same one corrupted in one token, and the token that should follow either.

From lines that look like Python, from the agreement task, or from a user's ``.jsonl`` file: one object a line with
``clean``, ``corrupted``, ``answer`` and ``wrong``, as text or as token ids.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, cast, final

import msgspec

from wheeltap.core.bounded import decoded
from wheeltap.core.choices import ChoiceTask, Tokenizer
from wheeltap.core.errors import DataError, UnknownName, UsageError
from wheeltap.sources import agreement as sentences
from wheeltap.sources import jsonl
from wheeltap.sources.base import DataSource, ExampleReader
from wheeltap.sources.grammar import PEOPLE, THINGS
from wheeltap.suites.circuits.nets import python
from wheeltap.suites.circuits.nets.python import Variant, decode
from wheeltap.suites.circuits.pairs import Pairs, Tokens, require_pair
from wheeltap.suites.circuits.specs import TASKS

COUNT: Final = 512
"""Pairs of a task on Python-like lines: half of them to search on, half of them held out."""

REFERENCE: Final = 512
"""Sequences of the corpus that means are taken over."""

CONSTRUCTIONS: Final = ("simple", "prepositional", "two_prepositions", "object_relative")
"""Of the agreement task: those in which the subject alone has the subject's number."""

EXAMPLE: Final = '{"clean": "The dog", "corrupted": "The dogs", "answer": " is", "wrong": " are"}'


def task(pairs: Pairs, *, name: str) -> ChoiceTask:
    """Clean contexts with the answer and the wrong answer, in the order of their numbers, as options.

    The pairs are its annotation; corrupted contexts serve the estimates of layer moments.
    """
    options = [sorted(both) for both in zip(pairs.answer, pairs.wrong, strict=True)]
    made = ChoiceTask(
        pairs.clean,
        [[[one], [two]] for one, two in options],
        [both.index(answer) for both, answer in zip(options, pairs.answer, strict=True)],
        name=name,
        more=pairs.corrupted,
    )
    return made.with_annotation(pairs)


_Some = tuple[str, Variant, int]
"""Pairs of which task, in which variant, how many."""


def python_task(name: str, *, count: int = COUNT) -> ChoiceTask:
    """A built-in task on Python-like lines, in ids of ``nets.python.TOKENS``.

    A quarter as many rephrased pairs follow, with the factor ``rephrased``; means are over the corpus.

    Raises:
        UnknownName: If there is no such task.
    """
    return _marked([(name, "plain", count), (name, "rephrased", count // 4)], name=name)


def python_suite(*, count: int = COUNT) -> ChoiceTask:
    """All built-in tasks, a group each in the order of ``TASKS``, and equally many nonsense ones after these.

    In a nonsense task the label follows from an irrelevant token.
    """
    variants: tuple[tuple[Variant, int], ...] = (("plain", count), ("rephrased", count // 4), ("irrelevant", count))
    asked: list[_Some] = [(name, variant, some) for name in TASKS for variant, some in variants]
    made = _marked(asked, name="Python-like lines")
    groups = [
        TASKS.index(name) + len(TASKS) * (variant == "irrelevant") for name, variant, some in asked for _ in range(some)
    ]
    return made.with_behaviors(groups)


def _marked(asked: Sequence[_Some], *, name: str) -> ChoiceTask:
    """Pairs of several kinds, one after another, of which it is known which are rephrased."""
    parts = [
        Pairs.of(python.pairs(one, seed=0, count=count, variant=variant, split="test")) for one, variant, count in asked
    ]
    corpus = python.corpus(seed=0, sequences=REFERENCE)
    rows = [row for part in parts for row in zip(part.clean, part.corrupted, part.answer, part.wrong, strict=True)]
    pairs = Pairs(
        *zip(*rows, strict=True), reference=tuple(tuple(map(int, row)) for row in corpus),
        texts=tuple((decode(one), decode(two), decode([answer]), decode([wrong])) for one, two, answer, wrong in rows),
    )  # fmt: skip
    marks = [int(variant == "rephrased") for _, variant, count in asked for _ in range(count)]
    return task(pairs, name=name).with_factors({"rephrased": marks})


def agreement_pairs(tokenizer: Tokenizer, *, each: int = sentences.PER_CONSTRUCTION) -> Pairs:
    """Minimal pairs: "The farmer near the bridges" and "The farmers near the bridges", with " walks" and " walk".

    Agreement of the verb with its subject, whose number the corrupted context changes.

    Args:
        tokenizer: The model's.
        each: Sentences of each of ``CONSTRUCTIONS``, before those are dropped that do not differ in one token.

    Raises:
        DataError: If none is left.
    """
    found = [item for item in sentences.pairs(seed=0, each=each) if item.construction in CONSTRUCTIONS]
    kept: list[tuple[Tokens, Tokens, int, int]] = []
    texts: list[tuple[str, str, str, str]] = []
    for item in found:
        contexts = (item.context, _other_number(item.context))
        clean, corrupted = (tuple(tokenizer.start(text)) for text in contexts)
        answer, wrong = (tokenizer.more(item.choices[at]) for at in (item.answer, 1 - item.answer))
        differ = sum(one != two for one, two in zip(clean, corrupted, strict=False))
        if len(clean) == len(corrupted) and differ == 1 and len(answer) == len(wrong) == 1 and answer != wrong:
            kept.append((clean, corrupted, answer[0], wrong[0]))
            texts.append((*contexts, item.choices[item.answer], item.choices[1 - item.answer]))
    if not kept:
        raise DataError(
            "No pair of the agreement task differs in one token.",
            where="agreement pairs",
            expected="a tokenizer with one token for a noun's singular, its plural and each form of a verb",
            got=f"{len(found)} pairs, none of them so",
            do="Give pairs of your own in a .jsonl file.",
        )
    return Pairs(*zip(*kept, strict=True), texts=tuple(texts))


_OTHER: Final = {one: two for noun in (*PEOPLE, *THINGS) for one, two in (noun, noun[::-1])}
"""Each form of a subject: its other number."""


def _other_number(context: str) -> str:
    """The same start of a sentence, with a subject of the other number."""
    opener, comma, clause = context.rpartition(", ")
    said = clause.split(" ")
    # A determiner, perhaps an adjective, the noun; "patient" is both: it is the noun where no noun follows.
    at = 2 if len(said) > 2 and said[2] in _OTHER else 1
    said[at] = _OTHER[said[at]]
    return opener + comma + " ".join(said)


_Id = Annotated[int, msgspec.Meta(ge=0)]


class PairLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a user's file; text, or token ids.

    Attributes:
        clean: A context.
        corrupted: The same one with another token in one place.
        answer: One token: what should follow ``clean``. Text keeps its leading space: ``" is"`` after ``"The dog"``.
        wrong: What should follow ``corrupted``.
    """

    clean: str | list[_Id]
    corrupted: str | list[_Id]
    answer: str | _Id
    wrong: str | _Id


def load(path: Path, tokenizer: Tokenizer | None = None) -> ChoiceTask:
    """A task of the pairs in ``path``.

    Args:
        path: A ``.jsonl`` file.
        tokenizer: The model's; not needed where the file has token ids.

    Raises:
        MissingFile: If the file is not there.
        FileFormatError: If a line is no pair of texts or token ids; it is named by its number, from 1.
        DataError: If there are no lines, one is too long, contexts are not equally long or differ in more than one
            place, an answer is not one token, or a token is unknown.
    """
    read = [_pair(line, tokenizer, f"{path}: line {number}") for number, line in jsonl.lines(path)]
    if not read:
        raise DataError(
            "The file has no pairs.",
            where=str(path),
            expected=f"lines such as {EXAMPLE}",
            got="no lines",
            do="Write one object a line.",
        )
    rows, texts = zip(*read, strict=True)
    known = tuple(one for one in texts if one is not None)
    pairs = Pairs(*zip(*rows, strict=True), texts=known if len(known) == len(rows) else ())
    return task(pairs, name=path.stem)


_Row = tuple[Tokens, Tokens, int, int]
_Text = tuple[str, str, str, str]


def _pair(line: bytes, tokenizer: Tokenizer | None, where: str) -> tuple[_Row, _Text | None]:
    """A pair as token ids, and as text where it is given so."""
    held = decoded(line, PairLine, where, "A line is no pair.", expected=f"an object such as {EXAMPLE}",
                   do="Correct or remove the line.")  # fmt: skip

    def tokens(given: str | list[int] | int, what: str, *, start: bool = False) -> list[int]:
        """Token ids of a field."""
        if not isinstance(given, str):
            return [given] if isinstance(given, int) else given
        if tokenizer is None:
            raise DataError(
                "A pair is text, and the model has no tokenizer.",
                where=f"{where}: {what}",
                expected="lists of token ids",
                got=repr(given[:40]),
                do="Write token ids, or give a model that comes with its tokenizer.",
            )
        try:
            return tokenizer.start(given) if start else tokenizer.more(given)
        except DataError as error:
            raise error.at(f"{where}: {what}") from error

    clean, corrupted = (
        tuple(jsonl.bounded(list(tokens(given, "context", start=True)), "context", where))
        for given in (held.clean, held.corrupted)
    )
    follow: list[int] = []
    for given, what in ((held.answer, "answer"), (held.wrong, "wrong answer")):
        ids = tokens(given, what)
        if len(ids) != 1:
            raise DataError(
                "An answer of a pair is not one token.",
                where=f"{where}: {what}",
                expected="one token",
                got=f"{given!r:.60}: {len(ids)} tokens",
                do="Choose a word that the tokenizer has as a whole, with its leading space.",
            )
        follow += ids
    require_pair(clean, corrupted, (follow[0], follow[1]), where=where, places=1)
    text = (held.clean, held.corrupted, held.answer, held.wrong)
    known = cast("_Text", text) if all(isinstance(one, str) for one in text) else None
    return (clean, corrupted, follow[0], follow[1]), known


@final
class PairData(DataSource):
    """Pairs by their name, or in a file."""

    form = "pairs:NAME"
    title = (
        f"Pairs of prompts for circuits: {', '.join(TASKS)}, agreement; or FILE.jsonl with clean, "
        "corrupted, answer, wrong."
    )

    def fits(self, path: Path, reader: ExampleReader) -> bool:
        """By the first line: an object with a clean and a corrupted context."""
        return path.suffix == ".jsonl" and {"clean", "corrupted"} <= jsonl.first(path).keys()

    def load(self, rest: str, reader: ExampleReader) -> ChoiceTask:
        """The task of pairs with this name: one of ``TASKS``, ``agreement``, or a ``.jsonl`` file.

        Raises:
            UnknownName: If there is none.
            DataError: If a line of the file is no pair.
            UsageError: If it is text, and the model reads none.
        """
        if rest in TASKS:
            return python_task(rest)
        if rest.endswith(".jsonl"):
            return load(Path(rest), reader.tokenizer)
        if rest != "agreement":
            raise UnknownName("task of pairs", rest, (*TASKS, "agreement"))
        if reader.tokenizer is None:
            raise UsageError(
                "The pairs of this task are text.",
                where=f"pairs:{rest}",
                expected="a language model with its tokenizer: smollm2, hf:DIR or gguf:FILE",
                got="a model that reads no text",
            )
        return task(agreement_pairs(reader.tokenizer), name="agreement pairs")
