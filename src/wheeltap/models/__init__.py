"""Nets that wheeltap defines itself."""
