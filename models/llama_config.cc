#include "models/llama_config.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace strata {
namespace {

constexpr double kMaxParameters = 1e13;

// The divisor of `dim` nearest to `near` that leaves an even head size; 0 if there is none.
int64_t NearestHeads(int64_t dim, int64_t near) { return dim % 2 == 0 ? NearestDivisor(dim / 2, near) : 0; }

}  // namespace

int64_t LlamaConfig::num_parameters() const {
  const int64_t attention = 2 * dim * dim + 2 * dim * kv_heads * head_dim();  // wq, wo; wk, wv
  const int64_t mlp = 3 * dim * ffn;                                          // gate, up, down
  const int64_t norms = 2 * dim;
  return layers * (attention + mlp + norms) + dim + vocab * dim * (tied ? 1 : 2);
}

void LlamaConfig::Describe(ConfigFields& f) {
  f.AddChoice("arch", arch, kModelArchNames, {.doc = "architecture"});
  f.Add("vocab", vocab, {.doc = "vocabulary size; that of the tokenizer", .unit = "pieces", .min = 2, .max = 1 << 24});
  f.Add("layers", layers, {.doc = "transformer blocks", .min = 1, .max = 4096});
  f.Add("dim", dim, {.doc = "model width; heads must divide it", .min = 2, .max = 1 << 18});
  f.Add("heads", heads, {.doc = "query heads; dim / heads, the head size, must be even", .min = 1, .max = 1 << 16});
  f.Add("kv_heads", kv_heads, {.doc = "key and value heads; must divide heads", .min = 1, .max = 1 << 16});
  f.Add("ffn", ffn, {.doc = "hidden width of the SwiGLU feed-forward layer", .min = 1, .max = 1 << 20});
  f.Add("seq", seq, {.doc = "context length", .unit = "tokens", .min = 1, .max = 1 << 24});
  f.Add("rope_theta", rope_theta, {.doc = "base of the rotary position frequencies", .min = 1, .max = 1e12});
  f.Add("norm_eps", norm_eps, {.doc = "added to the mean square inside RMS norm", .min = 1e-12, .max = 1});
  f.Add("tied", tied, {.doc = "the output head reuses the embedding"});
  f.Add("init_std", init_std, {.doc = "standard deviation of the initial weights", .min = 0, .max = 1});
}

void LlamaConfig::Check(ConfigChecks& c) const {
  if (c.Ok({"model.dim", "model.heads"}) && dim % (2 * heads) != 0) {
    const int64_t nearest = NearestHeads(dim, heads);
    c.Add(ConfigErrorKind::kIndivisible, "model.heads", absl::StrCat(heads),
          absl::StrFormat("must divide model.dim = %d into heads of even size", dim),
          nearest > 0 ? absl::StrCat(nearest) : "");
  }
  c.Divides({"model.kv_heads", kv_heads}, {"model.heads", heads});
  if (c.Ok({"model.vocab", "model.layers", "model.dim", "model.heads", "model.kv_heads", "model.ffn"}) &&
      static_cast<double>(num_parameters()) > kMaxParameters) {
    c.Add(ConfigErrorKind::kTooLarge, "model.dim", absl::StrCat(dim),
          absl::StrFormat("the model would have %d parameters, the most is 10^13", num_parameters()));
  }
}

}  // namespace strata
