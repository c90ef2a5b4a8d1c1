"""Shapes written in annotations are checked while tests run: ``Float[Tensor, "example option"]`` is a promise."""

from jaxtyping import install_import_hook

SHAPED = ("wheeltap.choices", "wheeltap.layer", "wheeltap.measure", "wheeltap.probe", "wheeltap.perturb.function_noise")

# Before any test module imports the package.
_hook = install_import_hook(SHAPED, "beartype.beartype")
