#include "models/llama_sharding.h"

#include <numeric>

namespace strata {

std::vector<MeshAxis> LlamaAxes(const ModelConfig& config, int dp, int tp) {
  const int kv = static_cast<int>(std::gcd(config.kv_heads, int64_t{tp}));
  std::vector<MeshAxis> axes;
  if (dp > 1) axes.push_back({"dp", dp});
  if (tp > 1 && (kv == tp || kv == 1)) {
    axes.push_back({"tp", tp});
  } else if (tp > 1) {
    axes.push_back({"tp.o", kv});
    axes.push_back({"tp.i", tp / kv});
  }
  return axes;
}

std::vector<Pin> LlamaPins(const ModelConfig& config, const TensorParallel& tp) {
  std::vector<Pin> pins = {
      {"tokens", "dp", Shard(0)},      {"targets", "dp", Shard(0)},
      {"weights", "dp", Shard(0)},     {"document_starts", "dp", Shard(0)},
      {"*.residual", "dp", Shard(0)},  {"*.residual", "tp", tp.sequence ? Shard(1) : Replicate()},
      {"logits", "tp", Replicate()},   {"embed.weight", "tp", Shard(0)},
      {"head.weight", "tp", Shard(0)}, {"*.wq", "tp", Shard(0)},
      {"*.wq.bias", "tp", Shard(0)},   {"*.wo", "tp", Shard(1)},
      {"*.gate", "tp", Shard(0)},      {"*.up", "tp", Shard(0)},
      {"*.down", "tp", Shard(1)},
  };
  const bool divides = config.kv_heads % tp.size == 0;
  const bool factored = !divides && std::gcd(config.kv_heads, int64_t{tp.size}) > 1;
  for (const char* name : {"*.wk", "*.wk.bias", "*.wv", "*.wv.bias"}) {
    if (factored) pins.push_back({name, "tp.o", Shard(0)});
    pins.push_back({name, factored ? "tp.i" : "tp", divides ? Shard(0) : Replicate()});
  }
  return pins;
}

}  // namespace strata
