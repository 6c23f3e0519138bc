#include "launch/data/objective_rows.h"

#include <algorithm>

#include "core/base/philox.h"
#include "core/base/status.h"
#include "models/model.h"

namespace strata {
namespace {

constexpr double kChosen = 0.15, kMask = 0.8, kRandom = 0.1;

}  // namespace

absl::Status ObjectiveRows::Row(int64_t index, const RowSpans& row) const {
  RETURN_IF_ERROR(base_.Row(index, row));
  if (ModelOf(model_.arch).objective != Objective::kMaskedToken) return absl::OkStatus();
  std::ranges::copy(row.tokens, row.targets.begin());
  Hide(static_cast<uint64_t>(index), row.tokens, row.weights);
  return absl::OkStatus();
}

void ObjectiveRows::Hide(uint64_t index, std::span<int32_t> tokens, std::span<float> weights) const {
  // Words of a position: 0 whether it is chosen, 1 what becomes of it, 2 the random token.
  const PhiloxBlock row = Philox(seed_, HashName("masked tokens"), index);
  const auto words = [&](size_t i) {
    return Philox4x32({static_cast<uint32_t>(i), row[2], row[3], 0}, {row[0], row[1]});
  };
  size_t first = weights.size();  // the position that is chosen in any case: the one with the least word 0
  uint32_t least = 0;
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0) continue;
    const uint32_t word = words(i)[0];
    if (first == weights.size() || word < least) first = i, least = word;
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    if (weights[i] == 0) continue;
    const PhiloxBlock w = words(i);
    if (i != first && PhiloxUniform(w[0]) >= kChosen) {
      weights[i] = 0;
      continue;
    }
    const double fate = PhiloxUniform(w[1]);
    if (fate < kMask) {
      tokens[i] = static_cast<int32_t>(model_.mask_token);
    } else if (fate < kMask + kRandom) {
      tokens[i] = static_cast<int32_t>(w[2] % static_cast<uint64_t>(model_.vocab));
    }
  }
}

}  // namespace strata
