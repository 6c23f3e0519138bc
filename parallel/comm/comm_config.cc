#include "parallel/comm/comm_config.h"

#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace strata {

void CommConfig::Describe(ConfigFields& f) {
  f.AddChoice("transport", transport, kTransportNames,
              {.doc = "between GPUs; peers: copies between the GPUs of one process; nccl; host: copied through pinned "
                      "memory to the "
                      "ranks' processes or threads; auto: peers where all ranks are, else nccl"});
  f.Add("nccl_ctas", nccl_ctas,
        {.doc =
             "thread blocks of the GPU that a collective may take; 0 = 16, and 4 for what goes between pipeline stages",
         .min = 0,
         .max = 64});
  f.AddChoice(
      "nccl_launch", launch, kNcclLaunchNames,
      {.doc = "background: by a thread of NCCL's, which costs some microseconds a call; direct: by the rank itself"});
  f.AddChoice(
      "nccl_buffers", buffers, kNcclBuffersNames,
      {.doc = "registered: NCCL reads the arena in place; symmetric: as windows of equal offsets; copy-engine: and "
              "copies without thread blocks"});
}

std::string NoteOnUnusedKeys(const CommConfig& given, Transport taken) {
  if (taken == Transport::kNccl) return "";
  const CommConfig none;
  std::vector<std::string> keys;
  if (given.nccl_ctas != none.nccl_ctas) keys.emplace_back("parallel.nccl_ctas");
  if (given.launch != none.launch) keys.emplace_back("parallel.nccl_launch");
  if (given.buffers != none.buffers) keys.emplace_back("parallel.nccl_buffers");
  if (keys.empty()) return "";
  return absl::StrFormat("%s %s no effect: the transport is \"%s\"; parallel.transport = \"nccl\" takes NCCL",
                         absl::StrJoin(keys, ", "), keys.size() == 1 ? "has" : "have",
                         std::string(kTransportNames[static_cast<int>(taken)]));
}

}  // namespace strata
