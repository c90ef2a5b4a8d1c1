"""Perturbations: controlled changes of weights, each a pure function with a declared set of invariances."""

from wheeltap.perturb.base import BUILTIN, Perturbation, create, perturbations

__all__ = ["BUILTIN", "Perturbation", "create", "perturbations"]
