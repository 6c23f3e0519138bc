#!/usr/bin/env bash
# Starts and stops of a job of two ranks on two GPUs: STARTS times as threads (worlds and communicators made, some collectives,
# then closed or aborted, at random), a tenth as often as processes that train, every other one interrupted. A hang is an error.
# usage: bench/gpu/starts.sh BIN_DIR [STARTS]      BIN_DIR: where gpu_tests and strata lie
set -euo pipefail
bin=$1 starts=${2:-200}
begun=$SECONDS
STRATA_REQUIRE_GPU=2 STRATA_STARTS=$starts timeout $((120 + 5 * starts)) "$bin/gpu_tests" --gtest_brief=1 \
  --gtest_filter='Nccl.ManyWorldsOneAfterTheOther:GpuProcesses.StartAndStop'
echo "$starts starts and stops of threads, $((starts / 10)) of processes: $((SECONDS - begun)) s, none hung"
