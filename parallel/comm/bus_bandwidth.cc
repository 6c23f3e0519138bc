#include "parallel/comm/bus_bandwidth.h"

namespace strata {

double BusFactor(Collective::Kind kind, int n) {
  const double part = (n - 1.0) / n;
  switch (kind) {
    case Collective::kAllReduce: return 2 * part;
    case Collective::kReduceScatter:
    case Collective::kAllGather:
    case Collective::kAllToAll: return part;
    default: return 1;
  }
}

Collective CallOfSize(Collective::Kind kind, DType dtype, int64_t bytes, int n) {
  const int64_t elements = bytes / SizeOf(dtype), part = elements / n;
  Collective call{.kind = kind, .dtype = dtype, .count = elements};
  if (kind == Collective::kAllGather) call.count = part;
  if (kind == Collective::kReduceScatter || kind == Collective::kAllToAll) call.count = part * n;
  if (kind == Collective::kBroadcast) call.peer = 0;
  return call;
}

int64_t BytesOf(const Collective& call, int n) {
  return call.count * SizeOf(call.dtype) * (call.kind == Collective::kAllGather ? n : 1);
}

}  // namespace strata
