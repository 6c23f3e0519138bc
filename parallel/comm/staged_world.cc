#include "parallel/comm/staged_world.h"

#include <algorithm>
#include <array>
#include <vector>

#include "core/base/status.h"
#include "parallel/comm/internal/calls.h"

namespace strata {
namespace {

using internal::At;
using internal::IsPointToPoint;

// How a collective is cut: a chunk is elements [first, first + length) of each part. A part is a member's share of what is
// larger by a factor of `size`, or all there is.
struct Cut {
  int64_t part;      // elements
  int in_parts = 1;  // of the input; 0: this rank has none
  int out_parts = 1;
};

Cut CutOf(const Collective& c, int size, int me) {
  switch (c.kind) {
    case Collective::kReduceScatter: return {c.count / size, size, 1};
    case Collective::kAllGather: return {c.count, 1, size};
    case Collective::kAllToAll: return {c.count / size, size, size};
    case Collective::kBroadcast: return {c.count, me == c.peer ? 1 : 0, 1};
    default: return {c.count, 1, 1};
  }
}

}  // namespace

// Two pairs of pinned buffers, each with a stream of its own: what is copied by way of one pair is ordered, and waits for
// nothing of the other.
class StagedWorld::Staging {
 public:
  struct Lane {
    Stream stream;
    Event reached;
    std::byte *in = nullptr, *out = nullptr;
    int64_t bytes = 0;  // of each
  };

  explicit Staging(Device& device) : device_(device) {}

  absl::Status Init(int64_t bytes) {
    for (Lane& lane : lanes_) {
      ASSIGN_OR_RETURN(lane.stream, device_.NewStream("staging", Priority::kHigh));
      ASSIGN_OR_RETURN(lane.reached, device_.NewEvent());
    }
    ASSIGN_OR_RETURN(begun_, device_.NewEvent());
    return Hold(bytes);
  }

  // Makes room for `bytes` in each buffer. Larger ones are reserved when a call first needs them.
  absl::Status Hold(int64_t bytes) {
    for (Lane& lane : lanes_) {
      if (lane.bytes >= bytes) continue;
      RETURN_IF_ERROR(device_.Drain(lane.stream));
      ASSIGN_OR_RETURN(lane.in, device_.Reserve(Tier::kHost, bytes));
      ASSIGN_OR_RETURN(lane.out, device_.Reserve(Tier::kHost, bytes));
      lane.bytes = bytes;
    }
    return absl::OkStatus();
  }

  Lane& lane(int64_t chunk) { return lanes_[chunk % 2]; }
  Device& device() { return device_; }

  // The lanes go on where `stream` is now.
  absl::Status Begin(Stream stream) {
    RETURN_IF_ERROR(device_.Record(begun_, stream));
    for (Lane& lane : lanes_) RETURN_IF_ERROR(device_.Wait(lane.stream, begun_));
    return absl::OkStatus();
  }
  // `stream` goes on where the lanes are.
  absl::Status End(Stream stream) {
    for (Lane& lane : lanes_) {
      RETURN_IF_ERROR(device_.Record(lane.reached, lane.stream));
      RETURN_IF_ERROR(device_.Wait(stream, lane.reached));
    }
    return absl::OkStatus();
  }

 private:
  Device& device_;
  std::array<Lane, 2> lanes_;
  Event begun_;
};

class StagedWorld::StagedCommunicator final : public Communicator {
 public:
  StagedCommunicator(std::unique_ptr<Communicator> host, std::shared_ptr<Staging> staging, int me, int64_t chunk_bytes)
      : host_(std::move(host)), staging_(std::move(staging)), me_(me), chunk_bytes_(chunk_bytes) {}

  const CommSpec& spec() const override { return host_->spec(); }
  absl::Status Poll() override { return host_->Poll(); }
  void Abort(const absl::Status& cause) override { host_->Abort(cause); }
  absl::Status Close() override { return host_->Close(); }

  absl::Status Issue(std::span<const Collective> calls, Stream stream) override {
    RETURN_IF_ERROR(host_->Poll());
    RETURN_IF_ERROR(staging_->Begin(stream));
    if (std::any_of(calls.begin(), calls.end(), IsPointToPoint)) RETURN_IF_ERROR(PointToPoint(calls));
    for (const Collective& c : calls) {
      if (IsPointToPoint(c)) continue;
      RETURN_IF_ERROR(c.kind == Collective::kBarrier ? Barrier(c) : Run(c));
    }
    return staging_->End(stream);
  }

 private:
  using Lane = Staging::Lane;
  int size() const { return static_cast<int>(spec().ranks.size()); }

  absl::Status Barrier(const Collective& c) {
    RETURN_IF_ERROR(staging_->device().Drain(staging_->lane(0).stream));
    return host_->Issue({&c, 1}, Stream{});
  }

