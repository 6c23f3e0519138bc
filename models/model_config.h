#pragma once
// [model]: the architecture and its sizes. Which keys there are depends on `arch`; fields of other architectures keep their
// defaults and are not read.

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/config.h"

namespace strata {

enum class ModelArch : uint8_t { kLlama, kGpt2, kBert, kQwen2, kQwen3 };
inline constexpr std::string_view kModelArchNames[] = {"llama", "gpt2", "bert", "qwen2", "qwen3"};

// What tells the architectures apart whose code is one. Those with rope are the Llama family (models/llama.h).
struct ArchTraits {
  bool rope = false;      // rotary positions, RMS norm, grouped-query attention, SwiGLU
  bool qkv_bias = false;  // of the Llama family: wq, wk and wv have biases
  bool qk_norm = false;   // of the Llama family: an RMS norm on each head of q and of k
};
inline constexpr ArchTraits kArchTraits[] = {
    {.rope = true}, {}, {}, {.rope = true, .qkv_bias = true}, {.rope = true, .qk_norm = true}};

enum class RopeScalingKind : uint8_t { kNone, kLlama3 };
inline constexpr std::string_view kRopeScalingNames[] = {"none", "llama3"};

struct ModelConfig {
  std::string from;  // "hf:DIR": initial weights, and the sizes where keys do not say them again; empty: none
  ModelArch arch = ModelArch::kLlama;
  int64_t vocab = 2048;
  int64_t padded_vocab = 0;  // no key: rows of the tables over the vocabulary, the last ones zero; 0: vocab
  int64_t layers = 4;
  int64_t dim = 256;
  int64_t heads = 8;
  int64_t kv_heads = 8;    // Llama family
  int64_t head_width = 0;  // Llama family; key head_dim; 0: dim / heads
  int64_t ffn = 704;
  int64_t seq = 256;
  int64_t positions = 0;      // gpt2, bert: rows of the table of learned positions; 0: seq
  double rope_theta = 10000;  // Llama family
  RopeScalingKind rope_scaling = RopeScalingKind::kNone;
  double rope_factor = 8, rope_low = 1, rope_high = 4;  // of kLlama3: core/ops/rope.h
  int64_t rope_original = 8192;
  double norm_eps = 1e-5;
  bool tied = false;       // Llama family; the others are
  double dropout = 0;      // gpt2, bert
  int64_t mask_token = 0;  // bert
  double init_std = 0.02;

  int64_t table_rows() const { return padded_vocab > 0 ? padded_vocab : vocab; }
  int64_t classes() const { return padded_vocab > vocab ? vocab : 0; }  // of HeadLoss: 0 where nothing is padded
  const ArchTraits& traits() const { return kArchTraits[static_cast<size_t>(arch)]; }
  int64_t head_dim() const { return traits().rope && head_width > 0 ? head_width : dim / heads; }
  int64_t key_heads() const { return traits().rope ? kv_heads : heads; }
  int64_t position_rows() const { return positions > 0 ? positions : seq; }
  // padded_vocab where tp ranks share out the vocabulary: 0 where they do so evenly, else a multiple of 8 tp.
  int64_t PaddedVocab(int64_t tp) const;
  // Weights of the whole model, without padding. No overflow within the limits of Describe.
  int64_t num_parameters() const;

  void Describe(ConfigFields& f);  // the keys of `arch`
  void Check(ConfigChecks& c) const;
  bool operator==(const ModelConfig&) const = default;
};

}  // namespace strata
