#pragma once
// A member's side of one communicator over MPI. A collective is: tell all other members what is called, compare, exchange.
// A reduction takes the members' pieces of the own slice and adds them up in the order of the ranks, as thread ranks do, so
// the bits are the same.

#include <cstddef>
#include <span>
#include <vector>

#include "core/comm/communicator.h"
#include "parallel/comm/internal/mpi_link.h"

namespace strata::internal {

// Used by one thread; error() and the link's Abort() by any.
class MpiGroup {
 public:
  // The index-th communicator of the job: groups of one index share no rank.
  MpiGroup(MpiLink& link, CommSpec spec, int index);

  const CommSpec& spec() const { return spec_; }

  // Returns when the calls are complete; the sends and receives of a span go before its collectives. Errors as of
  // ThreadGroup::Issue; they end the job for all its ranks. Scratch grows at the first calls of each size, to at most
  // kSegmentBytes a member.
  absl::Status Issue(std::span<const Collective> calls);

  static constexpr int64_t kSegmentBytes = int64_t{1} << 20;  // of a piece in a reduction

 private:
  enum Tag : int { kHeader, kData, kPairHeader, kPairData, kNumTags };
  struct Header {  // what a call is, without its buffers
    int64_t count;
    int32_t peer;
    uint8_t kind, reduce, dtype, unused;
  };
  static Header HeaderOf(const Collective& c);
  static Collective CallOf(const Header& h);

  int size() const { return static_cast<int>(spec_.ranks.size()); }
  absl::Status Send(const void* data, int64_t bytes, int member, Tag tag);
  absl::Status Receive(void* data, int64_t bytes, int member, Tag tag);
  absl::Status Wait(const Collective& c);

  absl::Status RunCollective(const Collective& c);
  absl::Status AgreeOnCall(const Collective& c);
  absl::Status ReduceOwnSlice(const Collective& c);
  absl::Status GatherSlices(const Collective& c);
  absl::Status Exchange(const Collective& c);

  absl::Status PointToPoint(std::span<const Collective> calls);
  absl::Status CheckPairs(std::span<const Collective> calls) const;

  MpiLink& link_;
  const CommSpec spec_;
  const int first_tag_;
  int me_ = 0;
  uint64_t sequence_ = 0;  // collectives begun
  std::vector<MpiLink::Pending> pending_;
  std::vector<Header> headers_;    // by member
  std::vector<Collective> calls_;  // by member: what they say they call
  std::vector<std::vector<std::byte>> pieces_;
  std::vector<const void*> inputs_;
  std::vector<Header> pair_headers_;  // by call of a span of sends and receives
};

}  // namespace strata::internal
