"""What needs nets trained for the purpose: relearning of what was forgotten, detection of planted defects.

The audit ``relearning`` (WT107) asks whether what a net was made to forget comes back with a few examples; the study
``detection`` whether comparing weights finds planted defects that outputs do not show. In reading order:
``audits.recovery``, ``audits.relearning``, ``studies``.
"""
