"""Names of a package that are loaded when they are first used: importing it alone imports nothing heavy."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """What a package takes as its ``__getattr__``.

    Args:
        package: Its name.
        homes: For each name, the module below the package that has it; ``:`` before it where it is that module.
    """

    def attribute(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = import_module(f"{package}.{home.removeprefix(':')}")
        return found if home.startswith(":") else getattr(found, name)

    return attribute
