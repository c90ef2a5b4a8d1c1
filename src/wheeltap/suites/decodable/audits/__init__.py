"""Audits of the suite ``decodable``."""
