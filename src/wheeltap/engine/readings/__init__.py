"""Readings: what is measured of an undisturbed model's inside, in a trial of its own."""

from wheeltap.engine.readings.base import Reading, Readings, create, readings

__all__ = ["Reading", "Readings", "create", "readings"]
