"""The report of a grid: a frame of scores, tables, statistics, typology and figures, from its results alone."""

from stilts_jax.report.results import load_results
from stilts_jax.report.write import ReportPaths, summary_text, write_report

__all__ = ["ReportPaths", "load_results", "summary_text", "write_report"]
