#!/usr/bin/env bash
# Checks lockfree.pml exhaustively and shows that each of its planted bugs is caught: one line for each
# configuration, exit status 1 at the first that is not as expected. --long: larger configurations instead.
set -euo pipefail
model=$(cd "$(dirname "$0")" && pwd)/lockfree.pml
for tool in spin gcc; do
  command -v "$tool" >/dev/null || { echo "check.sh: $tool is not installed; on Debian: apt-get install $tool" >&2; exit 1; }
done
case "${1-}" in
  "") memory_mib=4000 ;;
  --long) memory_mib=8000 ;;
  *) echo "usage: check.sh [--long]" >&2; exit 2 ;;
esac
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cp "$model" lockfree.pml

fail() { # label, why; shows what the verifier said
  echo "$1: $2" >&2
  cat pan.out >&2
  exit 1
}

level=1 # of optimization: compiling the verifier well takes longer than most of the searches

# Runs the verifier; its words come to pan.out. No partial order reduction: it has nothing to gain here, and with
# `unless` and `provided` it would need an argument of its own.
verify() { # safety | progress, then -D...
  local kind=$1 compile=(-DSAFETY) run=()
  shift
  if [ "$kind" = progress ]; then compile=(-DNP) run=(-l); fi
  rm -f pan* ./*.trail
  spin "$@" -a lockfree.pml >pan.out 2>&1 || fail "spin $*" "the model does not compile"
  gcc "-O$level" -w "${compile[@]}" -DNOREDUCE -DCOLLAPSE -DMEMLIM="$memory_mib" -o pan pan.c
  ./pan -m10000 "${run[@]}" >pan.out 2>&1 || fail "pan $*" "exit status $?"
}

prove() { # safety | progress, label, then -D...
  local label="spin, $2" states
  verify "$1" "${@:3}"
  grep -q "errors: 0$" pan.out || fail "$label" "expected no error"
  if grep -qiE "search not completed|too small|out of memory|memory limit|hash-compact|bit statespace" pan.out; then
    fail "$label" "the search is not exhaustive"
  fi
  states=$(awk '/states, stored/ {printf "%d", $1}' pan.out | sed -E ':a; s/([0-9])([0-9]{3})($|,)/\1,\2\3/; ta')
  echo "$label: $states states, exhaustive, 0 errors"
}

# What catches a mutant is what is read and committed (BARE): the comment on the line of the assertion.
caught() { # safety | progress, mutant, then -D...
  local label="spin mutant $2" how line
  local define=("-DMUT_${2^^}" -DBARE=1 "${@:3}")
  verify "$1" "${define[@]}"
  grep -q "errors: 1$" pan.out || fail "$label" "expected an error, found none"
  if grep -q "assertion violated" pan.out; then
    line=$(spin "${define[@]}" -t lockfree.pml | awk -F '[:,]' '/^spin: .*Error: assertion violated/ && !line {line = $3} END {print line}')
    how="assertion: $(sed -n "${line}s|.*/\* \(.*\) \*/.*|\1|p" lockfree.pml)"
  else
    how=$(sed -n 's/^pan:1: \(invalid end state\|non-progress cycle\) .*/\1/p' pan.out)
  fi
  [ -n "$how" ] || fail "$label" "an error of an unexpected kind"
  echo "$label: caught ($how)"
}

if [ "${1-}" = --long ]; then
  prove safety "3 workers, 3 pushes, 1 crash" -DWORKERS=3 -DPUSHES_0=1 -DCRASHES=1
  prove safety "2 workers, 3 pushes, 2 crashes, the observer reads" -DREADS=1
  prove safety "2 workers, 2 pushes, 1 crash, the observer drains" -DPUSHES_0=1 -DCRASHES=1 -DDRAINS=1
  exit
fi

prove safety "2 workers, 3 pushes, 2 crashes"
prove progress "2 workers, 3 pushes, 2 crashes, every run ends"
prove safety "2 workers, 3 pushes, 2 crashes, rings of 2 slots, pushes ahead" -DK=2 -DAHEAD=1
prove safety "2 workers, 3 pushes, 2 crashes, one of each rejected" -DREJECTED=10
prove safety "2 workers, 3 pushes, 2 crashes, all rejected" -DREJECTED=11
prove safety "2 workers, 3 pushes, 2 crashes, all claim from record 0" -DSTRIDE=0
prove safety "2 workers, 2 pushes, 1 crash, the observer reads" -DPUSHES_0=1 -DCRASHES=1 -DREADS=1
prove safety "2 workers, 2 pushes, 0 crashes, the observer drains" -DPUSHES_0=1 -DCRASHES=0 -DDRAINS=1
prove progress "2 workers, 2 pushes, 0 crashes, the observer drains, every run ends" -DPUSHES_0=1 -DCRASHES=0 -DDRAINS=1
prove safety "3 workers, 3 pushes, 0 crashes" -DWORKERS=3 -DPUSHES_0=1 -DCRASHES=0
prove safety "2 workers, 3 pushes, 1 crash, without the model's aids" -DCRASHES=1 -DBARE=1

level=0
for mutant in no_recheck no_current no_hazard claim_store in_place early_free commit_store early_publish reap_alive; do
  caught safety "$mutant" -DCRASHES=0
done
caught safety hazards_first -DCRASHES=0 -DSTRIDE=0 -DREADS=1
# The version in the word is no guard where only rejected gradients were consumed: it stays the same.
caught safety early_unprotect -DCRASHES=0 -DREJECTED=11
caught safety overrun -DCRASHES=0 -DAHEAD=1
caught safety known_at_start -DCRASHES=1
caught safety reap_forgets -DCRASHES=1
# Fewer records than the three seats that build here can hold between them.
caught progress pool_small -DCRASHES=0 -DDRAINS=1 -DRECORDS=4
