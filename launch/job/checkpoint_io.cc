#include "launch/job/checkpoint_io.h"

#include "absl/strings/str_format.h"
#include "checkpoint/pieces.h"
#include "core/base/status.h"

namespace strata {

std::string MeshText(const Job& job) {
  std::string text;
  for (const MeshAxis& a : job.axes) text += absl::StrFormat("%s%s=%d", text.empty() ? "" : " ", a.name, a.size);
  return text.empty() ? "one rank" : text;
}

absl::Status LoadStates(CheckpointReader& reader, std::span<const Plan> plans, Executor& executor, LoadFor purpose) {
  RETURN_IF_ERROR(CheckLoads(reader, plans, purpose));
  std::vector<std::byte> host;
  const LiveWeights live = LiveWeightsOf(executor.plan());
  for (const PlannedState& s : executor.plan().states) {
    if (!IsSaved(s) || s.count == 0) continue;
    if (purpose == LoadFor::kForward && SourceOf(reader, s) == nullptr) continue;  // a moment, which stays zero
    if (executor.host_addressable()) {
      RETURN_IF_ERROR(LoadState(reader, s, executor.StateBytes(s), live));
      continue;
    }
    host.resize(static_cast<size_t>(s.count * SizeOf(s.spec.dtype)));
    RETURN_IF_ERROR(LoadState(reader, s, host, live));
    RETURN_IF_ERROR(executor.WriteState(s, host));
  }
  return absl::OkStatus();
}

}  // namespace strata
