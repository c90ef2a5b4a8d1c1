"""Specified computations that make something: a trained net, a task, a circuit."""
