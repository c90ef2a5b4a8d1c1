"""Seals: is the model that is deployed still the one that was audited? ``wt.seal.make``, ``wt.seal.verify``.

    made = wt.seal.make(subject, task)
    made.seal.save("model.seal")
    wt.seal.verify(deployed, wt.seal.load("model.seal")).verdict

In reading order: ``record`` (what a seal holds, signed or not), ``making`` and ``verifying`` (the two doors),
``inputs`` (random ones, of the task), ``structure`` and ``values`` (what is digested), ``tensors`` (the likely kind of
change), ``folder`` and ``contents`` (files beside the weights), ``sketch`` (outputs in few numbers);
``tampers``, ``readings`` and ``studies`` (changed copies), ``cli`` (``wheeltap seal``, ``wheeltap verify``).
"""

from typing import TYPE_CHECKING

from wheeltap.core.lazy import lazy

if TYPE_CHECKING:
    from wheeltap.suites.seal.making import SealOptions, SealReport, make
    from wheeltap.suites.seal.record import Seal, load
    from wheeltap.suites.seal.verifying import Verification, verify

__all__ = ["Seal", "SealOptions", "SealReport", "Verification", "load", "make", "verify"]

__getattr__ = lazy(
    __name__,
    {
        "SealOptions": "making", "SealReport": "making", "make": "making", "Seal": "record", "load": "record",
        "Verification": "verifying", "verify": "verifying",
    },
)  # fmt: skip
