"""Words of a small language that looks like Python, and a tokenizer of whole words.

Every token is a whole piece of code: a name, a keyword, an opening quote with its parenthesis, a closing bracket with
the end of its line. Decoded text is Python: where lines are whole, ``ast.parse`` reads them.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Final, final

from wheeltap.core.errors import DataError


def _tokens(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES: Final = _tokens(
    "a b c d i j k m n p q r s t u v x y z row col key item node left right total index size value data line"
)
"""Of variables. The first half serves plain tasks, the second half their rephrased form."""

SUFFIXES: Final = ("_id", "_name", "_max", "_old")
"""A name may go on with one or two of these, as ``row_id``."""

FUNCTIONS: Final = _tokens("open load read find lock call make scan")

WORDS: Final = _tokens(
    "red blue green dark light big small old new fast slow dog cat fox bird fish "
    "tree leaf rock sand sun moon star rain snow wind hill lake road gate door hall"
)
"""Of strings; halves as of ``NAMES``."""

DIGITS: Final = tuple("123456789")
ENTRIES: Final = tuple(f"{digit}," for digit in DIGITS)
"""Digits in a list."""

KEYWORDS: Final = _tokens("print return yield with as for in while if else lambda def import pass")
SIGNS: Final = ("(", ")", '("', "('", '")', "')", "[", "],", "]NL", "]]NL", ",", "=", "+", "<", ":")
USES: Final = ("set()", '""', ".add", "+=")
NL: Final = "NL"
INDENT: Final = "INDENT"

TOKENS: Final[tuple[str, ...]] = (
    NL, INDENT, *KEYWORDS, *SIGNS, *USES, *DIGITS, *ENTRIES, *FUNCTIONS, *NAMES, *SUFFIXES, *WORDS
)  # fmt: skip
"""The vocabulary: a token's number is its place here."""

NUMBERS: Final = {token: number for number, token in enumerate(TOKENS)}


def encode(pieces: Iterable[str]) -> list[int]:
    """Numbers of these tokens.

    Raises:
        DataError: If one is none of ``TOKENS``.
    """
    held = list(pieces)
    unknown = [piece for piece in held if piece not in NUMBERS]
    if unknown:
        raise DataError(
            "A piece of text is no token.",
            where="the Python-like vocabulary",
            expected="pieces between spaces that are tokens, as in 'for row_id in data :'",
            got=repr(unknown[0][:40]),
            do="Use the words of wheeltap.suites.circuits.nets.python_words.TOKENS, with spaces between them.",
        )
    return [NUMBERS[piece] for piece in held]


def decode(ids: Iterable[int]) -> str:
    """Text of these tokens: Python, with a space between tokens."""
    text = " ".join(TOKENS[number] for number in ids).replace(" _", "_").replace(" NL", "NL")
    return text.replace("NL ", "\n").replace("NL", "\n").replace("INDENT ", "    ").replace("INDENT", "    ")


@final
class PythonTokenizer:
    """Reads what ``decode`` writes; a ``sources.text.Tokenizer``."""

    def start(self, text: str) -> list[int]:
        """Numbers of the tokens of a text; there is no start token.

        Raises:
            DataError: If a piece of it is no token.
        """
        spread = re.sub(r"(?<!\])\n", " NL ", text.replace("    ", "INDENT ").replace("_", " _"))
        return encode(spread.replace("]\n", "]NL ").split())

    def more(self, text: str) -> list[int]:
        """The same of a text that goes on from other text."""
        return self.start(text)


def half(words: Sequence[str], *, second: bool) -> Sequence[str]:
    """The first or the second half."""
    middle = len(words) // 2
    return words[middle:] if second else words[:middle]
