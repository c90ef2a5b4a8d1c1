"""Where models and tasks come from: a spec such as ``digits`` or ``hf:DIR`` gives a subject and a task."""

from wheeltap.sources.naming import names_of
from wheeltap.sources.specs import Loaded, load, load_model, load_task
from wheeltap.sources.text import LanguageModel, Tokenizer
from wheeltap.suites.pictures.sources import genomes

__all__ = ["LanguageModel", "Loaded", "Tokenizer", "genomes", "load", "load_model", "load_task", "names_of"]
