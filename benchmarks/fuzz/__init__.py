"""Readers against hostile files, made of sound ones: no traceback, no hang, no memory that a file's size does not earn.

``python -m benchmarks.fuzz --mutations 1000``
"""
