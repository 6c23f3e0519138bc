#!/usr/bin/env bash
# On a machine with several GPUs: strata bench collectives with each of NCCL's settings, one JSON line each in OUT_DIR, and a table of
# bus GB/s; beside the first bandwidths by the method of NCCL's tests through PyTorch (bench/peers/collectives.py), and those tests
# themselves where they are in PATH. ONLY: a regular expression of the settings.
# usage: bench/gpu/collectives.sh BIN_DIR OUT_DIR [RANKS]      BIN_DIR: where strata lies
set -uo pipefail
bin=$1 out=$2 ranks=${3:-2}
mkdir -p "$out"
run() {  # name, options
  local name=$1
  shift
  [[ $name =~ ${ONLY:-.} ]] || return 0
  "$bin/strata" bench collectives -n "$ranks" --device cuda --min 4KiB --max 1GiB --factor 4 "$@" >"$out/$name.txt" 2>&1 ||
    echo "failed: $name: $(tail -n 1 "$out/$name.txt" | cut -c1-300)"
}
run nccl --transport nccl
run default
run no-watch --no-watch
run direct --launch direct
run direct-no-watch --launch direct --no-watch
for ctas in 4 8 16 24 32; do run "ctas-$ctas" --ctas "$ctas"; done
for buffers in registered symmetric copy-engine; do run "$buffers" --buffers "$buffers"; done
run symmetric-ctas-16 --buffers symmetric --ctas 16
run bf16 --dtype bfloat16
run host --transport host --max 64MiB
python3 - "$out" <<'PYTHON'
import glob, json, os, sys
sizes = [4096, 65536, 1 << 20, 16 << 20, 256 << 20, 1 << 30]
names = ["all-reduce", "reduce-scatter", "all-gather", "all-to-all", "send-recv"]
for name in names:
    print(f"\n{name}: us at 4 KiB, 64 KiB; bus GB/s at 1, 16, 256, 1024 MiB (better of in place and not); issue us at 4 KiB")
    for path in sorted(glob.glob(os.path.join(sys.argv[1], "*.txt")), key=os.path.getmtime):
        last = open(path).read().strip().rsplit("\n", 1)[-1]
        if not last.startswith("{"):
            continue
        rows = {r["bytes"]: r for r in json.loads(last)["rows"] if r["collective"] == name}
        cells = []
        for s in sizes:
            r = rows.get(s)
            if r is None:
                cells.append("       -")
            elif s < 1 << 20:
                cells.append(f"{min(r['us'], r.get('in_place_us', r['us'])):8.1f}")
            else:
                cells.append(f"{max(r['bus_gb_per_s'], r.get('in_place_bus_gb_per_s', 0)):8.1f}")
        issue = rows.get(4096, {}).get("issue_us", 0)
        print(f"  {os.path.basename(path)[:-4]:20s}", *cells, f"{issue:8.1f}")
PYTHON
if command -v torchrun >/dev/null && [[ -f $out/nccl.txt ]]; then
  echo
  NCCL_NVLS_ENABLE=0 torchrun --nproc-per-node "$ranks" "$(dirname "$0")/../peers/collectives.py" --beside "$out/nccl.txt" 2>"$out/torch.err" ||
    tail -n 3 "$out/torch.err"
fi
for tool in all_reduce_perf reduce_scatter_perf all_gather_perf alltoall_perf; do
  command -v $tool >/dev/null || continue
  NCCL_NVLS_ENABLE=0 $tool -b 4K -e 1G -f 4 -g "$ranks" -n 20 -w 5 | tee "$out/$tool.log"
done
