#include "models/layers_sharding.h"

namespace strata {

std::vector<MeshAxis> LayersAxes(const ModelConfig&, int dp, int tp) {
  std::vector<MeshAxis> axes;
  if (dp > 1) axes.push_back({"dp", dp});
  if (tp > 1) axes.push_back({"tp", tp});
  return axes;
}

std::vector<Pin> LayersPins(const ModelConfig&, const TensorParallel& tp) {
  std::vector<Pin> pins = {
      {"*.residual", "dp", Shard(0)}, {"*.residual", "tp", tp.sequence ? Shard(1) : Replicate()},
      {"logits", "tp", Replicate()},  {"*.wo", "tp", Shard(1)},
      {"*.down", "tp", Shard(1)},
  };
  for (const char* rows : {"tokens", "targets", "weights", "samples", "document_starts"})
    pins.push_back({rows, "dp", Shard(0)});
  for (const char* outputs : {"embed.weight", "head.bias", "*.wq", "*.wq.bias", "*.wk", "*.wk.bias", "*.wv",
                              "*.wv.bias", "*.up", "*.up.bias"}) {
    pins.push_back({outputs, "tp", Shard(0)});
  }
  return pins;
}

}  // namespace strata
