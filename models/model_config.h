#pragma once
// [model]: the architecture and its sizes. Which keys there are depends on `arch`; fields of other architectures keep their
// defaults and are not read.

#include <cstdint>
#include <string_view>

#include "core/base/config.h"

namespace strata {

enum class ModelArch : uint8_t { kLlama, kGpt2, kBert };
inline constexpr std::string_view kModelArchNames[] = {"llama", "gpt2", "bert"};

struct ModelConfig {
  ModelArch arch = ModelArch::kLlama;
  int64_t vocab = 2048;
  int64_t padded_vocab = 0;  // no key: rows of the tables over the vocabulary, the last ones zero; 0: vocab
  int64_t layers = 4;
  int64_t dim = 256;
  int64_t heads = 8;
  int64_t kv_heads = 8;  // llama
  int64_t ffn = 704;
  int64_t seq = 256;
  double rope_theta = 10000;  // llama
  double norm_eps = 1e-5;
  bool tied = false;       // llama; the others are
  double dropout = 0;      // gpt2, bert
  int64_t mask_token = 0;  // bert
  double init_std = 0.02;

  int64_t table_rows() const { return padded_vocab > 0 ? padded_vocab : vocab; }
  int64_t classes() const { return padded_vocab > vocab ? vocab : 0; }  // of HeadLoss: 0 where nothing is padded
  int64_t head_dim() const { return dim / heads; }
  int64_t key_heads() const { return arch == ModelArch::kLlama ? kv_heads : heads; }
  // padded_vocab where tp ranks share out the vocabulary: 0 where they do so evenly, else a multiple of 8 tp.
  int64_t PaddedVocab(int64_t tp) const;
  // Weights of the whole model, without padding. No overflow within the limits of Describe.
  int64_t num_parameters() const;

  void Describe(ConfigFields& f);  // the keys of `arch`
  void Check(ConfigChecks& c) const;
  bool operator==(const ModelConfig&) const = default;
};

}  // namespace strata
