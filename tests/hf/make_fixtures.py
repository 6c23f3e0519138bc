#!/usr/bin/env python3
"""Makes the models that the tests of importing and exporting are held against: tiny, with random weights, written by
Hugging Face transformers itself, and what transformers computes with them.

    python3 make_fixtures.py OUT_DIR        # writes OUT_DIR/fixtures.tar; needs torch and transformers, no GPU, no network

In the archive, for each model a folder with what save_pretrained writes and expected.json:
  rows      [steps][batch] {tokens, targets, weights}: targets are the next tokens, or for BERT the hidden ones
  loss_f32, loss_f64      of rows[0], the mean negative log-likelihood of the targets with weight 1
  logits_f64              of the last position of the first row, all of the vocabulary
  adamw                   losses and gradient norms of training on rows[0], rows[1], ..., before each update
transformers keeps RMS norms and rotary angles in float32 even in a float64 model, so that float64 here means float64 but
for those. llama3 also holds config-old.json and config-new.json: the same model in the spellings of transformers 4 and 5.
"""

import copy
import json
import os
import sys
import tarfile
import tempfile

import torch
import transformers
from transformers import (BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM,
                          Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM)

VOCAB, WIDTH, FFN, LAYERS, HEADS, KV_HEADS, POSITIONS = 99, 32, 48, 2, 4, 2, 64
STEPS, BATCH, SEQ = 5, 2, 48
ADAMW = dict(lr=5e-3, betas=(0.9, 0.95), eps=1e-4, weight_decay=0.0)
MASK_TOKEN = 4

SIZES = dict(vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=FFN, num_hidden_layers=LAYERS,
             num_attention_heads=HEADS, max_position_embeddings=POSITIONS)
# theta 100 and heads of 8 give wavelengths of 6, 20, 63 and 199 tokens: one is kept, one blended, two are stretched.
LLAMA3_ROPE = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                   original_max_position_embeddings=32)
V5 = int(transformers.__version__.split(".")[0]) >= 5


def rope(theta, scaling=None):
    """Rotary parameters as this version of transformers takes them."""
    if V5:
        return dict(rope_parameters=dict(scaling or dict(rope_type="default"), rope_theta=theta))
    return dict(rope_theta=theta, **({"rope_scaling": dict(scaling)} if scaling else {}))


def models():
    """name, model class, config, dtype on disk, save_pretrained's options."""
    gqa = dict(num_key_value_heads=KV_HEADS)
    yield ("llama3", LlamaForCausalLM,
           LlamaConfig(**SIZES, **gqa, **rope(100.0, LLAMA3_ROPE), rms_norm_eps=1e-5, tie_word_embeddings=False),
           torch.float32, {})
    yield ("llama-tied", LlamaForCausalLM,
           LlamaConfig(**SIZES, num_key_value_heads=HEADS, head_dim=16, **rope(10000.0), rms_norm_eps=1e-6,
                       tie_word_embeddings=True), torch.float32, {})
    yield ("llama-bf16-sharded", LlamaForCausalLM,
           LlamaConfig(**SIZES, **gqa, **rope(500000.0), rms_norm_eps=1e-5, tie_word_embeddings=False),
           torch.bfloat16, dict(max_shard_size="20KB"))
    yield ("qwen2", Qwen2ForCausalLM,
           Qwen2Config(**SIZES, **gqa, **rope(1000000.0), rms_norm_eps=1e-6, tie_word_embeddings=True), torch.float32,
           dict(max_shard_size="40KB"))
    yield ("qwen3", Qwen3ForCausalLM,
           Qwen3Config(**SIZES, **gqa, head_dim=16, **rope(1000000.0), rms_norm_eps=1e-6, tie_word_embeddings=False),
           torch.float32, {})
    yield ("gpt2", GPT2LMHeadModel,
           GPT2Config(vocab_size=VOCAB, n_positions=POSITIONS, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_inner=FFN,
                      layer_norm_epsilon=1e-5, bos_token_id=0, eos_token_id=0), torch.float32, {})
    yield ("bert", BertForMaskedLM, BertConfig(**SIZES, type_vocab_size=2, layer_norm_eps=1e-12), torch.float32, {})


