"""What models are called by default: short, and never two alike."""

import os
from collections.abc import Sequence
from pathlib import Path

from wheeltap.core.code import CALLABLE

_IN_FILES = ("hf", "gguf", "artifact")


def names_of(specs: Sequence[str]) -> tuple[str, ...]:
    """Names of models from their specs: the shortest that tell them apart.

    A folder or file is called as itself (``final``), and where another has that name too, with as many of the folders
    around it as it takes (``runA-final``, ``runB-final``). Of several callables each is called without its module
    where that tells them apart; one alone is called ``module:callable``. Any other spec is its own name. A spec that
    comes again is numbered: ``digits``, ``digits-2``.

    Args:
        specs: ``digits``, ``hf:DIR``, ``gguf:FILE``, ``module:callable`` ...
    """
    levels = [_levels(spec, alone=len(specs) == 1) for spec in specs]
    return numbered([_shortest(names, levels) for names in levels])


def numbered(names: Sequence[str]) -> tuple[str, ...]:
    """The names, those that come again with a number behind."""
    made: list[str] = []
    for name in names:
        fresh, count = name, 1
        while fresh in made or (count > 1 and fresh in names):
            count += 1
            fresh = f"{name}-{count}"
        made.append(fresh)
    return tuple(made)


def _levels(spec: str, *, alone: bool) -> tuple[str, ...]:
    """The names that a spec may get, the shortest first."""
    kind, _, rest = spec.partition(":")
    if kind in _IN_FILES and rest:
        path = Path(os.path.abspath(Path(rest).expanduser()))
        inner = (path.name if kind == "hf" else path.stem) or spec
        places = [inner, *(parent.name for parent in path.parents if parent.name)]
        return tuple("-".join(reversed(places[:count])) for count in range(1, len(places) + 1))
    return (rest, spec) if CALLABLE.fullmatch(spec) and not alone else (spec,)


def _shortest(names: tuple[str, ...], levels: Sequence[tuple[str, ...]]) -> str:
    """The first name that no other spec has at the same level; the shortest one where there is none."""
    others = [other for other in levels if other != names]
    for level, name in enumerate(names):
        if all(other[min(level, len(other) - 1)] != name for other in others):
            return name
    return names[0]
