"""A run or a comparison on one page: what stands on it is what was measured, nothing is fetched, everything is escaped,
and its controls do what they say in a browser."""

import html
import json
import math
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import webbrowser
from html.parser import HTMLParser

import numpy as np
import pytest
from click.testing import CliRunner

from fastac import rundir
from fastac.cli import main
from fastac.cli.compare import compare
from fastac.cli.train import train
from fastac.compare.statistics import unsolved_share
from fastac.metrics import History
from fastac.report.commands import compare_command, train_command
from fastac.report.comparison_page import sentences
from fastac.report.parts import element, shown, table
from fastac.report.run_page import _band
from fastac.report.workers import staleness_bars, workers_table

CHROMIUM = shutil.which("chromium")
QUIET = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
QUIET += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
SMALL = ["--n-steps", "8", "--hidden-sizes", "16", "--backend", "thread"]
VOID = {"meta", "input", "br"}


def invoke(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """A run and a comparison, made by the commands themselves, under names that would be markup."""
    runs = tmp_path_factory.mktemp("runs")
    a3c = ["train", "a3c", *SMALL, "--workers", "2", "--seed", "3", "--total-timesteps", "4000"]
    both = ["compare", "--quick", *SMALL, "--n-envs", "2", "--seeds", "2", "--total-timesteps", "3000"]
    for words, name in ((a3c, "<b>&run"), (both, '"><i>both')):
        result = invoke(*words, "--runs", runs, "--name", name)
        assert result.exit_code == 0, result.output
    return runs


@pytest.fixture(scope="session")
def run_folder(runs):
    return runs / "<b>&run"


@pytest.fixture(scope="session")
def comparison(runs):
    return runs / '"><i>both'


def page_of(folder, out):
    result = invoke("report", folder, "--out", out)
    assert result.exit_code == 0, result.output
    return out.read_text(encoding="ascii")


@pytest.fixture(scope="session")
def pages(run_folder, comparison, tmp_path_factory):
    to = tmp_path_factory.mktemp("pages")
    return {"run": page_of(run_folder, to / "run.html"), "comparison": page_of(comparison, to / "comparison.html")}


class Outline(HTMLParser):
    """The elements of a page: each is closed in order, and its identifiers are its own."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.all, self.words = [], [], [], {}
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.all.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.all.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.setdefault(self.open[-1] if self.open else "", []).append(data)

    def of(self, tag):
        return [attributes for name, attributes in self.all if name == tag]


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_structure(pages, kind):
    page = Outline(pages[kind])
    assert len(page.ids) == len(set(page.ids))
    sections = {attributes["id"] for attributes in page.of("section")}
    assert sections >= {"summary", "solved", "curves", "ledger", "configuration", "machine", "command"}
    assert len(page.of("h1")) == 1 and page.of("html")[0]["lang"] == "en"
    pictures = [svg for svg in page.of("svg") if "swatch" not in svg.get("class", "")]
    assert len(pictures) >= 3 * 9
    for svg in pictures:
        assert svg["role"] == "img" and set(svg["aria-labelledby"].split()) <= set(page.ids)
    assert all(len(words) > 10 for words in page.words["desc"])
    drawn = pages[kind].count("<figure") - pages[kind].count('class="empty"')
    assert pages[kind].count('<details class="data">') == drawn >= 9
    labels = {label for label in page.ids if label.startswith(("axis-", "show-", "theme-"))}
    assert labels >= {"axis-env-steps", "axis-updates", "axis-wall-s", "theme-auto", "theme-light", "theme-dark"}
    assert len(pages[kind]) < 1_500_000


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_nothing_is_fetched_and_nothing_is_run(pages, kind):
    text, page = pages[kind], Outline(pages[kind])
    assert "://" not in text and "@import" not in text and "url(http" not in text
    assert not {tag for tag, _ in page.all} & {"script", "link", "img", "iframe", "object", "embed", "a", "base"}
    for _, attributes in page.all:
        assert not any(name.startswith("on") for name in attributes)
        assert attributes.get("href", "#").startswith("#") and "src" not in attributes
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))


def test_what_is_text_stays_text(pages, run_folder, tmp_path):
    assert "&lt;b&gt;&amp;run" in pages["run"] and "<b>" not in pages["run"]
    assert "&lt;i&gt;both" in pages["comparison"] and "<i>" not in pages["comparison"]
    evil = "<script>alert('1')</script>"
    folder = tmp_path / "evil"
    shutil.copytree(run_folder, folder)
    record = json.loads((folder / "run.json").read_text())
    record["config"] |= {"optimizer": evil, evil: evil}
    record |= {"status": evil, "machine": {**record["machine"], evil: evil, "processor": "\ud800 é"}}
    (folder / "run.json").write_text(json.dumps(record))
    text = page_of(folder, tmp_path / "evil.html")
    assert "<script" not in text and text.count(html.escape(evil)) >= 6
    assert element("p", evil, title='"') == f'<p title="&quot;">{html.escape(evil)}</p>'
    assert html.escape(evil) in table(evil, [evil], [[evil, evil]]) and evil not in table(evil, [evil], [[evil, evil]])


def cells(text, caption):
    """{name of the row: its cells} of the table with that caption."""
    its = re.search(rf"<caption>{re.escape(caption)}.*?</table>", text, re.DOTALL)[0]
    rows = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', its)
    return {name: re.findall(r"<td>(.*?)</td>", rest) for name, rest in rows}


def test_the_numbers_of_a_run(pages, run_folder):
    text, record = pages["run"], json.loads((run_folder / "run.json").read_text())
    facts = dict(re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", text))
    history = History(**{n: rundir.read_table(run_folder / f"{n}.csv") for n in ("episodes", "updates", "moments")})
    assert facts["status"] == "done" and facts["env steps"] == f"{record['num_timesteps']:,}"
    assert facts["updates"] == f"{record['version']:,}"
    assert facts["return, last 100 episodes"] == shown(history.final_return())
    assert facts["episodes"] == f"{len(history.episodes['wall_s']):,}"
    books = cells(text, "Where every gradient went")
    for name in ("begun", "published", "applied", "pending", "staleness_max"):
        assert books[name][0] == f"{record['ledger'][name]:,}"
    assert "The books balance" in text
    assert cells(text, "First reached after")["mean return 475"] == ["not in this run"] * 3 + ["-"]
    curve = cells(text, "Gradient norm, before clipping over env steps")
    assert curve and float(curve["mean"][0].replace(",", "")) == record["num_timesteps"]  # the last row of its name
    assert cells(text, "A3C: what differs from the defaults")["n_steps"][:2] == ["8", "32"]


def test_the_numbers_of_a_comparison(pages, comparison):
    text, record = pages["comparison"], json.loads((comparison / "compare.json").read_text())
    summary = cells(text, "Medians over the seeds; smallest and largest below them")
    assert summary["solved (475)"] == ["0 of 2", "0 of 2"] and summary["env steps to 475"] == ["unsolved"] * 2
    for name, words in (("final_return", "return, last 100 episodes"), ("updates", "updates")):
        assert [cell.split("<")[0] for cell in summary[words]] == [
            shown(record["summary"][arm][name]["median"]) for arm in ("A3C", "A2C")
        ]
    each = cells(text, "Each run")
    assert len(each) == 4 and each["A2C, seed 1"][2] == "balances"
    assert each["A3C, seed 0"][3] == f"{record['runs'][0]['ledger']['published']:,}"
    assert summary["interquartile mean of it"] == [
        shown(record["summary"][arm]["final_return_iqm"]["value"]) for arm in ("A3C", "A2C")
    ]


def test_commands_repeat_the_run(run_folder, comparison):
    def parsed(group, words):
        for word in words:
            if not hasattr(group, "commands"):
                break
            group, words = group.commands[word], words[1:]
        return group.make_context("x", list(words)).params

    record = json.loads((run_folder / "run.json").read_text())
    options = parsed(train, shlex.split(train_command(record))[2:])
    for name, value in record["config"].items():
        assert options[name] == (tuple(value) if isinstance(value, list) else value), name
    assert options["total_timesteps"] == 4000
    record["config"]["eps_inside_root"], record["config"]["shared_trunk"] = True, False
    options = parsed(train, shlex.split(train_command(record))[2:])
    assert options["eps_inside_root"] is True and options["shared_trunk"] is False
    record["config"] |= {"env": "FrozenLake-v1", "env_kwargs": {"desc": None, "is_slippery": False}}
    options = parsed(train, shlex.split(train_command(record))[2:])
    assert options["env_kwargs"] == {"desc": None, "is_slippery": False}

    plan = json.loads((comparison / "compare.json").read_text())
    options = parsed(compare, shlex.split(compare_command(plan))[2:])
    assert (options["quick"], options["seeds"], options["first_seed"], options["n_envs"]) == (True, 2, 0, 2)
    assert (options["total_timesteps"], options["n_steps"], options["hidden_sizes"]) == (3000, 8, (16,))
    assert train_command({}) is None and compare_command({}) is None


def test_survival_by_hand():
    """4 runs: solved at 1 and 3; one left at 2 unsolved, one at 4. After 3 it is 3/4 x 1/2."""
    times, shares = unsolved_share([1.0, 3.0, math.inf, math.inf], [9.0, 9.0, 2.0, 4.0])
    assert dict(zip(times.tolist(), shares.tolist(), strict=True)) == {1.0: 0.75, 2.0: 0.75, 3.0: 0.375, 4.0: 0.375}
    assert [len(part) for part in unsolved_share([], [])] == [0, 0]


def test_a_band_by_hand():
    rows = {"env_steps": np.arange(1.0, 13), "loss": np.array([*range(11), np.nan])}
    low, high = _band(rows, "loss", np.array([11.0, 12.0]))
    assert (low[0], high[0]) == (1.0, 9.0) and np.isnan([low[1], high[1]]).all()


def test_runs_whose_watch_is_unknown_are_not_left_out(comparison, tmp_path):
    """Without how long they were watched, no picture of those that were never solved: not one without them."""
    folder = tmp_path / "both"
    shutil.copytree(comparison, folder)
    text = page_of(folder, tmp_path / "page.html")
    assert 'id="figure-survival-475"' in text
    record = json.loads((folder / "compare.json").read_text())
    for run in record["runs"]:
        run["watched"] = None
    (folder / "compare.json").write_text(json.dumps(record))
    assert 'id="figure-survival-475"' not in page_of(folder, tmp_path / "page.html")


def test_staleness_by_hand():
    """Two workers: 6 updates at staleness 0, 3 in the bin from 4 on (one of them 7), 1 at 48 or more."""
    ones = [
        {"worker": 0, "updates": 6, "staleness": {"0": 5, "48": 1}},
        {"worker": 1, "staleness": {"0": 1, "4": 2, "7": 1}},
    ]
    ledger = {"staleness": {"0": 6, "4": 2, "7": 1, "48": 1}, "workers": ones}
    text = staleness_bars(ledger)
    for row in (
        "0</th><td>60.00 %</td><td>50.00 %</td><td>10.00 %",
        "4-7</th><td>30.00 %</td><td>0.00 %</td><td>30.00 %",
    ):
        assert f'<th scope="row">{row}</td>' in text
    assert '<th scope="row">32-63</th><td>10.00 %</td>' in text and "64-255" not in text
    assert "worker 1</th><td>-</td>" in workers_table(ledger) and "worker 0</th><td>6</td>" in workers_table(ledger)
    assert "the ledger holds none" in staleness_bars({"staleness": {"x": 3}}) and workers_table({}) == ""


NEVER = math.inf


def runs_of(**arms):
    """Runs as compare.json lists them: solved after so many env steps and as many seconds, or never within 10."""
    return [
        {
            "algorithm": arm,
            "seed": seed,
            "solved_195": None,
            "solved_475": None if time == NEVER else {"env_steps": time, "wall_s": time},
            "watched": {"env_steps": 10.0, "wall_s": 10.0},
        }
        for arm, times in arms.items()
        for seed, time in enumerate(times)
    ]


def to_475(what, record, runs):
    (line,) = [line for line in sentences(record, runs) if "475" in line and what in line.lower()]
    return line


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ([1, 2, 3, 1, 2, 3], [7, 8, 9, 7, 8, 9], "B needs 4.00x (95 % interval "),
        ([7, 8, 9, 7, 8, 9], [1, 2, 3, 1, 2, 3], "B needs 0.25x (95 % interval "),
        (
            [2] * 6,
            [4] * 6,
            "B needs 2.00x (95 % interval 2.00 to 2.00) the env steps of A to 475; ",
        ),
        (
            [1, 2, 3, 1, 2, 3],
            [NEVER] * 6,
            "with probability 0.00 (95 % interval 0.00 to 0.00), log-rank p = ",
        ),
        ([1, 2, 8, 1, 2, 8], [2, 3, 9, 2, 3, 9], "6 seeds do not tell which needs fewer: ratio of medians 1.50"),
        (
            [NEVER] * 6,
            [NEVER] * 6,
            "do not tell which needs fewer: ratio of medians unknown (95 % interval 0.00 to ",
        ),
        ([1, 1, 1, 1, 1], [9, 9, 9, 9, 9], "5 seeds carry no interval; 6 or more would."),
    ],
)
def test_a_verdict_only_where_the_data_carry_it(a, b, said):
    assert said in to_475("env steps", {}, runs_of(A=a, B=b))


def test_no_verdict_on_seconds_of_a_busy_machine():
    runs, idle, busy = runs_of(A=[1] * 6, B=[2] * 6), {"load_1min": 0.0, "cores": 4}, {"load_1min": 9.0, "cores": 4}
    assert "B needs 2.00x (95 % interval 2.00 to 2.00) the seconds of A" in to_475("seconds", {"machine": idle}, runs)
    assert to_475("seconds", {"machine": busy}, runs) == (
        "Seconds of training to 475: no verdict, other work was going on while they were measured."
    )
    assert "B needs 2.00x" in to_475("env steps", {"machine": busy}, runs)


def test_no_verdict_without_the_end_of_an_unsolved_run():
    runs = runs_of(A=[1] * 6, B=[NEVER, 2, 2, 2, 2, 2])
    assert "B needs 2.00x" in to_475("env steps", {}, runs)
    runs[6]["watched"] = None
    assert to_475("env steps", {}, runs) == "Env steps to 475: no verdict, they are not recorded of every run."
    assert sentences({}, runs[:6]) == sentences({}, []) == ["No verdict: there are no runs of two arms."]


def test_the_page_says_what_the_command_said(pages, comparison):
    record = json.loads((comparison / "compare.json").read_text())
    run = record["runs"][0]
    assert run["watched"]["env_steps"] >= 3000 and run["watched"]["updates"] == run["ledger"]["applied"]
    assert "A2C against A3C, env steps to 475: 2 seeds carry no interval; 6 or more would." in pages["comparison"]


def test_a_folder_that_is_neither_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    result = invoke("report", tmp_path)
    assert result.exit_code == 2 and "expected the folder of a run (run.json" in result.output
    assert "got a folder with notes.txt" in result.output and not (tmp_path / "report.html").exists()
    (tmp_path / "run.json").write_text("{")
    result = invoke("report", tmp_path)
    assert result.exit_code == 2 and "nothing can be read: run.json is damaged" in result.output
    (tmp_path / "compare.json").write_text("{}")
    assert "got files of a run and a comparison" in invoke("report", tmp_path).output
    assert invoke("report", tmp_path / "absent").exit_code == 2


def test_scaling(tmp_path):
    def spread(median):
        return {"minimum": median / 2, "median": median, "maximum": 2 * median}

    def figures(pace):
        return {
            "env_steps_per_s": spread(pace),
            "env_steps_per_cpu_s": spread(pace),
            "times_one_worker": spread(pace / 1e6),
        }

    forms = {"A3C, <threads>": {"1": figures(1e6), "2": figures(1.5e6)}, "apart": {"2": figures(1.9e6)}}
    record = {
        "command": ["bench", "scaling", "--rounds", "3"],
        "rounds": 3,
        "figures": forms | {"memory": {"beyond": spread(9)}},
    }
    (tmp_path / "bench-scaling.json").write_text(json.dumps(record))
    assert invoke("report", tmp_path).exit_code == 0
    page = (tmp_path / "report.html").read_text()
    outline = Outline(page)
    assert [key for key in outline.ids if key.startswith("figure-")] == [
        "figure-env-steps-per-s",
        "figure-times-one-worker",
    ]
    assert "<td>1,500,000 (750,000 to 3,000,000)</td><td>1.5 (0.75 to 3)</td>" in page and "beyond" not in page
    assert "A3C, &lt;threads&gt;: 1,000,000 at 1, 1,500,000 at 2. apart: - at 1, 1,900,000 at 2." in page
    assert "fastac bench scaling --rounds 3" in page and "x-axis" not in page
    (tmp_path / "bench-scaling.json").write_text("{")
    assert "nothing can be read: bench-scaling.json is damaged" in invoke("report", tmp_path).output


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("run.json", "other"),
        ("run.json", "cut"),
        ("updates.csv", "cut"),
        ("updates.csv", "gone"),
        ("episodes.csv", "binary"),
        ("moments.csv", "other"),
    ],
)
def test_a_damaged_run_is_told(run_folder, name, damage, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    spoil(folder / name, damage)
    text = page_of(folder, tmp_path / "page.html")
    assert f"{name} is {'missing' if damage == 'gone' else 'damaged'}" in text
    assert 'id="figure-return"' in text or "Nothing was logged" in text


@pytest.mark.parametrize(
    ("name", "damage"),
    [("compare.json", "cut"), ("compare.json", "gone"), ("compare.csv", "other"), ("compare.csv", "cut")],
)
def test_a_damaged_comparison_is_told(comparison, name, damage, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(comparison, folder)
    spoil(folder / name, damage)
    text = page_of(folder, tmp_path / "page.html")
    assert f"{name} is {'missing' if damage == 'gone' else 'damaged'}" in text


def spoil(path, damage):
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes({"cut": data[:-3], "binary": b"\xff\x00" * 50, "other": b"[1]\n"}[damage])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"status": "stopped", "num_timesteps": 1234}, "This run was interrupted (stopped): 1,234 of 4,000 env steps"),
        ({"status": "failed: OSError"}, "This run was interrupted (failed: OSError)"),
        ({"status": "running", "ledger": None}, "This run has not ended: it was still going on"),
        ({"earlier_parts": [{"status": "killed"}]}, "Interrupted and resumed: 1 earlier part. Ledger"),
        ({"ledger": {"begun": 5, "published": 4, "aborted": 0}}, "THE BOOKS DO NOT BALANCE"),
        ({"ledger": 7, "config": [], "machine": "x", "solved_475": 3, "algorithm": None}, "Not recorded"),
    ],
)
def test_what_became_of_a_run_stands_on_its_page(run_folder, change, said, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    record = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(record | change))
    assert said in page_of(folder, tmp_path / "page.html")


@pytest.mark.parametrize(
    "change", [{"runs": 5, "plan": [], "summary": 3}, {"runs": [7, {"seed": {}, "solved_475": 7}], "configs": {"X": 1}}]
)
def test_a_record_of_another_kind_ends_no_report(comparison, change, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(comparison, folder)
    record = json.loads((folder / "compare.json").read_text())
    (folder / "compare.json").write_text(json.dumps(record | change))
    assert 'id="figure-return-mean"' in page_of(folder, tmp_path / "page.html")


def test_a_comparison_in_another_env_has_no_threshold_of_cartpole(comparison, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(comparison, folder)
    record = json.loads((folder / "compare.json").read_text())
    record["plan"]["options"]["env"] = "Acrobot-v1"
    (folder / "compare.json").write_text(json.dumps(record))
    text = page_of(folder, tmp_path / "page.html")
    assert "No verdict: no mean return is known that solves Acrobot-v1." in text and "(475)" not in text
    assert 'id="figure-return-mean"' in text and 'id="solved"' not in text and "steps to 475" not in text


def test_an_interrupted_comparison_says_so(comparison, tmp_path):
    folder = tmp_path / "both"
    shutil.copytree(comparison, folder)
    record = json.loads((folder / "compare.json").read_text())
    record["runs"] = record["runs"][:3]
    (folder / "compare.json").write_text(json.dumps(record))
    assert "This comparison was interrupted: 3 of 4 runs are in it" in page_of(folder, tmp_path / "page.html")


def test_report_goes_into_the_folder(run_folder, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    result = invoke("report", folder)
    assert result.exit_code == 0 and result.output == f"Written: {folder}/report.html\n"
    shown_in_browser = []
    monkeypatch.setattr(
        webbrowser, "open", lambda address: shown_in_browser.append(address) or len(shown_in_browser) < 2
    )
    assert "notice" not in invoke("report", folder, "--open").output
    assert "found no web browser" in invoke("report", folder, "--open").output
    assert shown_in_browser == [(folder / "report.html").as_uri()] * 2
    result = invoke("report", folder, "--out", tmp_path / "absent" / "page.html")
    assert result.exit_code == 1 and "FileNotFoundError" in result.output


CLICKS = """
<script>
addEventListener("load", () => {
  const seen = {}, at = id => document.getElementById(id);
  const visible = selector => [...document.querySelectorAll(selector)].filter(
    e => e.checkVisibility() && e.getBoundingClientRect().height > 0).length;
  const look = name => seen[name] = {
    env_steps: visible(".axis-env-steps > svg"), updates: visible(".axis-updates > svg"),
    wall_s: visible(".axis-wall-s > svg"), series: visible("main svg g.series-KEY"),
    band: visible("main svg g.series-BAND"), paper: getComputedStyle(document.documentElement).backgroundColor,
    wide: document.documentElement.scrollWidth - document.documentElement.clientWidth };
  look("first");
  for (const id of ["axis-updates", "axis-wall-s", "show-KEY", "show-BAND", "theme-dark", "theme-light"]) {
    at(id).click(); look(id);
  }
  at("show-KEY").click(); look("again");
  at("axis-updates").focus(); seen.focus = document.activeElement.id;
  const focusable = [...document.querySelectorAll("input")];
  seen.unlabelled = focusable.filter(e => e.labels.length != 1 || !e.labels[0].textContent.trim()).length;
  const out = document.createElement("pre"); out.id = "seen"; out.textContent = JSON.stringify(seen);
  document.body.append(out);
});
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize(("kind", "key", "band"), [("run", "mean", "band"), ("comparison", "s0", "band")])
def test_the_controls_in_a_browser(pages, kind, key, band, tmp_path):
    """On a copy that allows one script, which clicks and writes down what it sees."""
    text = pages[kind].replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    clicks = CLICKS.replace("KEY", key).replace("BAND", band)
    (tmp_path / "page.html").write_text(text.replace("</body>", clicks + "</body>"))
    command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path}/profile", "--window-size=1280,900", "--dump-dom"]
    done = subprocess.run([*command, f"file://{tmp_path}/page.html"], capture_output=True, text=True, timeout=300)
    seen = json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', done.stdout)[1]))
    first = seen["first"]
    assert first["env_steps"] >= 9 and first["updates"] == first["wall_s"] == 0
    assert first["series"] >= 9 and first["band"] >= 5 and first["wide"] == 0
    for axis, other in (("updates", "wall_s"), ("wall_s", "updates")):
        now = seen["axis-" + axis.replace("_", "-")]
        assert now[axis] == first["env_steps"] and now["env_steps"] == now[other] == 0
    assert seen["show-" + key]["series"] == 0 < seen["axis-wall-s"]["series"]
    assert seen["show-" + band]["band"] == 0
    assert seen["theme-dark"]["paper"] == "rgb(20, 23, 26)" and seen["theme-light"]["paper"] == "rgb(255, 255, 255)"
    assert seen["again"]["series"] >= 9 and seen["focus"] == "axis-updates" and seen["unlabelled"] == 0


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_on_a_phone_nothing_is_wider_than_the_page(pages, tmp_path):
    """In frames of 360 px, as a window is never that narrow."""
    frames = ""
    for kind, text in pages.items():
        (tmp_path / f"{kind}.html").write_text(text)
        frames += f'<iframe src="{kind}.html" style="width: 360px; height: 800px; border: 0"></iframe>'
    look = """<script>addEventListener("load", () => {
      const of = [...document.querySelectorAll("iframe")].map(f => f.contentDocument.documentElement);
      document.title = "wide " + of.map(e => e.scrollWidth + "/" + e.clientWidth).join(" "); });</script>"""
    (tmp_path / "both.html").write_text(f"<title>-</title>{frames}{look}")
    command = [CHROMIUM, *QUIET, f"--user-data-dir={tmp_path}/profile", "--allow-file-access-from-files", "--dump-dom"]
    done = subprocess.run([*command, f"file://{tmp_path}/both.html"], capture_output=True, text=True, timeout=300)
    assert re.search(r"<title>(.*?)</title>", done.stdout)[1] == "wide 360/360 360/360"


@pytest.mark.parametrize("what", ["run.json", "a device"])
def test_what_is_no_page_is_not_overwritten(what, run_folder, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder)
    out = folder / what if what == "run.json" else pathlib.Path(os.devnull)
    before = out.read_bytes()
    refused = invoke("report", folder, "--out", out)
    assert refused.exit_code == 2 and "may be replaced" in refused.output
    assert out.read_bytes() == before and out.exists() and out.is_file() == (what == "run.json")
    for _ in range(2):  # a page of ours may be
        assert invoke("report", folder).exit_code == 0
