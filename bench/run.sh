#!/usr/bin/env bash
# Tokens per second of examples/tiny.toml: a short run into runs/bench, read back from its JSONL log.
# usage: bench/run.sh STRATA_BINARY [STEPS]
set -euo pipefail
cd "$(dirname "$0")/.."
strata=$1 steps=${2:-40} warmup=5

[[ -e runs/data ]] || "$strata" data build --text examples/data/pride-and-prejudice.txt --out runs/data --vocab 2048
rm -rf runs/bench
"$strata" train examples/tiny.toml --set "run.out=\"runs/bench\"" --set "schedule.steps=$steps" >/dev/null

log=$(find runs/bench -name '*.jsonl' | sort | head -n 1)
[[ -n $log ]] || { echo "bench: no JSONL log in runs/bench" >&2; exit 1; }
grep -o '"tokens_per_s": *[0-9.e+]*' "$log" | sed 's/.*: *//' | tail -n +$((warmup + 1)) | sort -g |
  awk '{ v[NR] = $1 } END { if (!NR) exit 1; printf "examples/tiny.toml: %.0f tokens/s (median of %d steps, %.0f to %.0f)\n", v[int((NR + 1) / 2)], NR, v[1], v[NR] }'
