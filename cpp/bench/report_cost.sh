#!/usr/bin/env bash
# What it costs to tell of an update, at worst (1 env, T = 5): instructions of the report over those of the whole update.
# Instructions do not depend on what else the machine does. Needs valgrind, and train_profile built: cmake --build --preset plain.
set -euo pipefail
profile=${1:-build/plain/cpp/bench/train_profile}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

instructions() { # updates | reports, how many
  valgrind --tool=callgrind --callgrind-out-file="$folder/out" "$profile" "$1" "$2" 2>&1 | sed -n 's/.*Collected : //p'
}

each() { # the difference of two runs: without the start of the program
  echo $((($(instructions "$1" 9000) - $(instructions "$1" 5000)) / 4000))
}

update=$(each updates) report=$(each reports)
awk -v u="$update" -v r="$report" 'BEGIN { printf "report: %d of %d instructions an update, %.2f %%\n", r, u, 100 * r / u }'
