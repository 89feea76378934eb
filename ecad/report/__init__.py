"""Reports of a search: tables, plots, the image grid and the interactive page, drawn from plain `Results`."""

from ecad.images.grid import picture_grid
from ecad.report.results import Candidate, Entry, Generation, Interval, Picture, Results, save_images
from ecad.report.summary import headline
from ecad.report.table import markdown_table, rich_table
from ecad.report.terminal import show_text
from ecad.report.write import write_report, write_tables
from ecad.utils.extras import check_installed, missing_packages

__all__ = [
    "Candidate",
    "Entry",
    "Generation",
    "Interval",
    "Picture",
    "Results",
    "check_installed",
    "headline",
    "markdown_table",
    "missing_packages",
    "picture_grid",
    "rich_table",
    "save_images",
    "show_text",
    "write_report",
    "write_tables",
]
