"""Nets that draw pictures."""
