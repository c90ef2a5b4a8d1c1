"""Shapes written in annotations are checked while tests run: ``Float[Tensor, "example option"]`` is a promise."""

from jaxtyping import install_import_hook

SHAPED = (
    "wheeltap.core.choices",
    "wheeltap.core.layer",
    "wheeltap.core.measure",
    "wheeltap.core.task",
    "wheeltap.perturb.function_noise",
)

# Before any test module imports the package.
_hook = install_import_hook(SHAPED, "beartype.beartype")
