"""Reports: one record, told in the terminal, as JSON and as a page. Never imports torch."""

from wheeltap.report.report import Report

__all__ = ["Report"]
