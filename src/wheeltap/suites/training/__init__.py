"""Relearning and detection."""
