#pragma once
// How ranks on GPUs reach each other: keys of [parallel].

#include <cstdint>
#include <string>
#include <string_view>

#include "core/base/config.h"

namespace strata {

enum class Transport : uint8_t { kAuto, kPeers, kNccl, kHost };
inline constexpr std::string_view kTransportNames[] = {"auto", "peers", "nccl", "host"};
// Who launches NCCL's kernels: a thread of NCCL's, so that a launch that cannot go on is noticed; or the rank's own.
enum class NcclLaunch : uint8_t { kBackground, kDirect };
inline constexpr std::string_view kNcclLaunchNames[] = {"background", "direct"};
// What NCCL knows of the arena: nothing; its address, so that peers read it without a copy; that it lies at one offset on all
// ranks; and that copy engines may do what needs no arithmetic.
enum class NcclBuffers : uint8_t { kPlain, kRegistered, kSymmetric, kCopyEngine };
inline constexpr std::string_view kNcclBuffersNames[] = {"plain", "registered", "symmetric", "copy-engine"};

struct CommConfig {
  static constexpr int kCollectiveCtas = 16, kEdgeCtas = 4;  // leave the other 100 and more of a GPU to the computation

  Transport transport = Transport::kAuto;
  int64_t nccl_ctas = 0;  // 0: the two above
  NcclLaunch launch = NcclLaunch::kBackground;
  NcclBuffers buffers = NcclBuffers::kPlain;

  void Describe(ConfigFields& f);
  bool operator==(const CommConfig&) const = default;
};

// Where another transport than NCCL carries the collectives, what keys of NCCL's were given for nothing: a note for the user, or "".
std::string NoteOnUnusedKeys(const CommConfig& given, Transport taken);

}  // namespace strata
