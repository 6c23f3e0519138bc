#!/usr/bin/env bash
# On a machine with a GPU: the GPU tests of kernels and of whole jobs (all of small shapes) under compute-sanitizer: memcheck (out of
# bounds, misaligned), then racecheck (shared memory), then initcheck or synccheck where they are asked for. Only kernels of ours are
# looked at: their mangled names hold "strata". Each tool has a time limit; what did not finish in it is said. Prints how many
# tests ran, each tool's summary and its first findings; reports are in OUT/sanitize-TOOL.txt.
# usage: bench/gpu/sanitize.sh BUNDLE OUT [TOOL...]     (default: memcheck racecheck). FILTER and LIMIT_S (150) may be set.
set -uo pipefail
bundle=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
shift 2
tools=("$@")
[[ ${#tools[@]} -gt 0 ]] || tools=(memcheck racecheck)
cd "$(dirname "$0")/../.."

sanitizer=
for path in "$(command -v compute-sanitizer)" "$bundle/bin/compute-sanitizer" /usr/local/cuda/bin/compute-sanitizer \
  /usr/local/cuda/compute-sanitizer/compute-sanitizer; do
  if [[ -n $path && -x $path ]]; then
    sanitizer=$path
    break
  fi
done
[[ -n $sanitizer ]] || { echo "no compute-sanitizer on this machine"; exit 69; }

site=$(python3 -c 'import site; print(site.getsitepackages()[0])' 2>/dev/null || true)
for folder in "$bundle/lib" "$site"/nvidia/cudnn/lib "$site"/nvidia/cu13/lib /usr/local/cuda/lib64; do
  [[ -d $folder ]] && export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
export STRATA_CACHE=${STRATA_CACHE:-$out/cache} STRATA_REQUIRE_GPU=1 OPENBLAS_NUM_THREADS=1

# What says which kernels: --kernel-name, --kernel-regex before 2025.
by_name=--kernel-name
"$sanitizer" --help 2>&1 | grep -q -e --kernel-name || by_name=--kernel-regex
# Kernels before whole jobs, for what is not reached in time.
kernels='CudaQuantize.*:CudaElementwise.*:CudaMove.*:CudaRmsNorm.*:CudaLayerNorm.*:CudaRope.*:CudaDocumentPositions.*:CudaRsqrt.*'
kernels+=':CudaEmbedding.*:CudaCrossEntropy.*:CudaDropout.*:CudaBias.*:CudaOptimizer.*:CudaAttention.*'
failed=0
for tool in "${tools[@]}"; do
  options=(--tool "$tool" --error-exitcode 99 --print-limit 20 "$by_name" kns=strata)
  filter=${FILTER:-$kernels:CudaTrain.Llama:CudaTrain.PackedDocuments}
  report=$out/sanitize-$tool.txt
  timeout -k 10 "${LIMIT_S:-150}" "$sanitizer" "${options[@]}" "$bundle/bin/gpu_tests" --gtest_filter="$filter" >"$report" 2>&1
  rc=$?
  echo "== $tool: exit $rc$([[ $rc == 124 || $rc == 137 ]] && echo " (the time limit of ${LIMIT_S:-150} s)"), $(grep -c '^\[       OK' "$report") tests ok," \
    "$(grep -c '^\[  FAILED' "$report") failed, $(grep -c '^\[  SKIPPED' "$report") skipped"
  grep -E '^========= (ERROR SUMMARY|RACECHECK SUMMARY)' "$report"
  grep -E -A6 '^========= (Invalid|Error|Warning|Program hit|Uninitialized)' "$report" | head -n 40
  [[ $rc == 0 || $rc == 124 || $rc == 137 ]] || failed=1
done
exit $failed
