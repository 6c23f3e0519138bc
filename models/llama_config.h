#pragma once
// [model] of a Llama: a decoder-only transformer with RMS norm, rotary positions, grouped-query attention and SwiGLU.
// Source: Touvron et al., "LLaMA" (2023) and "Llama 2" (2023, grouped-query attention).

#include <cstdint>
#include <string_view>

#include "core/base/config.h"

namespace strata {

enum class ModelArch : uint8_t { kLlama };
inline constexpr std::string_view kModelArchNames[] = {"llama"};

struct LlamaConfig {
  ModelArch arch = ModelArch::kLlama;
  int64_t vocab = 2048;
  int64_t layers = 4;
  int64_t dim = 256;
  int64_t heads = 8;
  int64_t kv_heads = 8;
  int64_t ffn = 704;
  int64_t seq = 256;
  double rope_theta = 10000;
  double norm_eps = 1e-5;
  bool tied = false;
  double init_std = 0.02;

  int64_t head_dim() const { return dim / heads; }
  // Weights of the whole model. No overflow within the limits of Describe.
  int64_t num_parameters() const;

  void Describe(ConfigFields& f);
  void Check(ConfigChecks& c) const;
  bool operator==(const LlamaConfig&) const = default;
};

}  // namespace strata
