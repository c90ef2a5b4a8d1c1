"""Does the instrument read what it says? False alarms, power, coverage, invariances, added value, and peers beside it.

``python -m benchmarks.validity`` measures everything and writes ``validity.md`` and ``validity.json`` in ``docs/results``.
"""
