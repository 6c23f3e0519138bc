#!/usr/bin/env bash
# On a machine with two GPUs: the GPU tests, then training steps of every layout of two ranks, and PyTorch's FSDP2 beside them.
# usage: bench/gpu/run_pair.sh BUNDLE_DIR OUT_DIR [tests] [steps] [peers]     (default: all)
# FILTER: of the tests; ONLY: a regular expression of rows; STEPS: of each.
set -uo pipefail
bundle=$(realpath "$1") out=$(realpath "$2")
shift 2
cd "$(dirname "$0")/../.."
what=("$@")
[[ ${#what[@]} -gt 0 ]] || what=(tests steps peers)
has() { [[ " ${what[*]} " == *" $1 "* ]]; }

# cuDNN, cuBLASLt and NCCL of PyTorch's packages, where there are any, before the system's.
site=$(python3 -c 'import site; print(site.getsitepackages()[0])' 2>/dev/null || true)
for folder in "$bundle/lib" "$site"/nvidia/cudnn/lib "$site"/nvidia/nccl/lib "$site"/nvidia/cu13/lib /usr/local/cuda/lib64; do
  [[ -d $folder ]] && export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
export STRATA_CACHE=$out/cache STRATA_REQUIRE_GPU=2 OPENBLAS_NUM_THREADS=1 NCCL_NVLS_ENABLE=0
nvidia-smi --query-gpu=name,driver_version,power.limit --format=csv,noheader

if has tests; then
  # CudnnEngines reads a file of the tree that it was built in, and needs no GPU.
  timeout 240 "$bundle/bin/gpu_tests" --gtest_brief=1 --gtest_filter="${FILTER:--CudnnEngines.*}" >"$out/tests.log" 2>&1
  echo "gpu_tests: exit $?"
  grep -E '^\[  FAILED|^\[  PASSED|SKIPPED' "$out/tests.log" | sort -u | head -40
fi

step() {  # NAME CONFIG SETTING...; SIMULATE=--simulate: beside the simulator's step
  local name=$1 config=$2 settings=()
  shift 2
  [[ $name =~ ${ONLY:-.} ]] || return 0
  for s in "$@"; do settings+=(--set "$s"); done
  timeout 120 "$bundle/bin/strata" bench step "$config" --steps "${STEPS:-10}" --table ${SIMULATE:-} "${settings[@]}" >"$out/$name.txt" 2>&1
  local rc=$?
  python3 - "$name" "$rc" "$out/$name.txt" <<'PY'
import json, sys
name, rc, path = sys.argv[1:]
last = open(path).read().strip().splitlines()[-1]
try:
    r = json.loads(last)
    print(f"{name:28} {1e3*r['step_s']:8.1f} ms ({1e3*r['min_s']:.1f}-{1e3*r['max_s']:.1f})  mfu {r.get('mfu', 0):.3f}  collectives {1e3*r['collective_s']:.1f} ms, exposed {1e3*r['exposed_communication_s']:.1f}  "
          f"planned {r['planned_bytes']/1e9:.2f} GB, in use {r['peak_bytes']/1e9:.2f}  {r.get('watts', 0):.0f} W, {r.get('sm_mhz', 0):.0f} MHz  loss {r['first_loss']:.4f} -> {r['last_loss']:.4f}")
    if "simulated_s" in r:
        shares = lambda key: "/".join(f"{100*x:.1f}" for x in r[key])
        print(f"{'':28} {1e3*r['simulated_s']:8.1f} ms simulated, {100*r['simulated_off']:+.2f}% (profiled {1e3*r['profiled_s']:.1f})  "
              f"idle {shares('pipeline_idle')}% measured, {shares('simulated_idle')}% simulated, {100*r['idle_off']:.2f} points at most")
except ValueError:
    print(f"{name:28} failed ({rc}): {last[:300]}")
PY
}
if has steps; then
  small=bench/gpu/llama1b.toml large=bench/gpu/llama3b.toml
  step 1.3B-one $small
  step 1.3B-one-in-turn $small parallel.overlap='"off"'
  step 1.3B-dp2 $small parallel.dp=2
  for zero in 1 2 3; do step 1.3B-dp2-zero$zero $small parallel.dp=2 parallel.zero=$zero; done
  step 1.3B-dp2-zero1-in-turn $small parallel.dp=2 parallel.zero=1 parallel.overlap='"off"'
  step 1.3B-tp2-sp $small parallel.tp=2 parallel.sequence_parallel=true parallel.keep_gathered=true
  step 3B-tp2-sp $large batch.micro=4 parallel.tp=2 parallel.sequence_parallel=true parallel.keep_gathered=true
  for schedule in 1f1b interleaved zb-h1 zbv; do
    SIMULATE=--simulate step 3B-pp2-$schedule $large batch.micro=1 batch.accumulate=16 parallel.pp=2 parallel.schedule="\"$schedule\""
  done
  for cut in 15 16; do  # beside the block that auto cuts
    step 3B-pp2-zb-h1-whole-$cut $large batch.micro=1 batch.accumulate=16 parallel.pp=2 parallel.schedule='"zb-h1"' \
      parallel.stage_layout="\"E,0-$((cut - 1)) | $cut-27,H\""
  done
fi
if has peers; then
  for keep in "" --keep; do
    timeout 150 torchrun --nproc-per-node 2 bench/peers/torch_gpu.py bench/gpu/llama1b.toml --steps "${STEPS:-10}" $keep 2>"$out/peer.err" | tail -n 1
  done
fi
