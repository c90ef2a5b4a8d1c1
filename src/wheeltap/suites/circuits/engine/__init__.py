"""Circuits: which units or edges of a decoder do a task, and what the rest of it does."""
