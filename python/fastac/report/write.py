"""A folder as one file of HTML. In: a folder that `reading` knows. Out: the file, and what was damaged."""

from __future__ import annotations

from pathlib import Path

from fastac import rundir
from fastac.report.comparison_page import comparison_page
from fastac.report.page import to_html
from fastac.report.reading import ComparisonSource, RunSource, load
from fastac.report.run_page import run_page
from fastac.report.scaling_page import scaling_page
from fastac.signals import signals_deferred


def write_report(folder: Path, path: Path) -> list[str]:
    """Returns what could not be read, in words. Raises ReportError (see `reading.load`) and OSError."""
    source = load(folder)
    if isinstance(source, RunSource):
        page = run_page(source)
    else:
        page = comparison_page(source) if isinstance(source, ComparisonSource) else scaling_page(source)
    text = to_html(page)
    with signals_deferred():
        rundir.write_text(path, text)
    return source.notices
