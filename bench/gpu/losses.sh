#!/usr/bin/env bash
# On a machine with GPUs: 50 steps of a small Llama on the same weights and tokens (bench/peers/losses.py), and a table of the mean
# of the last ten losses of each run beside the first run's: run, loss of step 1, mean, difference, ok or FAILED (over 0.02 nats).
#   one   GPU in bf16, also with bf16 gradients and masters in halves, and float32, CPU in float32, PyTorch in bf16 (autocast) and
#         float32; then with documents kept apart the GPU, also with run.deterministic, and the CPU
#   two   every layout of two GPUs beside one GPU, in both dtypes, with and without overlap
# usage: bench/gpu/losses.sh BUNDLE OUT [one] [two]     (default: both). LAYOUTS, DTYPES, OVERLAPS narrow the second.
set -uo pipefail
bundle=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
shift 2
cd "$(dirname "$0")/../.."
what=("$@")
[[ ${#what[@]} -gt 0 ]] || what=(one two)
has() { [[ " ${what[*]} " == *" $1 "* ]]; }
limit=0.02 failed=0

# cuDNN, cuBLASLt and NCCL of PyTorch's packages, where there are any, before the system's.
site=$(python3 -c 'import site; print(site.getsitepackages()[0])' 2>/dev/null || true)
for folder in "$bundle/lib" "$site"/nvidia/cudnn/lib "$site"/nvidia/nccl/lib "$site"/nvidia/cu13/lib /usr/local/cuda/lib64; do
  [[ -d $folder ]] && export LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder
done
export STRATA_CACHE=${STRATA_CACHE:-$out/cache} OPENBLAS_NUM_THREADS=1 NCCL_NVLS_ENABLE=0
python3 bench/peers/losses.py prepare "$out/losses" || exit 1

train() {  # NAME SETTING...
  local name=$1 settings=(--set "run.out=$out/losses/run-$1")
  shift
  for s in "$@"; do settings+=(--set "$s"); done
  rm -rf "$out/losses/run-$name"
  timeout "${LIMIT_S:-90}" "$bundle/bin/strata" train "$out/losses/job.toml" "${settings[@]}" >"$out/losses/$name.log" 2>&1 ||
    { echo "$name: exit $?"; tail -n 3 "$out/losses/$name.log"; }
  rm -rf "$out/losses/run-$name/checkpoints"
  runs+=("$name=$out/losses/run-$name/metrics.jsonl")
}
table() { python3 bench/peers/losses.py table $limit "${runs[@]}" | tee "$out/losses-$1.txt" || failed=1; }

if has one; then
  runs=()
  train gpu-bf16 run.device=cuda precision.compute=bf16
  train gpu-bf16-lean run.device=cuda precision.compute=bf16 precision.gradients=bf16 precision.master=split
  train gpu-f32 run.device=cuda precision.compute=float32
  OPENBLAS_CORETYPE=SkylakeX train cpu-f32 run.device=cpu precision.compute=float32
  for compute in bf16 f32; do
    timeout 90 python3 bench/peers/losses.py torch "$out/losses" $compute >"$out/losses/torch-$compute.jsonl" 2>"$out/losses/torch-$compute.err"
    runs+=("torch-$compute=$out/losses/torch-$compute.jsonl")
  done
  table one
  runs=()
  train gpu-bf16-documents run.device=cuda precision.compute=bf16 data.packing=isolate optim.lr=0.0005
  train gpu-bf16-equal-bits run.device=cuda precision.compute=bf16 data.packing=isolate optim.lr=0.0005 run.deterministic=true
  OPENBLAS_CORETYPE=SkylakeX train cpu-f32-documents run.device=cpu precision.compute=float32 data.packing=isolate optim.lr=0.0005
  table one-documents
fi

# What a layout is, so that a step has the same 16 rows.
declare -A layout=(
  [dp2]="parallel.dp=2 batch.micro=8"
  [dp2-acc4]="parallel.dp=2 batch.micro=2 batch.accumulate=4"
  [zero1]="parallel.dp=2 parallel.zero=1 batch.micro=8"
  [zero2]="parallel.dp=2 parallel.zero=2 batch.micro=4 batch.accumulate=2"
  [zero3]="parallel.dp=2 parallel.zero=3 batch.micro=4 batch.accumulate=2"
  [tp2]="parallel.tp=2"
  [tp2-sp]="parallel.tp=2 parallel.sequence_parallel=true"
  [pp2-1f1b]="parallel.pp=2 parallel.schedule=1f1b batch.micro=4 batch.accumulate=4"
  [pp2-zb]="parallel.pp=2 parallel.schedule=zb-h1 batch.micro=4 batch.accumulate=4"
)
if has two; then
  overlaps=${OVERLAPS:-}
  if [[ -z $overlaps ]]; then
    overlaps="as-it-is"
    grep -q '^| `overlap`' docs/config.md && overlaps="on off"
  fi
  for dtype in ${DTYPES:-bf16 float32}; do
    runs=()
    train "one-$dtype" run.device=cuda precision.compute="$dtype"
    for name in ${LAYOUTS:-dp2 dp2-acc4 zero1 zero2 zero3 tp2 tp2-sp pp2-1f1b pp2-zb}; do
      for overlap in $overlaps; do
        settings=(run.device=cuda precision.compute="$dtype")
        [[ $overlap == as-it-is ]] || settings+=("parallel.overlap=$overlap")
        # shellcheck disable=SC2206
        settings+=(${layout[$name]})
        train "$name-$dtype-$overlap" "${settings[@]}"
      done
    done
    table "two-$dtype"
  done
fi
exit $failed
