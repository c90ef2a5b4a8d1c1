"""Generated answers: prompts that a model goes on from, greedily or in sampled chains, each answer graded."""

import copy
import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Self, cast, final
from zlib import crc32

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from wheeltap.core import canon, seeds
from wheeltap.core.choices import ChoiceTask
from wheeltap.core.errors import UsageError
from wheeltap.core.inputs import as_scores, require_short
from wheeltap.core.measure import FunctionMeasure, Measure, named
from wheeltap.core.measures import grades
from wheeltap.core.plain import many, plain
from wheeltap.core.records import TaskRecord
from wheeltap.core.settings import name_of
from wheeltap.core.task import BaseTask, Moments
from wheeltap.core.typed import first_of, to_tensor

TOKENS: Final = 32  # of a text, at most, where nothing else is asked for


class AnswerTask(BaseTask):
    """Examples whose answers are graded, with right answers: these are trained on, and read for layer moments."""

    _taught: ChoiceTask
    _rows: list[int]

    @property
    def tokens(self) -> int:
        """See ``BaseTask.tokens``."""
        return self._taught.tokens

    @property
    def moment_passes(self) -> float:
        """See ``BaseTask.moment_passes``."""
        return self._taught.moment_passes

    def part(self, index: Tensor) -> Self:
        """See ``BaseTask.part``."""
        part = copy.copy(self)
        part._rows = [self._rows[int(at)] for at in index]
        part._taught = self._taught.part(index)
        part.targets = self.targets[index.cpu()]
        return part._annotated(self.annotations.part(index.cpu()))

    def loss(self, model: nn.Module, index: Tensor | None = None, *, targets: Tensor | None = None) -> Tensor:
        """Mean negative log-likelihood of the right answer's tokens, summed per example, in nats."""
        return self._taught.loss(model, index)

    def require_readable(self, model: nn.Module) -> None:
        """See ``ChoiceTask.require_readable``."""
        self._taught.require_readable(model)

    def moments(self) -> Iterator[Moments]:
        """See ``ChoiceTask.moments``."""
        return self._taught.moments()


# ---- text to tokens and back ----------------------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class OwnTokenizer:
    """A tokenizer of another package, or of the user's own, as a ``choices.Tokenizer``.

    Attributes:
        raw: With ``encode`` and ``decode``; ``None`` where tokens have no text: each is a character then.
        own: The token that ends a text, where ``raw`` has no ``eos_token_id``.
    """

    raw: Any
    own: int | None = None

    @property
    def end(self) -> int | None:
        """The token that ends a text, if there is one."""
        return getattr(self.raw, "eos_token_id", self.own)

    def start(self, text: str) -> list[int]:
        """See ``Tokenizer.start``."""
        try:
            ids = grades.tokens_of(text) if self.raw is None else [int(one) for one in self.raw.encode(text)]
        except (ValueError, TypeError, LookupError) as error:
            said = f"{type(error).__name__}: {error}"
            raise ValueError(f"the tokenizer fails on {plain(text)[:60]!r} ({said})") from error
        return ids[:-1] if ids and ids[-1] == self.end else ids

    def more(self, text: str) -> list[int]:
        """See ``Tokenizer.more``."""
        ids = self.start(text)
        return ids[1:] if ids and ids[0] == getattr(self.raw, "bos_token_id", None) else ids

    def text(self, ids: list[int]) -> str:
        """What tokens say, up to the end."""
        ids = ids[: ids.index(self.end)] if self.end in ids else ids
        return grades.characters(ids) if self.raw is None else str(self.raw.decode(ids))


# ---- the task -------------------------------------------------------------------------------------------------------


class GenerationSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How answers are generated.

    Attributes:
        tokens: At most so many: by default 32 for texts, else those of the longest wanted answer.
        chains: Samples for each prompt.
        temperature: Of sampling, 0 for greedy answers; by default 1 where there are several chains, else 0.
        end: What ends an answer beside the tokenizer's end token: a text, or a token where prompts are tokens.
        after: An answer is what follows the last of these; by default everything.
    """

    tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    chains: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    temperature: Annotated[float, msgspec.Meta(ge=0.0, le=1000.0)] | None = None
    end: int | str = ""
    after: int | str = ""


@final
class GenerationTask(AnswerTask):
    """Prompts with the answers that are wanted; a model's own are graded by a measure, exact match by default.

    Answers are greedy, or samples by noise of example, chain and step alone, which a disturbed model meets too.

    Args:
        prompts: Texts; or token ids of each.
        answers: What is wanted: texts or numbers; beside token ids, such.
        tokenizer: Of texts: whatever has ``encode`` and ``decode``.
        decoding: Fields of ``GenerationSettings``, such as ``{"chains": 8}``.
        name: For reports.

    Raises:
        DataError: If there is no example, or one is empty.
        UsageError: If texts have no tokenizer, a setting cannot be used, or nothing says where an answer ends.
    """

    def __init__(
        self, prompts: Sequence[str] | Sequence[Sequence[int]], answers: Sequence[Any], *,
        tokenizer: Any = None, decoding: Mapping[str, Any] | None = None, name: str = "prompts",
    ) -> None:  # fmt: skip
        self.name, self.tokens_per_batch = name_of(name), 1024
        given: list[Any] = list(prompts)
        of_text = any(isinstance(one, str) for one in given)
        try:
            if of_text and (tokenizer is None or not all(isinstance(one, str) for one in given)):
                raise ValueError("text and no tokenizer" if tokenizer is None else "token ids among texts")
            self.how = how = msgspec.convert(dict(decoding or {}), GenerationSettings, strict=False)
            self._heat = float(how.chains > 1) if how.temperature is None else how.temperature
            if how.chains > 1 and not self._heat:
                raise ValueError("all chains are the same at temperature 0")
            last, self._stop, self._after = None, str(how.end), str(how.after)
            if not of_text:
                last, self._stop = int(how.end) if self._stop else None, ""
                self._after = grades.characters([int(how.after)]) if self._after else ""
                given, answers = [grades.characters(one) for one in given], [grades.characters(one) for one in answers]
            self._text = text = OwnTokenizer(tokenizer if of_text else None, last)
            self._prompts = [tuple(text.start(one)) for one in given]
            right = [(*text.more(str(one)), *(() if text.end is None else (text.end,))) for one in answers]
            self._cuts, most = of_text or text.end is not None, max(map(len, right), default=1)
            if not self._cuts and how.tokens is None and any(len(one) < most for one in right):
                raise ValueError("answers of several lengths, and nothing that ends one: end=TOKEN, or tokens=N")
        except (ValueError, TypeError) as error:
            raise UsageError(
                "Answers cannot be generated.", where=self.name, got=str(error),
                expected="texts, and a model that brings its tokenizer (return net, tokenizer); or rows of token ids; "
                f"settings among {', '.join(GenerationSettings.__struct_fields__)}",
                do="See docs/measures.md: generate:FILE,tokens=64,chains=8,temperature=0.8.",
            ) from error  # fmt: skip
        self._most = how.tokens or (TOKENS if of_text else most)
        self._wanted = list(answers) if of_text else [text.text(grades.tokens_of(one)) for one in answers]
        self._taught = ChoiceTask(self._prompts, [[one, one] for one in right], [0] * len(right), name=self.name)
        self._rows, self.targets = list(range(len(right))), torch.ones(len(right), grades.NUMBERS + how.chains)
        self.grade: grades.AnswerGrade = self.scored_by("exact_match").grade
        self.measure = self.grade

    # ---- how it is graded --------------------------------------------------------------------------------------

    def scored_by(self, measure: Measure | str) -> Self:
        """The same examples, graded by one of our measures, or by a function of what was said and what is wanted.

        Raises:
            UnknownName: If no measure has this name.
            UsageError: If it does not grade answers.
        """
        one, other = named(measure, where=self.name), copy.copy(self)
        if isinstance(one, FunctionMeasure):
            one = grades.Pass(one.function, name=one.name, of_tokens=self._text.raw is None)
        if not isinstance(one, grades.AnswerGrade):
            raise UsageError(
                f"The measure {one.name} does not fit generated answers.", where=self.name, got=one.name,
                expected="exact_match, contains, or a function of what was said and what is wanted (module:callable)",
            )  # fmt: skip
        other.measure = other.grade = copy.copy(one)
        if not isinstance(one, grades.Pass):  # always giving the answer that is wanted most often
            common = Counter(str(wanted).strip() for wanted in self._wanted).most_common(1)[0][0]
            other.grade.by_chance = sum(one.right(common, wanted) for wanted in self._wanted) / len(self._wanted)
        return other

    @property
    def measures(self) -> tuple[Measure, ...]:
        """See ``BaseTask.measures``; how chains agree too."""
        return (self.measure, *((grades.ChainAgreement(),) if self.how.chains > 1 else ()))

    @property
    def adaptive(self) -> bool:
        """See ``BaseTask.adaptive``."""
        return True

    @property
    def record(self) -> TaskRecord:
        """See ``BaseTask.record``; with how answers are made and graded."""
        chains = many(self.how.chains, "chain")
        how = f"{chains} sampled at temperature {self._heat:g}" if self._heat else "greedy"
        of = f" of what follows the last {self.how.after!r}" if self._after else ""
        chosen = f"{how}, at most {many(self._most, 'token')}, {self.grade.words}{of}"
        return msgspec.structs.replace(super().record, chosen=chosen)

    @property
    def digest(self) -> str:
        """Digest of every prompt and wanted answer, of how answers are made, and of the rule of grading."""
        wanted = [self._wanted[row] for row in self._rows]
        graded = [*self.measure.identity, self._most, self._text.end, self.how]
        return canon.key("generated", [self._taught.digest, wanted, self._rows, graded, *self.annotations.digests])

    @property
    def contents(self) -> tuple[str, ...]:
        """See ``BaseTask.contents``."""
        return tuple(canon.key("example", self._prompts[row]) for row in self._rows)

    # ---- what a model says -------------------------------------------------------------------------------------

    def halve_batch(self) -> bool:
        """See ``BaseTask.halve_batch``."""
        halved = self.tokens_per_batch > 1
        self.tokens_per_batch = max(self.tokens_per_batch // 2, 1)
        return self._taught.halve_batch() or halved

    def require_readable(self, model: nn.Module) -> None:
        """Raises ``DataError`` if a prompt leaves no room for its answer; see ``ChoiceTask.require_readable`` too."""
        lengths = [len(self._prompts[row]) + self._most - 1 for row in self._rows]
        what = f"with up to {self._most} tokens of its answer (generate:FILE,tokens=N sets that), prompt"
        require_short(model, lengths, where=self.name, what=what)
        super().require_readable(model)

    def forward(self, model: nn.Module) -> Tensor:
        """Grades ``[example, column]`` (see ``measures.grades``); not a number where the model's were not."""
        scores = torch.full(self.targets.shape, torch.nan)
        lengths = [len(self._prompts[row]) for row in self._rows]
        for length in sorted({*lengths}):
            several = [at for at, own in enumerate(lengths) if own == length]
            size = max(self.tokens_per_batch // ((length + self._most) * self.how.chains), 1)
            for batch in (several[start : start + size] for start in range(0, len(several), size)):
                said = self._generated(model, [self._rows[at] for at in batch])
                for at, chains in zip(batch, said, strict=True):
                    if chains is not None:
                        scores[at] = torch.tensor(self._graded(chains, self._wanted[self._rows[at]]))
        return scores

    def _generated(self, model: nn.Module, rows: list[int]) -> list[list[tuple[list[int], bool]] | None]:
        """Tokens of each chain, and whether it came to an end; ``None`` where numbers are not finite."""
        chains, device = self.how.chains, first_of(model).device
        ids = torch.tensor([self._prompts[row] for row in rows for _ in range(chains)], device=device)
        start, kept, said, ended = ids.shape[1], None, list[list[int]](), [False] * len(ids)
        lost = torch.zeros(len(ids), dtype=torch.bool, device=device)
        streams = [seeds.generator(0, "chains", row) for row in rows] if self._heat else []
        for _ in range(self._most):
            logits, kept = _next_logits(model, ids, kept)
            lost |= (logits.isnan() | (logits == torch.inf)).any(-1)
            if streams:  # the largest of logits and Gumbel noise is a sample
                waits = [one.standard_exponential((chains, logits.shape[1]), dtype=np.float32) for one in streams]
                logits = logits / self._heat - to_tensor(np.log(np.concatenate(waits) + 1e-30)).to(device)
            ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
            said = cast("list[list[int]]", ids[:, start:].tolist())  # pyright: ignore[reportUnknownMemberType]
            for at, tokens in enumerate(said):
                stopped = self._stop != "" and self._stop in self._text.text(tokens)
                ended[at] = ended[at] or tokens[-1] == self._text.end or stopped
            if all(ended):
                break
        parts = [slice(first, first + chains) for first in range(0, len(ids), chains)]
        return [None if bool(lost[one].any()) else list(zip(said[one], ended[one], strict=True)) for one in parts]

    def _answer(self, said: list[int]) -> str:
        text = self._text.text(said)
        text = text.partition(self._stop)[0] if self._stop else text
        text = text if not self._after else text.rpartition(self._after)[2] if self._after in text else ""
        return text.strip()

    def _graded(self, chains: list[tuple[list[int], bool]], wanted: Any) -> list[float]:
        """The columns of one example."""
        answers = [self._answer(said) for said, _ in chains]
        most = max(Counter(one for one in answers if one).values(), default=0)
        cut = sum(not ended for _, ended in chains) if self._cuts else 0
        shares = (sum(self.grade.right(one, wanted) for one in answers), most, cut, sum(not one for one in answers))
        numbers = [(crc32(one.encode()) >> 8) / 2**24 for one in answers]  # exact in single precision
        return [*(share / len(chains) for share in shares), *numbers]


def _next_logits(model: nn.Module, ids: Tensor, kept: Any) -> tuple[Tensor, Any]:
    """Logits ``[row, vocabulary]`` of the next token, and what a model of transformers keeps of earlier ones."""
    if not {"past_key_values", "use_cache"} <= inspect.signature(model.forward).parameters.keys():
        return as_scores(model(ids))[:, -1].float(), None
    output = model(input_ids=ids if kept is None else ids[:, -1:], past_key_values=kept, use_cache=True)
    return as_scores(output)[:, -1].float(), getattr(output, "past_key_values", None)
