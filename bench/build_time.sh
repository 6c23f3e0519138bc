#!/usr/bin/env bash
# Seconds of a build of strata from nothing, without ccache, with all cores; in a folder that is removed. One JSON line.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cmake -G Ninja -B "$folder" -DCMAKE_BUILD_TYPE=Release -DSTRATA_CCACHE=OFF >"$folder/log"
start=$(date +%s.%N)
ninja -C "$folder" -j "$(nproc)" strata >"$folder/log"
end=$(date +%s.%N)
gpu=$(sed -n 's/^STRATA_HAVE_CUDA:INTERNAL=//p' "$folder/CMakeCache.txt")
printf '{"build": "strata", "cores": %d, "seconds": %.0f, "gpu_back_end": "%s", "binary_bytes": %d}\n' \
  "$(nproc)" "$(awk "BEGIN { print $end - $start }")" "${gpu:-OFF}" "$(stat -c %s "$folder/strata")"
