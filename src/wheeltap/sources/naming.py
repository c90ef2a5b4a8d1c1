"""What models are called by default: short, and never two alike."""

import os
from collections.abc import Sequence
from pathlib import Path

_IN_FILES = ("hf", "gguf")


def names_of(specs: Sequence[str]) -> tuple[str, ...]:
    """Names of models from their specs: the shortest that tell them apart.

    A folder or file is called as itself (``final``), and where another has that name too, with as many of the folders
    around it as it takes (``runA-final``, ``runB-final``). Any other spec is its own name. A spec that comes again is
    numbered: ``digits``, ``digits-2``.

    Args:
        specs: ``digits``, ``hf:DIR``, ``gguf:FILE``, ``module:callable`` ...
    """
    places = [_places(spec) for spec in specs]
    return numbered([_shortest(place, places) for place in places])


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


def _places(spec: str) -> tuple[str, ...]:
    """Names of the file or folder and of the folders around it, from the inside; of another spec itself alone."""
    kind, _, rest = spec.partition(":")
    if kind not in _IN_FILES or not rest:
        return (spec,)
    path = Path(os.path.abspath(Path(rest).expanduser()))
    inner = path.stem if kind == "gguf" else path.name
    return (inner or spec, *(parent.name for parent in path.parents if parent.name))


def _shortest(place: tuple[str, ...], places: Sequence[tuple[str, ...]]) -> str:
    """As few folders as tell this place from all others; one where nothing does."""
    others = [other for other in places if other != place]
    for count in range(1, len(place) + 1):
        if all(other[:count] != place[:count] for other in others):
            return "-".join(reversed(place[:count]))
    return place[0]
