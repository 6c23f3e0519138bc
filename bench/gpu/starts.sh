#!/usr/bin/env bash
# Starts and stops of jobs of two ranks on two GPUs: STARTS times as threads (worlds and communicators made, some collectives,
# then closed or aborted, at random), four programs at a time, and beside them a tenth as often as processes that train, every
# other one interrupted. A hang is an error.
# usage: bench/gpu/starts.sh BIN_DIR [STARTS]      BIN_DIR: where gpu_tests and strata lie
set -uo pipefail
bin=$1 starts=${2:-200}
begun=$SECONDS at_a_time=4
logs=$(mktemp -d)
each=$(((starts + at_a_time - 1) / at_a_time))
export STRATA_REQUIRE_GPU=2
run() {  # NAME FILTER
  timeout $((120 + 5 * starts)) "$bin/gpu_tests" --gtest_brief=1 --gtest_filter="$2" >"$logs/$1" 2>&1
  local rc=$?
  [[ $rc == 0 ]] || { echo "$1: exit $rc"; tail -n 5 "$logs/$1"; }
  return $rc
}
jobs=()
for ((i = 0; i < at_a_time; ++i)); do
  STRATA_FIRST_START=$((i * each)) STRATA_STARTS=$each run "threads-$i" Nccl.ManyWorldsOneAfterTheOther &
  jobs+=($!)
done
STRATA_STARTS=$starts run processes GpuProcesses.StartAndStop &
jobs+=($!)
failed=0
for job in "${jobs[@]}"; do wait "$job" || failed=1; done
rm -rf "$logs"
[[ $failed == 0 ]] && echo "$((each * at_a_time)) starts and stops of threads, $((starts / 10)) of processes: $((SECONDS - begun)) s, none hung"
exit $failed
