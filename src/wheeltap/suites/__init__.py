"""Suites: one topic a folder. Each is a plug-in of the kernel, registered by entry points."""
