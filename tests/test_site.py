"""What the site adds to the pages (docs/hooks.py), and tables in them that have to follow the code."""

import importlib.util
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import fastac
from fastac import metrics

DOCS = Path(__file__).resolve().parents[1] / "docs"
_spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
hooks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hooks)


def made(markdown, page):
    return hooks.on_page_markdown(markdown, page=SimpleNamespace(file=SimpleNamespace(src_uri=page)), files=None)


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("design.md", "[CONTRIBUTING](../CONTRIBUTING.md)", "`CONTRIBUTING.md`"),
        ("design.md", "[`a3c.py`](../python/fastac/a3c.py)", "`python/fastac/a3c.py`"),
        ("tutorials/x.md", "[the core](../../cpp/include)", "the core (`cpp/include`)"),
        ("tutorials/x.md", "[findings](../findings.md#what-to-choose)", "[findings](../findings.md#what-to-choose)"),
        ("design.md", "[the paper](https://arxiv.org/abs/1602.01783)", "[the paper](https://arxiv.org/abs/1602.01783)"),
        ("design.md", "![curves](compare.png)", "[![curves](compare.png)](compare.png)"),
    ],
)
def test_links_and_pictures(page, link, expected):
    assert made(f"See {link}.", page) == f"See {expected}."


@pytest.mark.parametrize("config_type", ["Config", "A2CConfig", "A3CConfig"])
def test_the_page_of_hyper_parameters_has_a_table_for_each_config(config_type):
    page = made((DOCS / "reference" / "config.md").read_text(), "reference/config.md")
    assert hooks.table_of_fields(getattr(fastac, config_type)) in page


def test_tables_of_fields():
    rows = [line for kind in (fastac.Config, fastac.A3CConfig) for line in hooks.table_of_fields(kind).splitlines()]
    assert sorted(re.findall(r"^\| `(\w+)`", "\n".join(rows), re.MULTILINE)) == sorted(fastac.A3CConfig().to_dict())
    for row in (
        "| `n_steps` | `32` | rollout length T between updates | >= 1 and <= 100000 [env steps per env] |",
        "| `hidden_sizes` | `(64, 64)` | units of each hidden layer | each >= 1 and <= 4096 |",
        "| `backend` | `'process'` | where workers run | one of thread, process |",
    ):
        assert row in rows


def test_the_columns_of_a_history_are_told():
    told = re.findall(r"^\|[^|]*\|([^|]*)\|", (DOCS / "reference" / "results.md").read_text(), re.MULTILINE)
    columns = {"worker", *metrics.EPISODE_COLUMNS, *metrics.UPDATE_COLUMNS, *metrics.MOMENT_COLUMNS}
    counted = {"wall_s", "env_steps", "updates"}  # told above the table
    assert set(re.findall(r"`(\w+)`", "".join(told))) == columns - counted
