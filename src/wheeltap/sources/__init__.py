"""Where models and tasks come from: a spec such as ``digits`` or ``hf:FOLDER`` gives a subject and a task."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wheeltap.core.choices import Tokenizer
    from wheeltap.sources.base import LoadedModel
    from wheeltap.sources.specs import LoadedPair, load, load_model, load_task, names_of

_HOME = {"LoadedModel": "sources.base", "Tokenizer": "core.choices"}

__all__ = ["LoadedModel", "LoadedPair", "Tokenizer", "load", "load_model", "load_task", "names_of"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"wheeltap.{_HOME.get(name, 'sources.specs')}"), name)
    raise AttributeError(f"module 'wheeltap.sources' has no attribute {name!r}")
