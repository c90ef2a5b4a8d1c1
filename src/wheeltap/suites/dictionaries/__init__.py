"""Dictionaries: are features of a net's vectors better than random ones at what they are for? ``wt.dictionaries``.

    made = wt.dictionaries.train(net, task, site="transformer.h.5")
    report = wt.dictionaries.check(net, made, task, site="transformer.h.5")

In reading order: ``doors`` (train, check), ``dictionary`` (what one is) and ``files`` (also of two other libraries),
``specs``, ``activations`` and ``recipes`` (vectors, and what is trained on them), ``nets`` and ``sources`` (a net,
tasks), ``supervised``, ``stats`` and ``readings`` (editing, scoring), ``audits`` (WT401 to WT405), ``studies``,
``cli``.
"""

from typing import TYPE_CHECKING

from wheeltap.core.lazy import lazy

if TYPE_CHECKING:
    from wheeltap.suites.dictionaries.dictionary import Dictionary, DictionaryModel
    from wheeltap.suites.dictionaries.doors import check, load, save, train

__all__ = ["Dictionary", "DictionaryModel", "check", "load", "save", "train"]

__getattr__ = lazy(
    __name__,
    {
        "Dictionary": "dictionary", "DictionaryModel": "dictionary",
        "check": "doors", "train": "doors", "load": "doors", "save": "doors",
    },
)  # fmt: skip
