"""What needs nets trained for the purpose: relearning of what was forgotten, detection of planted defects and examples.

The audit ``relearning`` (WT107) asks whether what a net was made to forget comes back with a few examples; the study
``detection`` whether comparing weights finds planted defects that outputs do not show; ``example-detection`` whether
noise in the weights tells labeled examples apart. In reading order: ``audits.recovery``, ``audits.relearning``,
``studies``.
"""
