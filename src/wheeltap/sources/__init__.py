"""Where models and tasks come from: a spec such as ``digits`` or ``hf:FOLDER`` gives a subject and a task."""

from typing import TYPE_CHECKING

from wheeltap.core.lazy import lazy

if TYPE_CHECKING:
    from wheeltap.sources.base import LoadedModel
    from wheeltap.sources.specs import LoadedPair, Tokenizer, load, load_model, load_task, names_of

__all__ = ["LoadedModel", "LoadedPair", "Tokenizer", "load", "load_model", "load_task", "names_of"]
__getattr__ = lazy(__name__, {name: "base" if name == "LoadedModel" else "specs" for name in __all__})
