#!/usr/bin/env python3
"""50 training steps of a small Llama (4.1 M parameters) on the same weights and tokens everywhere: losses by step.
usage: losses.py prepare DIR           writes DIR/hf (weights, float32), DIR/train.bin and .idx (tokens), DIR/job.toml
       losses.py torch DIR [f32|bf16]  trains it in PyTorch (bf16: autocast over float32 weights) on a GPU, else on the CPU
       losses.py table LIMIT NAME=FILE...   the means of the last ten losses beside the first one's, and whether each is
                                       within LIMIT nats of it; a FILE is a metrics.jsonl, or what `torch` printed
The tokens are a random chain, drawn from a fixed seed: each has eight successors, of unequal weight, so that there is
something to learn; they are cut into documents of 1 to 200 tokens, which count where data.packing is "isolate". Only `torch` needs PyTorch. That its order of rows is Strata's shows in the loss of step 1."""
import array, json, math, os, random, struct, sys

V, L, E, H, HK, D, FF, S, ROWS, STEPS, WARMUP, LR, DECAY, CLIP = 2048, 4, 256, 4, 2, 64, 704, 256, 16, 50, 5, 2e-3, 0.1, 1.0
TOKENS = 1 << 18

JOB = f"""[run]
name = "losses"
out = "run"

[model]
from = "hf:hf"
seq = {S}

[data]
train = "train"

[batch]
micro = {ROWS}
accumulate = 1

[optim]
lr = {LR}
weight_decay = {DECAY}
clip = {CLIP}

[schedule]
type = "linear"
steps = {STEPS}
warmup = {WARMUP}
min_lr = 1.0

[log]
every = 1
"""


def shapes():
    yield "model.embed_tokens.weight", (V, E)
    for i in range(L):
        p = f"model.layers.{i}."
        yield p + "self_attn.q_proj.weight", (H * D, E)
        yield p + "self_attn.k_proj.weight", (HK * D, E)
        yield p + "self_attn.v_proj.weight", (HK * D, E)
        yield p + "self_attn.o_proj.weight", (E, H * D)
        yield p + "mlp.gate_proj.weight", (FF, E)
        yield p + "mlp.up_proj.weight", (FF, E)
        yield p + "mlp.down_proj.weight", (E, FF)
        yield p + "input_layernorm.weight", (E,)
        yield p + "post_attention_layernorm.weight", (E,)
    yield "model.norm.weight", (E,)
    yield "lm_head.weight", (V, E)


def prepare(folder):
    os.makedirs(folder + "/hf", exist_ok=True)
    draw = random.Random(1)
    header, data, at = {}, [], 0
    for name, shape in shapes():
        n = math.prod(shape)
        values = array.array("f", [1.0] * n if len(shape) == 1 else [draw.gauss(0, 0.02) for _ in range(n)])
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [at, at + 4 * n]}
        data.append(values.tobytes())
        at += 4 * n
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder + "/hf/model.safetensors", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(data))
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": V, "hidden_size": E, "num_hidden_layers": L,
              "num_attention_heads": H, "num_key_value_heads": HK, "head_dim": D, "intermediate_size": FF, "hidden_act": "silu",
              "max_position_embeddings": S, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
              "torch_dtype": "float32"}
    with open(folder + "/hf/config.json", "w") as f:
        json.dump(config, f, indent=2)
    successors = [draw.sample(range(V), 8) for _ in range(V)]
    weights = [0.4, 0.2, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05]
    tokens = array.array("H", [0])
    for k in draw.choices(range(8), weights, k=TOKENS - 1):
        tokens.append(successors[tokens[-1]][k])
    with open(folder + "/train.bin", "wb") as f:
        f.write(tokens.tobytes())
    lengths = []  # of documents
    while sum(lengths) < TOKENS:
        lengths.append(min(draw.randint(1, 200), TOKENS - sum(lengths)))
    begins = [2 * sum(lengths[:i]) for i in range(len(lengths))]
    with open(folder + "/train.idx", "wb") as f:
        n = len(lengths)
        f.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, 8, n, n + 1) + struct.pack(f"<{n}i", *lengths))
        f.write(struct.pack(f"<{n}q", *begins) + struct.pack(f"<{n + 1}q", *range(n + 1)))
    with open(folder + "/job.toml", "w") as f:
        f.write(JOB)


# The order of training rows: launch/data/permutation.h.
M32, M64 = 0xFFFFFFFF, (1 << 64) - 1


def philox(seed, stream, index):
    c, k = [index & M32, index >> 32, stream & M32, stream >> 32], [seed & M32, seed >> 32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & M32, (a >> 32) ^ c[3] ^ k[1], a & M32]
        k = [(k[0] + 0x9E3779B9) & M32, (k[1] + 0xBB67AE85) & M32]
    return c


