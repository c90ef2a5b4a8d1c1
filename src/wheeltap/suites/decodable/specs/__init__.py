"""Specs of readings of the suite ``decodable``."""
