"""Specified computations that make something: a trained net, a task, a circuit."""

from wheeltap.suites.circuits.recipes.sparse import sparsify

__all__ = ["sparsify"]
