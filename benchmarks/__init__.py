"""Benchmarks: commands that anyone can run to check what the documentation claims."""
