"""Audits of dictionaries."""
