"""Where models and probes come from: a spec such as ``digits`` or ``hf:DIR`` gives a subject and a probe."""

from wheeltap.sources import genomes
from wheeltap.sources.specs import Loaded, load, load_model, load_probe
from wheeltap.sources.text import LanguageModel, Tokenizer

__all__ = ["LanguageModel", "Loaded", "Tokenizer", "genomes", "load", "load_model", "load_probe"]
