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
  --long) memory_mib=16000 ;;
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

# Runs the verifier; its words come to pan.out. No partial order reduction: it has nothing to gain here, and with
# `unless` and `provided` it would need an argument of its own.
verify() { # safety | progress, then -D...
  local kind=$1 compile=(-DSAFETY) run=()
  shift
  if [ "$kind" = progress ]; then compile=(-DNP) run=(-l); fi
  rm -f pan* ./*.trail
  spin "$@" -a lockfree.pml >pan.out 2>&1 || fail "spin $*" "the model does not compile"
  gcc -O2 -w "${compile[@]}" -DNOREDUCE -DCOLLAPSE -DMEMLIM="$memory_mib" -o pan pan.c
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

# The comment on the line of the assertion says what it holds.
caught() { # safety | progress, mutant, then -D...
  local label="spin mutant $2" how line
  local switch=-DMUT_${2^^}
  verify "$1" "$switch" "${@:3}"
  grep -q "errors: 1$" pan.out || fail "$label" "expected an error, found none"
  if grep -q "assertion violated" pan.out; then
    line=$(spin "$switch" "${@:3}" -t lockfree.pml | sed -n 's/^spin: lockfree.pml:\([0-9]*\), Error: assertion violated$/\1/p')
    how="assertion: $(sed -n "${line}s|.*/\* \(.*\) \*/.*|\1|p" lockfree.pml)"
  else
    how=$(sed -n 's/^pan:1: \(invalid end state\|non-progress cycle\) .*/\1/p' pan.out)
  fi
  [ -n "$how" ] || fail "$label" "an error of an unexpected kind"
  echo "$label: caught ($how)"
}

if [ "${1-}" = --long ]; then
  prove safety "3 workers, 3 pushes, 1 crash" -DWORKERS=3 -DPUSHES_0=1 -DCRASHES=1
  prove safety "2 workers, 6 pushes, 2 crashes" -DPUSHES_0=3 -DPUSHES_1=3
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
prove safety "3 workers, 3 pushes, 0 crashes" -DWORKERS=3 -DPUSHES_0=1 -DCRASHES=0
# Nothing rests on the wiping of records that nobody may read.
prove safety "2 workers, 3 pushes, 1 crash, nothing wiped" -DCRASHES=1 -DKEEP

caught safety no_recheck -DCRASHES=0 -DKEEP
caught safety no_current -DCRASHES=0 -DKEEP
caught safety no_hazard -DCRASHES=0 -DKEEP
caught safety hazards_first -DCRASHES=0 -DKEEP -DSTRIDE=0
caught safety claim_store -DCRASHES=0 -DKEEP
caught safety in_place -DCRASHES=0 -DKEEP
caught safety early_free -DCRASHES=0 -DKEEP
# Versions alone are no guard where nothing but rejected gradients was consumed: they stay the same.
caught safety early_unprotect -DCRASHES=0 -DKEEP -DREJECTED=11
caught safety commit_store -DCRASHES=0 -DKEEP
caught safety early_publish -DCRASHES=0 -DKEEP
caught safety overrun -DCRASHES=0 -DKEEP -DAHEAD=1
caught safety known_at_start -DCRASHES=1 -DKEEP
caught safety reap_forgets -DCRASHES=1 -DKEEP
caught safety reap_alive -DCRASHES=0 -DKEEP
caught progress pool_small -DRECORDS=3
