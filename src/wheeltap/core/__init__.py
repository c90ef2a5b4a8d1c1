"""Nouns and ground: what everything else is about. Nothing here runs a model."""
