#include "models/model_config.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "models/model.h"

namespace strata {
namespace {

constexpr double kMaxParameters = 1e13;

// The divisor of `dim` nearest to `near` that leaves an even head size; 0 if there is none.
int64_t NearestHeads(int64_t dim, int64_t near) { return dim % 2 == 0 ? NearestDivisor(dim / 2, near) : 0; }

void CheckHeads(const ModelConfig& m, ConfigChecks& c) {
  if (!m.traits().rope) return c.Divides({"model.heads", m.heads}, {"model.dim", m.dim});
  if (c.Ok({"model.head_dim"}) && m.head_width % 2 != 0) {
    c.Add(ConfigErrorKind::kIndivisible, "model.head_dim", absl::StrCat(m.head_width),
          "must be even: rotary positions turn pairs", absl::StrCat(m.head_width + 1));
  }
  if (m.head_width == 0 && c.Ok({"model.dim", "model.heads", "model.head_dim"}) && m.dim % (2 * m.heads) != 0) {
    const int64_t nearest = NearestHeads(m.dim, m.heads);
    c.Add(ConfigErrorKind::kIndivisible, "model.heads", absl::StrCat(m.heads),
          absl::StrFormat("must divide model.dim = %d into heads of even size", m.dim),
          nearest > 0 ? absl::StrCat(nearest) : "");
  }
  c.Divides({"model.kv_heads", m.kv_heads}, {"model.heads", m.heads});
}

void CheckPositions(const ModelConfig& m, ConfigChecks& c) {
  if (!m.traits().rope && c.Ok({"model.positions", "model.seq"}) && m.position_rows() < m.seq) {
    c.Add(ConfigErrorKind::kContradiction, "model.seq", absl::StrCat(m.seq),
          absl::StrFormat("the model has learned positions for model.positions = %d tokens", m.positions),
          absl::StrCat(m.positions));
  }
  if (m.traits().rope && m.rope_scaling == RopeScalingKind::kLlama3 && c.Ok({"model.rope_low", "model.rope_high"}) &&
      m.rope_low >= m.rope_high) {
    c.Add(ConfigErrorKind::kContradiction, "model.rope_low", FormatDouble(m.rope_low),
          absl::StrFormat("must be less than model.rope_high = %s", FormatDouble(m.rope_high)));
  }
}

}  // namespace

int64_t ModelConfig::num_parameters() const { return ModelOf(arch).size(*this).parameters; }

int64_t ModelConfig::PaddedVocab(int64_t tp) const {
  const int64_t unit = 8 * tp;  // 16 bytes of bf16 a rank
  return vocab % tp == 0 ? 0 : (vocab + unit - 1) / unit * unit;
}

void ModelConfig::Describe(ConfigFields& f) {
  const bool llama = traits().rope, bert = arch == ModelArch::kBert;
  f.Add("from", from,
        {.doc = "\"hf:DIR\": begin with the weights of a Hugging Face model; its config.json sets the other keys"});
  f.AddChoice("arch", arch, kModelArchNames, {.doc = "architecture"});
  f.Add("vocab", vocab, {.doc = "vocabulary size; that of the tokenizer", .unit = "pieces", .min = 2, .max = 1 << 24});
  f.Add("layers", layers, {.doc = "transformer blocks", .min = 1, .max = 4096});
  f.Add("dim", dim, {.doc = "model width; heads must divide it", .min = 2, .max = 1 << 18});
  f.Add("heads", heads,
        {.doc = llama ? "query heads; their size must be even" : "attention heads", .min = 1, .max = 1 << 16});
  if (llama) {
    f.Add("kv_heads", kv_heads, {.doc = "key and value heads; must divide heads", .min = 1, .max = 1 << 16});
    f.Add("head_dim", head_width, {.doc = "size of a head; 0 = dim / heads", .min = 0, .max = 1 << 16});
  }
  f.Add("ffn", ffn,
        {.doc = llama ? "hidden width of the SwiGLU feed-forward layer" : "hidden width of the feed-forward layer",
         .min = 1,
         .max = 1 << 20});
  f.Add("seq", seq, {.doc = "context length", .unit = "tokens", .min = 1, .max = 1 << 24});
  if (llama) {
    f.Add("rope_theta", rope_theta, {.doc = "base of the rotary position frequencies", .min = 1, .max = 1e12});
    f.AddChoice("rope_scaling", rope_scaling, kRopeScalingNames,
                {.doc = "\"llama3\" lowers the low frequencies, for texts longer than those of the first training"});
    f.Add("rope_factor", rope_factor, {.doc = "llama3: what the low ones are divided by", .min = 1, .max = 1e6});
    f.Add("rope_low", rope_low,
          {.doc = "llama3: low ones turn less often over rope_original", .min = 1e-6, .max = 1e6});
    f.Add("rope_high", rope_high, {.doc = "llama3: those that turn more often are kept", .min = 1e-6, .max = 1e6});
    f.Add("rope_original", rope_original,
          {.doc = "llama3: context length of the first training", .unit = "tokens", .min = 1, .max = 1 << 24});
  } else {
    f.Add("positions", positions,
          {.doc = "learned positions; 0 = seq, and never fewer", .unit = "tokens", .min = 0, .max = 1 << 24});
  }
  f.Add("norm_eps", norm_eps,
        {.doc = llama ? "added to the mean square inside RMS norm" : "added to the variance inside layer norm",
         .min = 1e-12,
         .max = 1});
  if (llama) {
    f.Add("tied", tied, {.doc = "the output head reuses the embedding"});
  } else {
    f.Add("dropout", dropout,
          {.doc = "part of the embedding's and of each residual branch's elements that training zeroes",
           .min = 0,
           .max = 0.99});
  }
  if (bert) {
    f.Add("mask_token", mask_token,
          {.doc = "token that stands for a hidden one; 0 is `<unk>`, which our tokenizers never emit",
           .min = 0,
           .max = 1 << 24});
  }
  f.Add("init_std", init_std, {.doc = "standard deviation of the initial weights", .min = 0, .max = 1});
}

void ModelConfig::Check(ConfigChecks& c) const {
  if (!from.empty() && !(from.starts_with("hf:") && from.size() > 3) && c.Ok({"model.from"})) {
    c.Add(ConfigErrorKind::kOutOfRange, "model.from", absl::StrFormat("\"%s\"", from), "must be \"hf:DIR\", or empty");
  }
  CheckHeads(*this, c);
  CheckPositions(*this, c);
  if (arch == ModelArch::kBert && c.Ok({"model.mask_token", "model.vocab"}) && mask_token >= vocab) {
    c.Add(ConfigErrorKind::kOutOfRange, "model.mask_token", absl::StrCat(mask_token),
          absl::StrFormat("must be less than model.vocab = %d", vocab), absl::StrCat(vocab - 1));
  }
  if (c.Ok({"model.vocab", "model.layers", "model.dim", "model.heads", "model.kv_heads", "model.head_dim", "model.ffn",
            "model.seq", "model.positions"}) &&
      static_cast<double>(num_parameters()) > kMaxParameters) {
    c.Add(ConfigErrorKind::kTooLarge, "model.dim", absl::StrCat(dim),
          absl::StrFormat("the model would have %d parameters, the most is 10^13", num_parameters()));
  }
}

}  // namespace strata
