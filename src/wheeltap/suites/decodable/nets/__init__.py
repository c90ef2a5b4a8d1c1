"""Nets of the suite ``decodable``."""
