"""Prompts with wanted answers, and how a model generates its own: ``generate:FILE``, with settings behind commas."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

from wheeltap.core.bounded import Npz, decoded
from wheeltap.core.errors import DataError
from wheeltap.core.generated import GenerationTask, OwnTokenizer
from wheeltap.sources.arrays import annotated, load_sequences
from wheeltap.sources.base import DataSource, ExampleReader
from wheeltap.sources.hf import HfTokenizer
from wheeltap.sources.jsonl import LineNotes, Notes, first, lines

_LINE: Final = 'an object such as {"prompt": "2 + 2 =", "answer": "4"}, texts or token ids'


@final
class GeneratedAnswers(DataSource):
    """Prompts and wanted answers in a file."""

    form = "generate:FILE"
    title = "Prompts and wanted answers (.jsonl, .npz), perhaps with settings: generate:FILE,tokens=64,chains=8."
    takes_groups = True

    def fits(self, path: Path, reader: ExampleReader) -> bool:
        """Whether the first line has a prompt, or there is an array of them."""
        if path.suffix == ".npz" and path.is_file():
            with Npz(path, "data file", do="Write it again, with numpy.savez.") as archive:
                return "prompts" in archive.names
        return path.suffix == ".jsonl" and path.is_file() and "prompt" in first(path)

    def load(self, rest: str, reader: ExampleReader) -> GenerationTask:
        """See ``DataSource.load``."""
        name, *pairs = rest.split(",")
        settings = {key: value.replace("\\n", "\n") for key, _, value in (pair.partition("=") for pair in pairs)}
        path = Path(name)
        if path.suffix != ".npz":
            return _of_lines(path, reader, settings)
        # Arrays [example, position] of token ids, filled up with -1.
        both: list[Any] = [load_sequences(path, name).tolist() for name in ("prompts", "answers")]  # pyright: ignore
        prompts, answers = ([[token for token in row if token >= 0] for row in rows] for rows in both)
        return annotated(
            GenerationTask(prompts, answers, name=path.stem, decoding=settings), path, groups=reader.groups
        )


class PromptLine(LineNotes, frozen=True, kw_only=True):
    """One line.

    Attributes:
        prompt: What the model goes on from, a text or token ids.
        answer: What is wanted: beside a text a text or a number, else token ids.
        choices: None: an answer is generated, and not chosen.
    """

    prompt: str | list[int]
    answer: str | int | float | list[int]
    choices: Any = None


def _of_lines(path: Path, reader: ExampleReader, decoding: Mapping[str, str]) -> GenerationTask:
    prompts, answers, notes = list[Any](), list[Any](), Notes(reader.groups)
    for number, line in lines(path):
        where = f"{path}: line {number}"
        read = decoded(line, PromptLine, where, "A line has no prompt and answer.", expected=_LINE)
        if read.choices is not None:
            raise DataError(
                "A line has a prompt, whose answer is generated, and choices, of which one is chosen.", where=where,
                expected=f'{_LINE}; or {{"context": "2 + 2 =", "choices": [" 4", " 5"], "answer": 0}}',
                got="prompt and choices", do="Call the prompt context, or leave the choices out.",
            )  # fmt: skip
        if isinstance(read.prompt, str) is isinstance(read.answer, list):
            got = repr(read.answer)[:120]
            raise DataError("An answer is not of the kind of its prompt.", where=where, expected=_LINE, got=got)
        prompts.append(read.prompt)
        answers.append(read.answer)
        notes.add(read, line, where=where)
    raw: Any = reader.tokenizer.raw if isinstance(reader.tokenizer, HfTokenizer | OwnTokenizer) else None
    return notes.added_to(GenerationTask(prompts, answers, tokenizer=raw, decoding=decoding, name=path.stem))
