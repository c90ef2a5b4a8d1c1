"""Text to tokens exactly as lm-eval does it: context and continuation, start tokens, contexts that are too long."""

from collections.abc import Sequence
from typing import Any, final

from wheeltap.core.errors import DataError
from wheeltap.sources.lm_eval_harness import library

Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""Tokens of a context, and of what goes on from it."""


@final
class Encoder:
    """What lm-eval's own model class for transformers does before it calls the model.

    Args:
        raw: The transformers tokenizer.
        config: The model's config.
        where: Name of the task.

    Attributes:
        longest: Tokens that the model reads at most, as lm-eval sees it.

    Source: lm_eval 0.4.13, ``models/huggingface.py`` (tok_encode, tok_batch_encode) and ``api/model.py``
    (_encode_pair, loglikelihood), which is called here and not copied.
    """

    backend = "causal"

    def __init__(self, raw: Any, config: Any, *, where: str) -> None:
        self.raw, self._where = raw, where
        self._lm: Any = library("lm_eval.api.model").TemplateLM
        self.longest = int(library("lm_eval.models.utils").resolve_max_length(config, raw, default=2048))
        self._captured: list[Pair] = []

    @property
    def prefix_token_id(self) -> int:
        """What precedes text without a context: the start token, else the end token.

        Raises:
            DataError: If the tokenizer has neither.
        """
        found = next((one for one in (self.raw.bos_token_id, self.raw.eos_token_id) if one is not None), None)
        if found is None:
            raise DataError(
                "The tokenizer has no token to begin with.",
                where=self._where,
                expected="a start token or an end token, as lm-eval needs one",
                got="neither",
                do="Set tokenizer.eos_token as in training, and save the tokenizer again.",
            )
        return int(found)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of a text; without a second start token where it begins with one."""
        how = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        if add_special_tokens is None and string.startswith(self.raw.decode(self.prefix_token_id)):
            how["add_special_tokens"] = False
        return list(self.raw.encode(string, **how))

    def pairs(self, texts: Sequence[tuple[str, str]]) -> list[Pair]:
        """Tokens of each context and continuation.

        Raises:
            DataError: If one has no tokens, or a continuation is longer than the model can read.
        """
        asked = [_Request(args) for args in texts]
        self._captured = []
        self._lm.loglikelihood(self, asked, disable_tqdm=True)
        for at, (context, option) in enumerate(self._captured):
            if not context or not 0 < len(option) <= self.longest:
                raise DataError(
                    "A text cannot be scored.",
                    where=f"{self._where}: request {at}",
                    expected=f"a context, and a continuation of 1 to {self.longest} tokens",
                    got=f"{len(context)} and {len(option)} tokens: {texts[at][1][:60]!r}",
                    do="Leave this document out, or audit a model with a longer context.",
                )
        return self._captured

    def shortened(self, pair: Pair) -> Pair:
        """The same, its context cut from the left to what the model can read: the last token is never an input."""
        context, option = pair
        return context[max(len(context) + len(option) - self.longest - 1, 0) :], option

    def separately(self, context: str, answer: str) -> Pair:
        """Tokens of a prompt, cut from the left to what the model can read, and of an answer to it, each by itself."""
        option: list[int] = self.raw(answer, add_special_tokens=False).input_ids
        return self.context(context, len(option)), tuple(option)

    def context(self, text: str, room: int) -> tuple[int, ...]:
        """Tokens that a model goes on from, cut from the left so that ``room`` more can follow.

        Raises:
            DataError: If nothing is left of it.
        """
        begun = self.raw.bos_token is not None and text.startswith(self.raw.bos_token)
        ids: list[int] = self.raw(text, **({"add_special_tokens": False} if begun else {})).input_ids
        most = self.longest - room
        if most < 1 or not ids:
            raise DataError(
                "A text leaves no room for an answer." if ids else "A text has no tokens.",
                where=self._where,
                expected=f"fewer than {self.longest} tokens to generate (max_gen_toks), after a text with tokens",
                got=f"{room} to generate, after {len(ids)} tokens",
                do="Lower max_gen_toks in the task's generation_kwargs, or audit a model with a longer context.",
            )
        return tuple(ids[-most:])

    # What ``TemplateLM.loglikelihood`` calls.

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        first, rest = self._lm._encode_pair(self, context, continuation)
        if [*first, *rest] != (whole := self.tok_encode(context + continuation)):
            raise DataError(
                "The tokenizer merges the end of a prompt with the start of an option.",
                where=f"{self._where}: {context[-20:]!r} {continuation[:20]!r}",
                expected=f"tokens of the prompt, then of the option: {self.raw.convert_ids_to_tokens(whole[-6:])}",
                got=f"what lm-eval would score: {self.raw.convert_ids_to_tokens([*first, *rest][-6:])}",
                do="End the prompt otherwise, or set target_delimiter in the task's YAML file to a space.",
            )
        return first, rest

    def _loglikelihood_tokens(self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any) -> list[Any]:
        self._captured = [(tuple(context), tuple(option)) for _, context, option in requests]
        return []


@final
class _Request:
    """What lm-eval calls an instance, as far as it is read here."""

    def __init__(self, args: tuple[str, str]) -> None:
        self.args = args