def permute(seed, epoch, n, index):
    stream = 0xCBF29CE484222325
    for ch in b"data order":
        stream = ((stream ^ ch) * 0x100000001B3) & M64
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    mask, value = (1 << half) - 1, index
    while True:
        left, right = value >> half, value & mask
        for r in range(8):
            left, right = right, (left ^ philox(seed, (stream + epoch) & M64, (r << 32) | right)[0]) & mask
        value = left << half | right
        if value < n:
            return value


def train(folder, compute):
    import torch, torch.nn.functional as F

    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = False
    with open(folder + "/hf/model.safetensors", "rb") as f:
        blob = f.read()
    n = struct.unpack("<Q", blob[:8])[0]
    w = {}
    for name, t in json.loads(blob[8:8 + n]).items():
        begin, end = t["data_offsets"]
        values = torch.frombuffer(bytearray(blob[8 + n + begin:8 + n + end]), dtype=torch.float32)
        w[name] = values.reshape(t["shape"]).to(device).requires_grad_()
    with open(folder + "/train.bin", "rb") as f:
        tokens = torch.tensor(array.array("H", f.read()), dtype=torch.int64)

    angle = torch.outer(torch.arange(S, dtype=torch.float64), 10000.0 ** (-torch.arange(D // 2, dtype=torch.float64) * 2 / D))
    cos, sin = (torch.cat([t, t], -1)[:, None].float().to(device) for t in (angle.cos(), angle.sin()))
    unseen = torch.full((S, S), -math.inf, device=device).triu(1)

    def norm(x, weight):
        x = x.float()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight

    def turn(x):
        y = x.float()
        return (y * cos + torch.cat([-y[..., D // 2:], y[..., :D // 2]], -1) * sin).to(x.dtype)

    def loss_of(rows, targets):
        x = F.embedding(rows, w["model.embed_tokens.weight"])
        for i in range(L):
            p = f"model.layers.{i}."
            n = norm(x, w[p + "input_layernorm.weight"])
            q, k, v = (F.linear(n, w[f"{p}self_attn.{c}_proj.weight"]).view(len(rows), S, -1, D) for c in "qkv")
            q, k, v = turn(q), turn(k).repeat_interleave(H // HK, 2), v.repeat_interleave(H // HK, 2)
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            a = torch.softmax((q @ k.transpose(-1, -2)).float() * D**-0.5 + unseen, -1).to(v.dtype) @ v
            x = x + F.linear(a.transpose(1, 2).reshape(len(rows), S, H * D), w[p + "self_attn.o_proj.weight"])
            n = norm(x, w[p + "post_attention_layernorm.weight"])
            h = F.silu(F.linear(n, w[p + "mlp.gate_proj.weight"])) * F.linear(n, w[p + "mlp.up_proj.weight"])
            x = x + F.linear(h, w[p + "mlp.down_proj.weight"])
        logits = F.linear(norm(x, w["model.norm.weight"]), w["lm_head.weight"])
        return F.cross_entropy(logits.float().view(-1, V), targets.reshape(-1))

    decayed = [t for name, t in w.items() if "norm" not in name]
    others = [t for name, t in w.items() if "norm" in name]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), eps=1e-8)
    samples = (TOKENS - 1) // S
    for step in range(1, STEPS + 1):
        begins = [permute(1, i // samples, samples, i % samples) * S for i in range((step - 1) * ROWS, step * ROWS)]
        rows = torch.stack([tokens[b:b + S + 1] for b in begins]).to(device)
        for group in optimizer.param_groups:
            group["lr"] = LR * min(1.0, step / WARMUP)
        with torch.autocast(device, torch.bfloat16, enabled=compute == "bf16"):
            loss = loss_of(rows[:, :-1], rows[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(w.values()), CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        print(json.dumps({"step": step, "loss": loss.item()}), flush=True)


def table(limit, runs):
    first, wrong = None, 0
    print(f"{'run':24} {'step 1':>9} {'last ten':>9} {'apart':>8}")
    for name, path in (run.split("=", 1) for run in runs):
        losses = []
        if os.path.exists(path):
            for line in open(path):
                if line.startswith("{") and "loss" in (record := json.loads(line)):
                    losses.append(record["loss"])
        if len(losses) != STEPS:
            print(f"{name:24} {len(losses)} losses of {STEPS}: FAILED")
            wrong += 1
            continue
        mean = sum(losses[-10:]) / 10
        first = mean if first is None else first
        good = abs(mean - first) <= limit
        wrong += not good
        print(f"{name:24} {losses[0]:9.4f} {mean:9.4f} {mean - first:+8.4f} {'ok' if good else 'FAILED'}")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    what, rest = sys.argv[1], sys.argv[2:]
    if what == "prepare":
        prepare(rest[0])
    elif what == "torch":
        train(rest[0], rest[1] if len(rest) > 1 else "bf16")
    else:
        table(float(rest[0]), rest[1:])
