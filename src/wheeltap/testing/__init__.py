"""What other packages test their perturbations, audits and stores with; needs the extra ``test``.

* ``wheeltap.testing.contract``: pytest classes to subclass (``PerturbationContract``, ``AuditContract``,
  ``StoreContract``).
* ``wheeltap.testing.planted``: tiny subjects whose right answers are known in closed form.
* ``wheeltap.testing.store_contract``: hypothesis strategies for sites, trials and outcomes.

Nothing is imported here, so that the package itself never needs pytest or hypothesis.
"""
