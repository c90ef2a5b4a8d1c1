"""What other packages test their perturbations, audits and recipes with; needs the extra ``test``.

* ``wheeltap.testing.contract``: pytest classes to subclass (``PerturbationContract``, ``AuditContract``
  and so on).
* ``wheeltap.testing.planted``: tiny subjects whose right answers are known in closed form.

Nothing is imported here, so that the package itself never needs pytest or hypothesis.
"""
