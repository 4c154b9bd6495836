"""Checks what `fastac compare --quick` left: the table, the CSV, the JSON, the pictures, and that all arms learned."""

import csv
import json
import sys
from pathlib import Path

from PIL import Image

folder, output = Path(sys.argv[1]), Path(sys.argv[2]).read_text()

for words in (
    "A3C",
    "A2C",
    "solved (195)",
    "env steps to 195",
    "seconds to 195",
    "staleness, mean",
    "Measured on",
):
    assert words in output, f"the table lacks {words!r}"

with (folder / "compare.csv").open() as file:
    rows = list(csv.DictReader(file))
report = json.loads((folder / "compare.json").read_text())
for arm in ("A3C", "A2C"):
    its = [row for row in rows if row["algorithm"] == arm]
    seeds = {row["seed"] for row in its}
    assert len(seeds) == 3, f"{arm}: expected 3 seeds, got {seeds}"
    for seed in seeds:
        returns = [float(row["return_mean"]) for row in its if row["seed"] == seed]
        assert returns[-1] > 3 * returns[0] and returns[-1] > 100, (
            f"{arm}, seed {seed} did not learn: {returns[0]} to {returns[-1]}"
        )
    print(f"{arm}: solved (195) {report['summary'][arm]['solved_195']} of 3")
for run in report["runs"]:
    ledger = run["ledger"]
    assert ledger["begun"] == ledger["published"] == ledger["applied"] and ledger["pending"] == ledger["merged"] == 0, (
        run
    )

for name in ("compare.png", "time_to_solve.png"):
    with Image.open(folder / name) as image:
        assert image.width > 1000 and len(image.convert("L").getcolors()) > 20, f"{name} is empty"
print("table, CSV, JSON and pictures are there; all arms learned under every seed; every ledger balances")
