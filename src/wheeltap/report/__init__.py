"""Reports: one record, shown in the terminal, as JSON and as a page. Never imports torch."""

from wheeltap.report.report import Report

__all__ = ["Report"]
