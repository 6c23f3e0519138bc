#!/usr/bin/env python3
"""Bus bandwidths of NCCL's collectives by the method of NCCL's own tests, through PyTorch: for each size 5 calls to warm up, then
20 calls one behind the other on the stream, timed from a barrier to the last one's end, the mean over calls and ranks; in place
where NCCL's tests have that. Bus GB/s: bytes / time x 2 (n - 1) / n (all-reduce), x (n - 1) / n (reduce-scatter, all-gather,
all-to-all), x 1 (send-recv: a ring), where bytes are the larger of what a rank sends and receives.
usage: torchrun --nproc-per-node N collectives.py [--out FILE] [--beside FILE]
prints a table; --out: a JSON line like that of `strata bench collectives`; --beside: such a line of Strata's, whose bandwidths
are printed as ratios, and exit 1 where one of 64 MiB or more is below 0.95"""
import argparse, json, os, sys, time
import torch, torch.distributed as dist

args = argparse.ArgumentParser()
args.add_argument("--out")
args.add_argument("--beside")
args.add_argument("--min", type=int, default=1 << 20)
args.add_argument("--max", type=int, default=1 << 30)
args = args.parse_args()
rank, ranks = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
torch.cuda.set_device(rank)
dist.init_process_group("nccl", device_id=torch.device("cuda", rank))
WARM, CALLS = 5, 20


def send_recv(whole, _):
    half = torch.chunk(whole, 2)
    to, source = (rank + 1) % ranks, (rank - 1) % ranks
    for request in dist.batch_isend_irecv([dist.P2POp(dist.isend, half[0], to), dist.P2POp(dist.irecv, half[1], source)]):
        request.wait()


def own(whole):
    return whole.chunk(ranks)[rank]


# Name: the call on two buffers of the size, bytes that count, and its factor.
cases = {
    "all-reduce": (lambda a, b: dist.all_reduce(a), lambda n: n, 2 * (ranks - 1) / ranks),
    "reduce-scatter": (lambda a, b: dist.reduce_scatter_tensor(own(a), a), lambda n: n, (ranks - 1) / ranks),
    "all-gather": (lambda a, b: dist.all_gather_into_tensor(a, own(a)), lambda n: n, (ranks - 1) / ranks),
    "all-to-all": (lambda a, b: dist.all_to_all_single(b, a), lambda n: n, (ranks - 1) / ranks),
    "send-recv": (send_recv, lambda n: n // 2, 1.0),
}
rows = []
for name, (call, counts, factor) in cases.items():
    size = args.min
    while size <= args.max:
        extent = 2 * size if name == "send-recv" else size
        a, b = (torch.zeros(extent // 4, device="cuda") for _ in range(2))
        for _ in range(WARM):
            call(a, b)
        torch.cuda.synchronize()
        dist.barrier()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(CALLS):
            call(a, b)
        torch.cuda.synchronize()
        mean = torch.tensor([(time.perf_counter() - start) / CALLS], device="cuda", dtype=torch.float64)
        dist.all_reduce(mean)
        seconds = mean.item() / ranks
        rows.append({"collective": name, "bytes": size, "us": 1e6 * seconds,
                     "bus_gb_per_s": counts(extent) / seconds * factor / 1e9})
        del a, b
        size *= 4
failed = False
if rank == 0:
    if args.out:
        with open(args.out, "w") as f:
            f.write(json.dumps({"engine": "pytorch " + torch.__version__, "ranks": ranks, "rows": rows}) + "\n")
    ours = {}
    if args.beside:
        for row in json.loads(open(args.beside).read().strip().rsplit("\n", 1)[-1])["rows"]:
            ours[row["collective"], row["bytes"]] = max(row["bus_gb_per_s"], row.get("in_place_bus_gb_per_s", 0))
    for row in rows:
        key = row["collective"], row["bytes"]
        line = f"{key[0]:15} {key[1] / (1 << 20):8.0f} MiB {row['bus_gb_per_s']:8.1f} bus GB/s"
        if key in ours:
            ratio = ours[key] / row["bus_gb_per_s"]
            low = ratio < 0.95 and key[1] >= 64 << 20
            failed = failed or low
            line += f"   strata {ours[key]:8.1f}   ratio {ratio:.3f}{'  LOW' if low else ''}"
        print(line)
dist.destroy_process_group()
sys.exit(1 if failed else 0)
