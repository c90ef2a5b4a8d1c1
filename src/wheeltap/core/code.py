"""Specs that name code of the user's own: it is run where it is asked for, and not because a file names it."""

import re
from collections.abc import Iterable
from typing import Final

from wheeltap.core.errors import UsageError

CALLABLE: Final = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*(\.\w+)*")
"""A spec of the form ``module:callable``."""

DRAWN: Final = ("picture", "genome")
_IN_FILES: Final = ("hf", "gguf", "artifact", "npz", *DRAWN)
"""What specs begin with that name a file or a generated picture: no code is run for them."""


def is_code(spec: str) -> bool:
    """Whether a model that is asked for by this spec is made by code of the user's: ``module:callable``."""
    return bool(CALLABLE.fullmatch(spec)) and spec.partition(":")[0] not in _IN_FILES


def is_code_of_examples(spec: str) -> bool:
    """Whether examples of this spec are: a callable, or a folder of lm-eval's tasks, which may name functions."""
    if spec.startswith("lm_eval:"):
        return ",include=" in spec
    return bool(CALLABLE.fullmatch(spec)) and spec.partition(":")[0] not in DRAWN


def require_no_code(models: Iterable[str], *, examples: Iterable[str], where: str) -> None:
    """Raises ``UsageError`` if a file that is about to be carried out names code of the user's own."""
    named = dict.fromkeys([*filter(is_code, models), *filter(is_code_of_examples, examples)])
    if named:
        raise UsageError(
            "The file names code that would be run.",
            where=where,
            expected="models and examples in files; code only where it is asked for",
            got=", ".join(named),
            do="Look at the code that it names. If you trust it, give the command again with --allow-code (in Python, "
            "allow_code=True).",
        )
