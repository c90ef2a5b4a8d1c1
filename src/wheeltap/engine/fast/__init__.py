"""Exact shortcuts: the same numbers as a whole pass with the weights written, at less cost."""
