"""Decodable factors."""
