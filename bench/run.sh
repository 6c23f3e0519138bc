#!/usr/bin/env bash
# Training speed on this machine's CPU, float32, random tokens: ours, and PyTorch for the same work where python3-torch is
# installed, in turn, so that a drifting machine treats both alike. One JSON line a run, then the ratios of medians.
# usage: bench/run.sh STRATA_BINARY [STEPS] [ROUNDS]
set -euo pipefail
strata=$(realpath "$1") steps=${2:-10} rounds=${3:-3}
cd "$(dirname "$0")/.."
threads=$(nproc)
peer() { /usr/bin/python3 bench/peers/torch_llama.py "$1" "$steps" "$threads"; }
torch=no
if /usr/bin/python3 -c 'import torch' 2>/dev/null; then torch=yes; else echo "bench: no python3-torch here: no peer" >&2; fi

median() { grep -o '"tokens_per_s": *[0-9.e+]*' | sed 's/.*: *//' | sort -g | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }
for config in examples/tiny.toml bench/llama20m.toml; do
  ours= theirs=
  for ((i = 0; i < rounds; ++i)); do
    line=$("$strata" bench step "$config" --steps "$steps")
    echo "$config $line" && ours+="$line"$'\n'
    if [[ $torch == yes ]]; then
      # OpenBLAS threads as a PyTorch user has them; ours runs it on one thread a rank.
      line=$(env -u OPENBLAS_NUM_THREADS bash -c "$(declare -f peer); steps=$steps threads=$threads peer $config")
      echo "$config $line" && theirs+="$line"$'\n'
    fi
  done
  a=$(median <<<"$ours")
  if [[ $torch == yes ]]; then
    awk -v c="$config" -v a="$a" -v b="$(median <<<"$theirs")" 'BEGIN { printf "%s: strata %.0f tokens/s, PyTorch %.0f, ratio %.2f\n", c, a, b, a / b }'
  else
    printf '%s: strata %.0f tokens/s\n' "$config" "$a"
  fi
done
