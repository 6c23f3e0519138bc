#include "core/comm/communicator.h"

namespace strata {

const char* Name(Collective::Kind kind) {
  constexpr const char* kName[] = {"all-reduce", "reduce-scatter", "all-gather", "all-to-all",
                                   "broadcast",  "send",           "recv",       "barrier"};
  return kName[kind];
}

double BytesSent(const Collective& c, int n) {
  const double bytes = static_cast<double>(c.count) * SizeOf(c.dtype), part = (n - 1.0) / n;
  switch (c.kind) {
    case Collective::kAllReduce: return 2 * part * bytes;
    case Collective::kReduceScatter:
    case Collective::kAllToAll: return part * bytes;
    case Collective::kAllGather: return (n - 1.0) * bytes;
    case Collective::kBroadcast:
    case Collective::kSend: return bytes;
    case Collective::kRecv:
    case Collective::kBarrier: return 0;
  }
  return 0;
}

}  // namespace strata
