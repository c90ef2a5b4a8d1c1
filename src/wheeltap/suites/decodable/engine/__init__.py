"""Measurements of the suite ``decodable``."""
