"""Readings of the suite ``decodable``."""
