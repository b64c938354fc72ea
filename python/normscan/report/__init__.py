"""The page that people read: one self-contained HTML file a test set."""

from normscan.report.page import Row, pictured, write_page

__all__ = ["Row", "pictured", "write_page"]
