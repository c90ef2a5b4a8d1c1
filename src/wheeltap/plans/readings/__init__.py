"""Specs of readings: what each measures and gives, free of torch; one reading a file."""

from wheeltap.plans.readings.base import Array, ReadingSpec

__all__ = ["Array", "ReadingSpec"]
