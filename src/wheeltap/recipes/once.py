"""What recipes make, made once: found in memory, else in a folder where one is given, else made.

Of processes that want the same thing from one folder, one makes it and the others wait for it.
"""

import copy
import os
import platform
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import torch
from torch import nn

from wheeltap.core.errors import StoreError
from wheeltap.core.own_key import own_key
from wheeltap.plans.artifacts import Artifacts
from wheeltap.recipes.base import Given, Recipe, recipe_of
from wheeltap.recipes.make import make

FOLDER: Final = "WHEELTAP_NETS"
"""Environment variable: the folder where what is made is kept, for all processes that are given the same one."""

_MOST_HELD: Final = 256
"""Nets that a process keeps in memory; beyond, the oldest are given up."""

_held: dict[tuple[str, str], nn.Module] = {}
_turn = threading.RLock()


def once(given: Given, recipe: Recipe | None = None, *, shelf: str = "", held: bool = True) -> nn.Module:
    """What the spec asks for, in eval mode: the same bits at each call, in a module of the caller's own.

    Args:
        given: The spec, and what it is made from.
        recipe: Where it is not the registered one of the spec.
        shelf: Folder within ``FOLDER`` and, where that is not set, within the user's cache; by default nothing is kept
            on disk unless ``FOLDER`` is set.
        held: Whether it is looked for and kept; else it is made for this call alone.

    Raises:
        ModelError: If training diverged or got stuck.
        WheeltapError: As ``make``.
    """
    key, by = (given.spec.key, str(given.device)), recipe or recipe_of(given.spec)
    if not held:
        return _made(given, by, None)
    with _turn:
        if key not in _held:
            _held[key] = _made(given, by, place(shelf))
            if len(_held) > _MOST_HELD:
                del _held[next(iter(_held))]
        return copy.deepcopy(_held[key])


def _made(given: Given, recipe: Recipe, folder: Path | None) -> nn.Module:
    made = make(given, recipe, Artifacts(folder) if folder else None)
    return made.done(f"recipe {given.spec.recipe}")


def place(shelf: str = "") -> Path | None:
    """The folder where nets are kept, or ``None``: one for each set of libraries and arithmetic, as bits differ.

    A cache of the user's that cannot be written, or signed, is none.

    Args:
        shelf: See ``once``.
    """
    given = os.environ.get(FOLDER)
    if not given and not shelf:
        return None
    import platformdirs

    base = Path(given) if given else Path(platformdirs.user_cache_dir("wheeltap"))
    arithmetic = [platform.machine(), torch.backends.cpu.get_cpu_capability()]
    place = base / shelf / "-".join([*map(_installed, ("torch", "transformers")), *arithmetic]).replace(" ", "-")
    if not given:
        try:
            own_key()
            place.mkdir(parents=True, exist_ok=True)
        except (OSError, StoreError):
            return None
    return place


def _installed(library: str) -> str:
    try:
        return f"{library}-{version(library)}"
    except PackageNotFoundError:
        return f"no-{library}"