def randomize(model, seed):
    """Weights large enough that no term of the maths is lost in the noise; norms and biases too."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(model.named_parameters()):
            z = torch.randn(p.shape, generator=g)
            norm = "norm" in name.lower() or "ln_" in name
            if p.dim() >= 2:
                p.copy_(z * (0.5 if "emb" in name or "wte" in name or "wpe" in name else 0.2))
            else:
                p.copy_(1 + 0.2 * z if norm and name.endswith("weight") else 0.2 * z)


def make_rows(masked, seed):
    g = torch.Generator().manual_seed(seed)
    text = torch.randint(5, VOCAB, (STEPS, BATCH, SEQ + 1), generator=g)
    if not masked:
        return [dict(tokens=t[:, :-1], targets=t[:, 1:], weights=torch.ones(BATCH, SEQ)) for t in text]
    rows = []
    for t in text[:, :, :-1]:
        hidden = torch.rand(t.shape, generator=g) < 0.25
        hidden[:, 0] = True
        rows.append(dict(tokens=t.masked_fill(hidden, MASK_TOKEN), targets=t, weights=hidden.float()))
    return rows


def logits_of(model, row):
    return model(input_ids=row["tokens"]).logits


def loss_of(model, row):
    logits = logits_of(model, row)
    nll = torch.nn.functional.cross_entropy(logits.flatten(0, 1), row["targets"].flatten(), reduction="none")
    weights = row["weights"].flatten().to(nll.dtype)
    return (nll * weights).sum() / weights.sum()


def train(model, rows):
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, **ADAMW)
    losses, norms = [], []
    for row in rows:
        optimizer.zero_grad()
        loss = loss_of(model, row)
        loss.backward()
        losses.append(loss.item())
        norms.append(torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in parameters])).item())
        optimizer.step()
    return dict(losses=losses, grad_norms=norms)


def expect(model, rows):
    f32, f64 = copy.deepcopy(model).float(), copy.deepcopy(model).double()
    with torch.no_grad():
        result = dict(loss_f32=loss_of(f32, rows[0]).item(), loss_f64=loss_of(f64, rows[0]).item(),
                      logits_f64=logits_of(f64, rows[0])[0, -1].tolist())
    result["adamw"] = dict(ADAMW, float32=train(f32, rows), float64=train(f64, rows))
    result["rows"] = [{k: v.int().tolist() for k, v in row.items()} for row in rows]
    return result


def spell_both_ways(folder):
    """config-old.json, config-new.json: the rotary parameters and the dtype as transformers 4 and 5 write them."""
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    dtype = config.pop("dtype", None) or config.pop("torch_dtype", None) or "float32"
    for key in ("torch_dtype", "rope_parameters", "rope_scaling", "rope_theta", "head_dim"):
        config.pop(key, None)
    old = dict(config, torch_dtype=dtype, rope_theta=100.0, rope_scaling=LLAMA3_ROPE, transformers_version="4.44.0")
    new = dict(config, dtype=dtype, head_dim=WIDTH // HEADS, rope_parameters=dict(LLAMA3_ROPE, rope_theta=100.0))
    for name, text in (("config-old.json", old), ("config-new.json", new)):
        with open(os.path.join(folder, name), "w") as f:
            f.write(json.dumps(text, indent=2, sort_keys=True) + "\n")


def main(out):
    torch.set_num_threads(1)
    os.makedirs(out, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        for i, (name, cls, config, dtype, options) in enumerate(models()):
            folder = os.path.join(work, name)
            model = cls(config).float().eval()
            randomize(model, 100 + i)
            model.to(dtype).save_pretrained(folder, **options)
            as_float = {"dtype" if V5 else "torch_dtype": torch.float32}
            loaded = cls.from_pretrained(folder, **as_float).eval()  # what is on disk is what is measured
            rows = make_rows(cls is BertForMaskedLM, 200 + i)
            expected = expect(loaded, rows)
            if name == "llama3":
                spell_both_ways(folder)
            expected["made_with"] = f"torch {torch.__version__}, transformers {transformers.__version__}"
            with open(os.path.join(folder, "expected.json"), "w") as f:
                f.write(json.dumps(expected) + "\n")
            print(name, sorted(os.listdir(folder)), expected["loss_f32"], expected["loss_f64"],
                  expected["adamw"]["float64"]["losses"])
        with tarfile.open(os.path.join(out, "fixtures.tar"), "w") as tar:
            tar.add(work, arcname="fixtures")
    print("wrote", os.path.join(out, "fixtures.tar"), os.path.getsize(os.path.join(out, "fixtures.tar")), "bytes")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) == 2 else sys.exit(__doc__))
