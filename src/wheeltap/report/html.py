"""The report as a page."""
from html import escape
from wheeltap.records import ReportRecord
def page(record: ReportRecord) -> str:
    """The page."""
    return f"<!doctype html><title>wheeltap</title><h1>{escape(record.headline)}</h1>"
def fragment(record: ReportRecord) -> str:
    """A fragment."""
    return f"<p>{escape(record.headline)}</p>"
