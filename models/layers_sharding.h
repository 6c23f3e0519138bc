#pragma once
// Where the tensors of GPT-2 and BERT live: data and tensor parallelism (Megatron-LM, Shoeybi et al. 2019, sec. 3) and
// sequence parallelism (Korthikanti et al. 2022, sec. 4.2).

#include <vector>

#include "core/mesh/mesh.h"
#include "models/model.h"
#include "parallel/shard/pins.h"

namespace strata {

std::vector<MeshAxis> LayersAxes(const ModelConfig& config, int dp, int tp);

// Batch on dp; vocabulary, heads and ffn width on tp, with their biases; the residual stream replicated on tp or sharded along
// the sequence; all else replicated on tp.
std::vector<Pin> LayersPins(const ModelConfig& config, const TensorParallel& tp);

}  // namespace strata
