#pragma once
// What transports share: how calls are described, compared and checked, and which part of an all-reduce a member makes.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "core/comm/communicator.h"

namespace strata::internal {

inline bool IsReduction(const Collective& c) {
  return c.kind == Collective::kAllReduce || c.kind == Collective::kReduceScatter;
}
inline bool IsPointToPoint(const Collective& c) { return c.kind == Collective::kSend || c.kind == Collective::kRecv; }

std::string Describe(const Collective& c);                   // "all-reduce sum of 1024 f32"
std::string Where(const CommSpec& spec, uint64_t sequence);  // "communicator dp, call 12"

// Of call `sequence`, which every member issues; call(i) is member i's. Internal, naming both, where they differ;
// InvalidArgument where they cannot be done. No allocation if OK.
absl::Status CheckCalls(const CommSpec& spec, uint64_t sequence, int me,
                        absl::FunctionRef<const Collective&(int)> call);
absl::Status CheckPeer(const CommSpec& spec, const Collective& c);  // of a send or receive
// Internal where the send of member `from` is not what `received` of member `to` expects.
absl::Status CheckPair(const CommSpec& spec, int from, const Collective& sent, int to, const Collective& received);

// Member r of n makes elements [first, last) of an all-reduce or reduce-scatter.
struct Slice {
  int64_t first, last;
};
inline Slice SliceOf(int64_t count, int n, int r) { return {count * r / n, count * (r + 1) / n}; }

inline void CopyBytes(void* out, const void* in, int64_t bytes) {
  if (out != in && bytes > 0) std::memcpy(out, in, static_cast<size_t>(bytes));
}
inline std::byte* At(void* p, int64_t bytes) { return static_cast<std::byte*>(p) + bytes; }
inline const std::byte* At(const void* p, int64_t bytes) { return static_cast<const std::byte*>(p) + bytes; }

}  // namespace strata::internal
