"""Circuits: which units or edges of a decoder do a task."""
