#include "parallel/zero/zero_config.h"

#include "absl/strings/str_cat.h"

namespace strata {

void ZeroConfig::Describe(ConfigFields& f) {
  f.Add("zero", stage,
        {.doc = "shard over dp: 1 = optimizer states, 2 = and gradients, 3 = and weights; 0 = nothing",
         .min = 0,
         .max = 3});
  f.Add("zero_prefetch", prefetch,
        {.doc = "zero = 3: most blocks whose weights are gathered ahead of the one in use; fewer to fit memory.limit",
         .min = 0,
         .max = 64});
  f.Add("dp_inner", inner,
        {.doc = "neighbouring dp ranks with fast links, those of a node; divides dp; 0 = all links are alike",
         .min = 0,
         .max = 65536});
  f.AddChoice(
      "zero_scope", scope, kZeroScopeNames,
      {.doc = "inner: shard over dp_inner ranks only, and sum the shards over the others; states: that but for the "
              "optimizer states, which all ranks share"});
  f.Add("zero_secondary", secondary,
        {.doc = "zero = 3: backward gathers over dp_inner ranks, from a second shard that forward leaves"});
  f.AddChoice("zero_weights", weights, kWeightWireNames,
              {.doc = "zero = 3: how weights are sent; int8 in blocks of 256, within 1/254 of a block's largest"});
  f.AddChoice(
      "zero_gradients", gradients, kGradientWireNames,
      {.doc = "how gradients are sent to their shard; int8: as weights; int4: within 1/14; bf16: rounded once"});
  f.AddChoice("zero_reduce_scatter", scatter_by, kScatterByNames,
              {.doc = "all-to-all: gradients are exchanged, and summed in float32 by the rank that keeps them"});
}

void ZeroConfig::Check(ConfigChecks& c, int64_t dp) const {
  if (inner > 0) c.Divides({"parallel.dp_inner", inner}, {"parallel.dp", dp});
  const auto needs = [&](bool given, std::string_view key, std::string_view value, bool met, std::string_view what) {
    if (given && !met) c.Add(ConfigErrorKind::kContradiction, key, value, what);
  };
  needs(scope != ZeroScope::kAll, "parallel.zero_scope", kZeroScopeNames[static_cast<int>(scope)], inner > 0,
        "needs parallel.dp_inner");
  needs(secondary, "parallel.zero_secondary", "true", stage == 3 && inner > 0 && scope == ZeroScope::kAll,
        "needs parallel.zero = 3, zero_scope = \"all\" and dp_inner");
  needs(weights != Wire::kExact, "parallel.zero_weights", "int8", stage == 3, "needs parallel.zero = 3");
  needs(gradients != Wire::kExact, "parallel.zero_gradients", kGradientWireNames[static_cast<int>(gradients)],
        stage >= 1, "needs parallel.zero = 1, 2 or 3");
  const bool exchanged = scatter_by == ScatterBy::kAllToAll, rounded = gradients == Wire::kBf16;
  needs(exchanged, "parallel.zero_reduce_scatter", "all-to-all", stage >= 1 && (gradients == Wire::kExact || rounded),
        "needs parallel.zero = 1, 2 or 3, and zero_gradients = \"exact\" or \"bf16\"");
  needs(rounded, "parallel.zero_gradients", "bf16", exchanged, "needs parallel.zero_reduce_scatter = \"all-to-all\"");
}

std::vector<MeshAxis> FactorData(std::vector<MeshAxis> axes, int64_t inner) {
  for (size_t a = 0; a < axes.size(); ++a) {
    if (axes[a].name != "dp" || inner <= 1 || inner >= axes[a].size) continue;
    const int size = static_cast<int>(inner), outer = axes[a].size / size;
    int stride = 1;
    for (size_t i = a + 1; i < axes.size(); ++i) stride *= axes[i].size;
    axes[a] = {"dp.i", size, stride};
    axes.insert(axes.begin() + static_cast<std::ptrdiff_t>(a) + 1, {"dp.o", outer, stride * size});
    break;
  }
  return axes;
}

}  // namespace strata
