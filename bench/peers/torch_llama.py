#!/usr/bin/python3
"""The same training step as `strata bench step CONFIG`, in PyTorch: one process, float32, random tokens.
usage: torch_llama.py CONFIG [STEPS] [THREADS]     prints one JSON line like strata's
Needs Debian's python3-torch. All data-parallel ranks' sequences are one batch here: the same tokens a step."""
import json, statistics, sys, time, tomllib
import torch, torch.nn as nn, torch.nn.functional as F

config = tomllib.load(open(sys.argv[1], "rb"))
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 20
torch.set_num_threads(int(sys.argv[3]) if len(sys.argv) > 3 else torch.get_num_threads())
m, b, o = config["model"], config["batch"], config["optim"]
dp = config.get("parallel", {}).get("dp", 1)
V, L, E, H, HK, FF, S = (m[k] for k in ("vocab", "layers", "dim", "heads", "kv_heads", "ffn", "seq"))
D, rows = E // H, b["tokens"] // m["seq"]
micro = b["micro"] * dp

class RMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(E))
    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight

angle = torch.arange(S)[:, None] * 10000.0 ** (-torch.arange(D // 2) * 2 / D)
cos, sin = angle.cos()[:, None], angle.sin()[:, None]
causal = torch.full((S, S), float("-inf")).triu(1)

def rope(x):  # [B, S, H, D]
    a, c = x.chunk(2, -1)
    return torch.cat([a * cos - c * sin, c * cos + a * sin], -1)

class Block(nn.Module):
    def __init__(self):
        super().__init__()
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.n1, self.n2 = RMSNorm(), RMSNorm()
        self.wqkv, self.wo = linear(E, (H + 2 * HK) * D), linear(H * D, E)
        self.gate_up, self.down = linear(E, 2 * FF), linear(FF, E)
    def forward(self, x):
        B = x.shape[0]
        q, k, v = self.wqkv(self.n1(x)).split((H * D, HK * D, HK * D), -1)
        q, k, v = rope(q.view(B, S, H, D)), rope(k.view(B, S, HK, D)), v.view(B, S, HK, D)
        if HK != H:
            k, v = k.repeat_interleave(H // HK, 2), v.repeat_interleave(H // HK, 2)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        p = torch.softmax(q @ k.transpose(-1, -2) * D ** -0.5 + causal, -1)
        x = x + self.wo((p @ v).transpose(1, 2).reshape(B, S, H * D))
        gate, up = self.gate_up(self.n2(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)

class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.norm, self.head = nn.Embedding(V, E), RMSNorm(), nn.Linear(E, V, bias=False)
        self.blocks = nn.ModuleList(Block() for _ in range(L))
    def forward(self, tokens, targets):
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return F.cross_entropy(self.head(self.norm(x)).view(-1, V), targets.reshape(-1), reduction="sum")

torch.manual_seed(1)
model = Llama()
for p in model.parameters():
    if p.dim() > 1:
        nn.init.normal_(p, std=0.02)
optimizer = torch.optim.AdamW(model.parameters(), lr=o.get("lr", 1e-3), betas=(0.9, 0.95), weight_decay=0.1, foreach=True)
times, losses = [], []
for step in range(steps + 3):
    start, total = time.time(), 0.0
    for i in range(0, rows, micro):
        data = torch.randint(0, V, (micro, S + 1))
        loss = model(data[:, :-1], data[:, 1:]) / (rows * S)
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    if step >= 3:
        times.append(time.time() - start)
    losses.append(total)
s = statistics.median(times)
print(json.dumps({"engine": "pytorch " + torch.__version__, "threads": torch.get_num_threads(), "step_s": s, "min_s": min(times),
                  "tokens_per_s": b["tokens"] / s, "first_loss": losses[0], "last_loss": losses[-1]}))
