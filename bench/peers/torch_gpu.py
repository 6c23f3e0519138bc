#!/usr/bin/env python3
"""The same training step as `strata bench step CONFIG` on a GPU, in PyTorch: torch.compile, bf16 by autocast over float32
weights (or bf16 weights alone, with --weights bf16: less memory traffic and less precision than Strata's float32 master
weights), scaled_dot_product_attention, fused AdamW, random tokens. Under torchrun: FSDP2, bf16 parameters gathered from
float32 shards block by block, gradients reduced in float32; --keep gathers once for forward and backward (ZeRO-2).
usage: [torchrun --nproc-per-node N] torch_gpu.py CONFIG [--steps N] [--weights f32|bf16] [--keep]
prints one JSON line like strata's"""
import argparse, json, os, statistics, time, tomllib
import torch, torch.nn as nn, torch.nn.functional as F

args = argparse.ArgumentParser()
args.add_argument("config")
args.add_argument("--steps", type=int, default=20)
args.add_argument("--weights", choices=["f32", "bf16"], default="f32")
args.add_argument("--keep", action="store_true")
args = args.parse_args()
ranks, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("LOCAL_RANK", 0))
torch.cuda.set_device(rank)
config = tomllib.load(open(args.config, "rb"))
m, b, o = config["model"], config["batch"], config["optim"]
gpt2 = m["arch"] == "gpt2"
V, L, E, H, S = (m[k] for k in ("vocab", "layers", "dim", "heads", "seq"))
HK, FF = m.get("kv_heads", H), m.get("ffn", 4 * E)
D, micro, accumulate = E // H, b["micro"], b.get("accumulate", 1)
torch.set_float32_matmul_precision("high")
torch.manual_seed(1)

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        linear = lambda i, o: nn.Linear(i, o, bias=gpt2)
        norm = lambda: nn.LayerNorm(E) if gpt2 else nn.RMSNorm(E, eps=1e-5)
        self.n1, self.n2 = norm(), norm()
        self.wqkv, self.wo = linear(E, (H + 2 * HK) * D), linear(H * D, E)
        self.up, self.down = linear(E, FF if gpt2 else 2 * FF), linear(FF, E)
    def forward(self, x, cos, sin):
        B = x.shape[0]
        q, k, v = self.wqkv(self.n1(x)).view(B, S, H + 2 * HK, D).split((H, HK, HK), 2)
        if not gpt2:
            turn = lambda t: t * cos + torch.cat([-t[..., D // 2:], t[..., :D // 2]], -1) * sin
            q, k = turn(q).to(v.dtype), turn(k).to(v.dtype)
        a = F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)), is_causal=True, enable_gqa=HK != H)
        x = x + self.wo(a.transpose(1, 2).reshape(B, S, H * D))
        h = self.up(self.n2(x))
        if gpt2:
            return x + self.down(F.gelu(h, approximate="tanh"))
        gate, up = h.chunk(2, -1)
        return x + self.down(F.silu(gate) * up)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(V, E), nn.Linear(E, V, bias=False)
        self.norm = nn.LayerNorm(E) if gpt2 else nn.RMSNorm(E, eps=1e-5)
        self.blocks = nn.ModuleList(Block() for _ in range(L))
        if gpt2:
            self.positions = nn.Embedding(S, E)
            self.head.weight = self.embed.weight
    def forward(self, tokens, targets, cos, sin):
        x = self.embed(tokens)
        if gpt2:
            x = x + self.positions.weight
        for block in self.blocks:
            x = block(x, cos, sin)
        return F.cross_entropy(self.head(self.norm(x)).view(-1, V), targets.reshape(-1))

with torch.device("cuda"):
    model = Model()
    for p in model.parameters():
        if p.dim() > 1:
            nn.init.normal_(p, std=0.02)
    angle = torch.arange(S)[:, None] * 10000.0 ** (-torch.arange(D // 2) * 2 / D)
    cos, sin = (torch.cat([t, t], -1)[:, None].bfloat16() for t in (angle.cos(), angle.sin()))
if args.weights == "bf16":
    model.bfloat16()
if ranks > 1:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    torch.distributed.init_process_group("nccl", device_id=torch.device("cuda", rank))
    policy = dict(mp_policy=MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32),
                  reshard_after_forward=not args.keep)
    for block in model.blocks:
        block.compile()
        fully_shard(block, **policy)
    fully_shard(model, **policy)
run = model if ranks > 1 else torch.compile(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
times, losses = [], []
for step in range(args.steps + 5):
    torch.cuda.synchronize()
    start = time.time()
    for _ in range(accumulate):
        data = torch.randint(0, V, (micro, S + 1), device="cuda")
        with torch.autocast("cuda", torch.bfloat16, enabled=args.weights == "f32" and ranks == 1):
            loss = run(data[:, :-1], data[:, 1:], cos, sin) / accumulate
        loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    losses.append(loss.item() * accumulate)
    if step >= 5:
        times.append(time.time() - start)
s, tokens = statistics.median(times), micro * accumulate * S * ranks
sharding = "" if ranks == 1 else ", FSDP2" + (", gathered once" if args.keep else "")
if rank == 0:
    print(json.dumps({"engine": "pytorch " + torch.__version__ + " compiled, weights " + args.weights + sharding,
                      "ranks": ranks, "device": torch.cuda.get_device_name(), "step_s": s, "min_s": min(times), "max_s": max(times),
                      "tokens_per_s": tokens / s, "first_loss": losses[0], "last_loss": losses[-1],
                      "peak_bytes": torch.cuda.max_memory_allocated()}))
if ranks > 1:
    torch.distributed.destroy_process_group()
