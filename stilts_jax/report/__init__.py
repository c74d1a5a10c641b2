"""The report of a grid: tables, statistics, typology and plots from ``result.json`` files alone."""

from stilts_jax.report.write import ReportPaths, summary_text, write_report

__all__ = ["ReportPaths", "summary_text", "write_report"]
