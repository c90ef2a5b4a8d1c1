"""What tests of models and of plug-ins use.

* ``assert_survives``: a test that a model survives shipping (see ``wheeltap.testing.survival``).
* ``wheeltap.testing.plugin``: the pytest plugin, which pytest finds by itself.
* ``wheeltap.testing.contract``: pytest classes to subclass (``PerturbationContract`` ...); needs the extra ``test``.
* ``wheeltap.testing.planted``: tiny subjects whose right answers are known in closed form.

Nothing is imported here, so that the package itself never needs pytest or hypothesis.
"""

from typing import TYPE_CHECKING

from wheeltap.core.lazy import lazy

if TYPE_CHECKING:
    from wheeltap.testing.survival import assert_survives

__all__ = ["assert_survives"]
__getattr__ = lazy(__name__, {"assert_survives": "survival"})
