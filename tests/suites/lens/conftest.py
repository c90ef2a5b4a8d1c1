"""What tests of the lens share with those of sources."""

from tests.sources.conftest import llama_folder

__all__ = ["llama_folder"]
