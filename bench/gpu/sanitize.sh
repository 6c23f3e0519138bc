#!/usr/bin/env bash
# On a machine with a GPU: the GPU tests of kernels and of whole jobs, with their smallest shapes, under compute-sanitizer: memcheck (out of
# bounds, misaligned), then racecheck (shared memory), then initcheck or synccheck where they are asked for. Only kernels of ours are
# looked at: their mangled names hold "strata". racecheck does not know barriers that count bytes, and takes block-wide barriers for none
# where parts of the block meet at their own: kernels with such barriers (named sm90 or Staged) are not for it; that their bits repeat and
# are the CPU's within tolerances is what tests show. Nor does it survive clusters of blocks, although it is not to look at them: tests that
# launch some, which all with products do, are left out of it, and what else those launch is in others. Each tool has a time limit; what
# did not finish in it is said. Prints how many tests ran and how long, each tool's summary and its first findings; reports are in
# OUT/sanitize-TOOL-N.txt.
# usage: bench/gpu/sanitize.sh BUNDLE OUT [TOOL...]     (default: memcheck racecheck). FILTER and LIMIT_S (100, of a tool) may be set.
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
# Without cuDNN attention runs on our kernels, and no plan is built under the tool.
export STRATA_SMALL=1 STRATA_CUDNN=/nowhere STRATA_CACHE=${STRATA_CACHE:-$out/cache} STRATA_REQUIRE_GPU=1 OPENBLAS_NUM_THREADS=1

# What says which kernels: --kernel-name, --kernel-regex before 2025.
by_name=--kernel-name
"$sanitizer" --help 2>&1 | grep -q -e --kernel-name || by_name=--kernel-regex
kernels=("$by_name" kns=strata)
not_for_racecheck=("$by_name-exclude" kns=sm90 "$by_name-exclude" kns=Staged)
# In turn, for what is not reached in time.
groups=(
  'CudaRmsNorm.*:CudaLayerNorm.*:CudaRsqrt.*:CudaEmbedding.*'
  'CudaAttention.Packed:CudaAttention.PositionsInAnyOrder:CudaAttention.PackedDocuments:CudaAttention.DeterministicBackward'
  'CudaQuantize.*:CudaElementwise.*:CudaMove.*:CudaRope.*:CudaDocumentPositions.*:CudaBias.*:CudaDropout.*:CudaOptimizer.*:CudaSumParts.*'
  'CudaTrain.Llama:CudaTrain.PackedDocuments'
  'CudaCrossEntropy.*:CudaGradientsInBf16.*Round*:CudaAttentionSm90.Packed:CudaLinear.*InTheProduct'
  'CudaSquares.*:CudaLinear.WeightGradients*'
)
without_clusters=(
  "${groups[@]:0:3}"
  'CudaCrossEntropy.*-*InTwoBlocks:CudaCrossEntropy.ManyLongRows'
  'CudaSquares.PartsAddUp:CudaSquares.TotalOf*:CudaSquares.Embedding*:CudaGradientsInBf16.TablesRoundOnce'
)
limit=${LIMIT_S:-100} failed=0
for tool in "${tools[@]}"; do
  filters=("${groups[@]}")
  [[ $tool != racecheck ]] || filters=("${without_clusters[@]}")
  [[ -z ${FILTER:-} ]] || filters=("$FILTER")
  end=$((SECONDS + limit))
  for i in "${!filters[@]}"; do
    report=$out/sanitize-$tool-$i.txt begin=$SECONDS left=$((end - SECONDS))
    if ((left < 5)); then
      echo "== $tool ${filters[i]}: not reached in $limit s"
      continue
    fi
    options=("${kernels[@]}")
    [[ $tool != racecheck ]] || options+=("${not_for_racecheck[@]}")
    timeout -k 10 "$left" "$sanitizer" --tool "$tool" --error-exitcode 99 --print-limit 200 "${options[@]}" \
      "$bundle/bin/gpu_tests" --gtest_filter="${filters[i]}" >"$report" 2>&1
    rc=$?
    why="exit $rc"
    [[ $rc != 124 && $rc != 137 ]] || why="stopped at the time limit"
    echo "== $tool ${filters[i]}: $why after $((SECONDS - begin)) s, $(grep -c '^\[       OK' "$report") tests ok," \
      "$(grep -c '^\[  FAILED.*ms)' "$report") failed, $(grep -c '^\[  SKIPPED.*ms)' "$report") skipped"
    grep -E '^=+ (ERROR|RACECHECK) SUMMARY' "$report" || echo "no summary: $(tail -n 1 "$report" | cut -c1-200)"
    findings=$(grep -E '^=+ [A-Z]' "$report" | grep -v -E 'SUMMARY|COMPUTE-SANITIZER')
    [[ -z $findings ]] || { head -n 20 <<<"$findings" | cut -c1-300; }
    [[ $rc == 0 || $why == stopped* ]] || failed=1
  done
done
exit $failed
