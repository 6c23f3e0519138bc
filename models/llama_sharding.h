#pragma once
// Where the tensors of the Llama family live: the placement table of data and tensor parallelism (Megatron-LM, Shoeybi et al.
// 2019, sec. 3) and of sequence parallelism (Korthikanti et al. 2022, sec. 4.2).

#include <vector>

#include "core/mesh/mesh.h"
#include "models/model.h"
#include "parallel/shard/pins.h"

namespace strata {

// Mesh axes, outermost first, without those of size 1. Where kv_heads does not divide by tp, tp is factored into tp.o (which
// shards the kv heads; their greatest common divisor) and tp.i (on which they are replicated).
std::vector<MeshAxis> LlamaAxes(const ModelConfig& config, int dp, int tp);

// Batch on dp; vocabulary, heads and ffn width on tp; norms replicated on tp; the residual stream
// replicated there too, or sharded along the sequence.
std::vector<Pin> LlamaPins(const ModelConfig& config, const TensorParallel& tp);

}  // namespace strata
