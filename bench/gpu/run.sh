#!/usr/bin/env bash
# On a machine with a GPU: the GPU tests, then every training step of bench/gpu/*.toml, its matrix products and attention alone
# (after `steps` also how far the step is from 1.06 x products + 53 ms), and PyTorch beside it.
# usage: bench/gpu/run.sh BUNDLE_DIR OUT_DIR [tests] [steps] [gemms] [peers] [CONFIG...]     (default: tests steps, all configs)
set -uo pipefail
bundle=$(realpath "$1") out=$(realpath "$2")
shift 2
cd "$(dirname "$0")/../.."
what=() configs=()
for word in "$@"; do if [[ $word == *.toml ]]; then configs+=("$word"); else what+=("$word"); fi; done
[[ ${#what[@]} -gt 0 ]] || what=(tests steps)
[[ ${#configs[@]} -gt 0 ]] || configs=(bench/gpu/*.toml)
has() { [[ " ${what[*]} " == *" $1 "* ]]; }

# cuDNN and cuBLASLt of PyTorch's packages, where there are any, before the system's.
site=$(python3 -c 'import site; print(site.getsitepackages()[0])' 2>/dev/null || true)
for folder in "$bundle/lib" "$site"/nvidia/cudnn/lib "$site"/nvidia/cu13/lib /usr/local/cuda/lib64; do
  [[ -d $folder ]] && export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
export STRATA_CACHE=$out/cache STRATA_REQUIRE_GPU=1 OPENBLAS_NUM_THREADS=1
nvidia-smi --query-gpu=name,driver_version,clocks.sm,power.limit --format=csv,noheader
"$bundle/bin/strata" doctor 2>&1 | grep -i -E 'gpu|cuda' || true

if has tests; then
  # CudnnEngines reads a file of the tree that it was built in, and needs no GPU.
  "$bundle/bin/gpu_tests" --gtest_brief=1 --gtest_filter="${FILTER:--CudnnEngines.*}" >"$out/tests.log" 2>&1
  echo "gpu_tests: exit $?"
  grep -E '^\[  FAILED|^\[  PASSED|SKIPPED' "$out/tests.log" | sort -u | head -60
fi
if has steps; then
  for config in "${configs[@]}"; do
    echo "== $config"
    "$bundle/bin/strata" bench step "$config" --steps "${STEPS:-20}" --table >"$out/$(basename "$config" .toml).txt" 2>&1 ||
      echo "failed: $?"
    head -n "${ROWS:-32}" "$out/$(basename "$config" .toml).txt" | cut -c1-170
    tail -n 1 "$out/$(basename "$config" .toml).txt"
  done
fi
if has gemms; then
  for config in "${configs[@]}"; do
    name=$(basename "$config" .toml)
    for kind in gemm attention; do
      "$bundle/bin/strata" bench $kind "$config" --steps "${STEPS:-20}" 2>&1 | tail -n 1 >"$out/$name-$kind.json"
    done
    python3 - "$name" "$out" <<'PY'
import json, os, sys
name, out = sys.argv[1:]
try:
    gemm, attention = (json.load(open(f"{out}/{name}-{what}.json")) for what in ("gemm", "attention"))
    line = (f"{name}: products {gemm['sum_ms']:.1f} ms at {gemm['tflops']:.0f} TFLOP/s, attention {attention['sum_ms']:.1f} ms at "
            f"{attention['tflops']:.0f}; 1.06 x products + 53 ms = {1.06 * gemm['sum_ms'] + 53:.1f} ms")
    if os.path.exists(f"{out}/{name}.txt"):
        line += f", the step took {1e3 * json.loads(open(f'{out}/{name}.txt').read().splitlines()[-1])['step_s']:.1f}"
    print(line)
except (ValueError, KeyError) as e:
    print(f"{name}: bench gemm or attention failed: {e}")
PY
  done
fi
if has peers; then
  for config in "${configs[@]}"; do
    timeout 170 python3 bench/peers/torch_gpu.py "$config" --steps "${STEPS:-20}" --weights "${WEIGHTS:-f32}" 2>&1 | tail -n 1 | tee -a "$out/peers.txt"
  done
fi
