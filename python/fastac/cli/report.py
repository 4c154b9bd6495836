"""`fastac report`: a run or a comparison as one page."""

from __future__ import annotations

import webbrowser
from pathlib import Path

import click

from fastac.cli.endings import ends_in_order


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="file to write  [default: report.html in FOLDER]",
)
@click.option("--open", "show", is_flag=True, help="show it in the web browser  [default: only write it]")
def report(folder: Path, out: Path | None, show: bool) -> None:
    """Show a run or a comparison as one HTML file.

    FOLDER is the runs/<name> of `fastac train`, `fastac compare` or `fastac bench scaling`. The page needs no network,
    holds no script, and reads well on a phone, on paper and in the dark. A run that was interrupted and tables that are
    damaged are told on the page.

    \b
    fastac report runs/a3c-20260101-120000
    fastac report runs/compare-20260101-120000 --out a3c-against-a2c.html --open
    """
    with ends_in_order():
        from fastac.report.write import write_report

        path = out if out is not None else folder / "report.html"
        if path.exists() and not _is_page(path):
            raise click.UsageError(f"--out: {path} is no page that may be replaced: choose another name")
        for notice in write_report(folder, path):
            click.echo(f"notice: {notice}", err=True)
        click.echo(f"Written: {path}")
        if show and not webbrowser.open(path.resolve().as_uri()):
            click.echo("notice: found no web browser to open it with", err=True)


def _is_page(path: Path) -> bool:
    """Whether it is a file of HTML, as an earlier report is: what else stands there is not overwritten."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(15).lower() == b"<!doctype html>"
