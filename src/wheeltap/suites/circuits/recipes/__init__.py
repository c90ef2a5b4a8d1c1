"""Recipes of the suite ``circuits``."""