  absl::Status Run(const Collective& c) {
    const Cut cut = CutOf(c, size(), me_);
    const int64_t element = SizeOf(c.dtype), widest = std::max({cut.in_parts, cut.out_parts, 1});
    // Of the larger side, and alike on all members: a broadcast's root has an input, and the others have none.
    const int64_t longest = std::max<int64_t>(1, chunk_bytes_ / (widest * element));
    RETURN_IF_ERROR(staging_->Hold(std::min(longest, cut.part) * widest * element));
    const int64_t chunks = (cut.part + longest - 1) / longest;
    const auto length = [&](int64_t k) { return std::min(longest, cut.part - k * longest); };
    if (chunks > 0) RETURN_IF_ERROR(ToHost(c, cut, 0, length(0), staging_->lane(0)));
    for (int64_t k = 0; k < chunks; ++k) {
      if (k + 1 < chunks) RETURN_IF_ERROR(ToHost(c, cut, (k + 1) * longest, length(k + 1), staging_->lane(k + 1)));
      Lane& lane = staging_->lane(k);
      RETURN_IF_ERROR(staging_->device().Drain(lane.stream));
      Collective part = c;
      part.count = length(k) * (cut.in_parts == 0 ? 1 : cut.in_parts);
      part.in = lane.in;
      part.out = lane.out;
      RETURN_IF_ERROR(host_->Issue({&part, 1}, Stream{}));
      RETURN_IF_ERROR(ToDevice(c, cut, k * longest, length(k), lane));
    }
    return absl::OkStatus();
  }

  absl::Status ToHost(const Collective& c, const Cut& cut, int64_t first, int64_t length, Lane& lane) {
    const int64_t element = SizeOf(c.dtype);
    for (int p = 0; p < cut.in_parts; ++p) {
      RETURN_IF_ERROR(staging_->device().Copy(
          lane.in + p * length * element, At(c.in, (p * cut.part + first) * element), length * element, lane.stream));
    }
    return absl::OkStatus();
  }

  absl::Status ToDevice(const Collective& c, const Cut& cut, int64_t first, int64_t length, Lane& lane) {
    const int64_t element = SizeOf(c.dtype);
    for (int p = 0; p < cut.out_parts; ++p) {
      RETURN_IF_ERROR(staging_->device().Copy(At(c.out, (p * cut.part + first) * element),
                                              lane.out + p * length * element, length * element, lane.stream));
    }
    return absl::OkStatus();
  }

  // In rounds: one sends a piece of each message, and receives one. A piece is as long for the sender as for the receiver.
  absl::Status PointToPoint(std::span<const Collective> calls) {
    const int64_t piece = std::max<int64_t>(8, chunk_bytes_ / (2 * size()));
    RETURN_IF_ERROR(staging_->Hold(piece * static_cast<int64_t>(calls.size())));
    const auto begin = [&](const Collective& c, int64_t round) {
      return std::min(c.count, round * (piece / SizeOf(c.dtype)));
    };
    int64_t rounds = 0;
    for (const Collective& c : calls) {
      const int64_t elements = piece / SizeOf(c.dtype);
      // An empty message is one too.
      if (IsPointToPoint(c)) rounds = std::max({rounds, (c.count + elements - 1) / elements, int64_t{1}});
    }
    for (int64_t round = 0; round < rounds; ++round) {
      Lane& lane = staging_->lane(round);
      round_.clear();
      received_.clear();
      for (size_t i = 0; i < calls.size(); ++i) {
        const Collective& c = calls[i];
        const int64_t first = begin(c, round), length = begin(c, round + 1) - first;
        if (!IsPointToPoint(c) || (length == 0 && round > 0)) continue;
        Collective& part = round_.emplace_back(c);
        part.count = length;
        part.in = lane.in + static_cast<int64_t>(i) * piece;
        part.out = lane.out + static_cast<int64_t>(i) * piece;
        const int64_t element = SizeOf(c.dtype);
        if (c.kind == Collective::kSend) {
          RETURN_IF_ERROR(staging_->device().Copy(lane.in + static_cast<int64_t>(i) * piece, At(c.in, first * element),
                                                  length * element, lane.stream));
        } else {
          received_.emplace_back(&c, first);
        }
      }
      RETURN_IF_ERROR(staging_->device().Drain(lane.stream));
      RETURN_IF_ERROR(host_->Issue(round_, Stream{}));
      for (const auto& [c, first] : received_) {
        const int64_t element = SizeOf(c->dtype);
        RETURN_IF_ERROR(staging_->device().Copy(At(c->out, first * element), lane.out + (c - calls.data()) * piece,
                                                (begin(*c, round + 1) - first) * element, lane.stream));
      }
    }
    return absl::OkStatus();
  }

  const std::unique_ptr<Communicator> host_;
  const std::shared_ptr<Staging> staging_;
  const int me_;
  const int64_t chunk_bytes_;
  // Of a round of sends and receives.
  std::vector<Collective> round_;
  std::vector<std::pair<const Collective*, int64_t>> received_;  // and its first element of the round
};

StagedWorld::StagedWorld(World& host, Device& device, const StagedWorldOptions& options)
    : host_(host), device_(device), options_(options) {}
StagedWorld::~StagedWorld() = default;

absl::StatusOr<std::unique_ptr<Communicator>> StagedWorld::Connect(const CommSpec& group) {
  ASSIGN_OR_RETURN(std::unique_ptr<Communicator> host, host_.Connect(group));
  if (host == nullptr) return host;
  if (staging_ == nullptr) {
    auto staging = std::make_shared<Staging>(device_);
    RETURN_IF_ERROR(staging->Init(options_.chunk_bytes));
    staging_ = std::move(staging);
  }
  const int me = static_cast<int>(std::find(group.ranks.begin(), group.ranks.end(), rank()) - group.ranks.begin());
  return std::make_unique<StagedCommunicator>(std::move(host), staging_, me, options_.chunk_bytes);
}

}  // namespace strata
