#!/usr/bin/env bash
# Tokens per second of examples/tiny.toml: a short run into runs/bench without evaluation, read back from its JSONL log.
# usage: bench/run.sh STRATA_BINARY [STEPS]
set -euo pipefail
strata=$(realpath "$1") steps=${2:-40} warmup=5
cd "$(dirname "$0")/.."

[[ -e runs/data ]] || "$strata" data build --text examples/data/pride-and-prejudice.txt --out runs/data --vocab 2048
rm -rf runs/bench
# runs/ is as deep as examples/, so that relative paths in the config still hold.
sed -e '/^\[run\]/,/^\[/ { s/^name *=.*/name = "bench"/; s/^out *=.*/out = "bench"/ }' \
  -e "/^\[schedule\]/,/^\[/ s/^steps *=.*/steps = $steps/" \
  -e "/^\[schedule\]/,/^\[/ s/^warmup *=.*/warmup = $warmup/" \
  -e '/^\[log\]/,/^\[/ s/^every *=.*/every = 1/' \
  -e '/^\[eval\]/,/^\[/ s/^every *=.*/every = 0/' \
  -e '/^\[checkpoint\]/,/^\[/ s/^every *=.*/every = 0/' examples/tiny.toml >runs/bench.toml
"$strata" train runs/bench.toml >runs/bench.txt

log=$(find runs/bench -name '*.jsonl' | sort | head -n 1)
[[ -n $log ]] || { echo "bench: no JSONL log in runs/bench" >&2; exit 1; }
grep -o '"tokens_per_s": *[0-9.e+]*' "$log" | sed 's/.*: *//' | tail -n +$((warmup + 1)) | sort -g |
  awk '{ v[NR] = $1 }
       END {
         if (!NR) { print "bench: no step was logged" >"/dev/stderr"; exit 1 }
         printf "examples/tiny.toml: %.0f tokens/s (median of %d logged steps, %.0f to %.0f)\n", v[int((NR + 1) / 2)], NR, v[1], v[NR]
       }'
