"""Specified computations that make something: a trained net, a probe, a circuit."""
