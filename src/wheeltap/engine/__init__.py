"""The engine: carries out trials on models, and proves that each came back as it was."""

from wheeltap.engine.needs import moments

__all__ = ["moments"]
