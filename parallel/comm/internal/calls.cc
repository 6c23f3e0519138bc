#include "parallel/comm/internal/calls.h"

#include "absl/strings/str_format.h"

namespace strata::internal {
namespace {

bool Matches(const Collective& a, const Collective& b) {
  if (a.kind != b.kind) return false;
  if (a.kind == Collective::kBarrier) return true;
  return a.count == b.count && a.dtype == b.dtype && (!IsReduction(a) || a.reduce == b.reduce) &&
         (a.kind != Collective::kBroadcast || a.peer == b.peer);
}

}  // namespace

std::string Describe(const Collective& c) {
  std::string s = Name(c.kind);
  if (c.kind == Collective::kBarrier) return s;
  if (IsReduction(c)) s += c.reduce == ReduceOp::kMax ? " max" : " sum";
  s += absl::StrFormat(" of %d %s", c.count, Name(c.dtype));
  if (c.kind == Collective::kBroadcast) s += absl::StrFormat(" from member %d", c.peer);
  return s;
}

std::string Where(const CommSpec& spec, uint64_t sequence) {
  return absl::StrFormat("communicator %s, call %d", spec.name, sequence);
}

absl::Status CheckCalls(const CommSpec& spec, uint64_t sequence, int me,
                        absl::FunctionRef<const Collective&(int)> call) {
  const int size = static_cast<int>(spec.ranks.size());
  const Collective& first = call(0);
  for (int i = 1; i < size; ++i) {
    if (Matches(first, call(i))) continue;
    return absl::InternalError(absl::StrFormat("%s differs: rank %d issues %s, rank %d issues %s",
                                               Where(spec, sequence), spec.ranks[0], Describe(first), spec.ranks[i],
                                               Describe(call(i))));
  }
  const bool divides = first.kind == Collective::kReduceScatter || first.kind == Collective::kAllToAll;
  if (first.count < 0 || (divides && first.count % size != 0)) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: %s over %d ranks: the count does not divide",
                                                      Where(spec, sequence), Describe(first), size));
  }
  if (first.kind == Collective::kBroadcast && (first.peer < 0 || first.peer >= size)) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: %s of %d", Where(spec, sequence), Describe(first), size));
  }
  const Collective& mine = call(me);
  if (first.kind == Collective::kAllToAll && mine.in == mine.out && mine.count > 0 && size > 1) {
    return absl::InvalidArgumentError(absl::StrFormat("%s: an all-to-all cannot be in place", Where(spec, sequence)));
  }
  return absl::OkStatus();
}

absl::Status CheckPeer(const CommSpec& spec, const Collective& c) {
  const int size = static_cast<int>(spec.ranks.size());
  if (c.peer >= 0 && c.peer < size) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("communicator %s: %s: member %d of %d", spec.name, Describe(c), c.peer, size));
}

absl::Status CheckPair(const CommSpec& spec, int from, const Collective& sent, int to, const Collective& received) {
  if (sent.count == received.count && sent.dtype == received.dtype) return absl::OkStatus();
  return absl::InternalError(absl::StrFormat("communicator %s: rank %d issues %s, rank %d issues %s", spec.name,
                                             spec.ranks[from], Describe(sent), spec.ranks[to], Describe(received)));
}

}  // namespace strata::internal
