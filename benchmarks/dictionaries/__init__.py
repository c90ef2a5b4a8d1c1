"""Measurements of dictionaries: see each file."""
