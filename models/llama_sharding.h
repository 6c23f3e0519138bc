#pragma once
// Where Llama's tensors live: the placement table of data and tensor parallelism (Megatron-LM, Shoeybi et al. 2019, sec. 3).

#include <vector>

#include "core/mesh/mesh.h"
#include "models/model_config.h"
#include "parallel/shard/pins.h"

namespace strata {

// Mesh axes, outermost first, without those of size 1. Where kv_heads does not divide by tp, tp is factored into tp.o (which
// shards the kv heads) and tp.i (on which they are replicated).
std::vector<MeshAxis> LlamaAxes(const ModelConfig& config, int dp, int tp);

// Batch on dp; vocabulary, heads and ffn width on tp; residual stream and norms replicated on tp.
std::vector<Pin> LlamaPins(const ModelConfig& config, int tp);

}  // namespace strata
