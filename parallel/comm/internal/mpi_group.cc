#include "parallel/comm/internal/mpi_group.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "parallel/comm/internal/calls.h"
#include "parallel/comm/internal/reduce.h"

namespace strata::internal {
namespace {

constexpr uint8_t kNoHeader = 0xff;  // a kind that no call has

}  // namespace

MpiGroup::MpiGroup(MpiLink& link, CommSpec spec, int index)
    : link_(link),
      spec_(std::move(spec)),
      first_tag_(index * kNumTags),
      headers_(spec_.ranks.size()),
      calls_(spec_.ranks.size()),
      pieces_(spec_.ranks.size()),
      inputs_(spec_.ranks.size()) {
  me_ = static_cast<int>(std::find(spec_.ranks.begin(), spec_.ranks.end(), link.rank()) - spec_.ranks.begin());
}

MpiGroup::Header MpiGroup::HeaderOf(const Collective& c) {
  return {c.count, c.peer, static_cast<uint8_t>(c.kind), static_cast<uint8_t>(c.reduce), static_cast<uint8_t>(c.dtype),
          0};
}

Collective MpiGroup::CallOf(const Header& h) {
  return {static_cast<Collective::Kind>(h.kind),
          static_cast<ReduceOp>(h.reduce),
          static_cast<DType>(h.dtype),
          h.count,
          h.peer,
          nullptr,
          nullptr};
}

absl::Status MpiGroup::Send(const void* data, int64_t bytes, int member, Tag tag) {
  return link_.Send(data, bytes, spec_.ranks[member], first_tag_ + tag, pending_);
}

absl::Status MpiGroup::Receive(void* data, int64_t bytes, int member, Tag tag) {
  return link_.Receive(data, bytes, spec_.ranks[member], first_tag_ + tag, pending_);
}

absl::Status MpiGroup::Wait(const Collective& c) {
  return link_.Wait(pending_, spec_, [&] {
    return IsPointToPoint(c) ? absl::StrFormat("communicator %s, %s", spec_.name, Describe(c))
                             : absl::StrFormat("%s, %s", Where(spec_, sequence_), Describe(c));
  });
}

absl::Status MpiGroup::Issue(std::span<const Collective> calls) {
  absl::Status status = link_.error();
  if (status.ok() && std::any_of(calls.begin(), calls.end(), IsPointToPoint)) status = PointToPoint(calls);
  for (const Collective& c : calls) {
    if (status.ok() && !IsPointToPoint(c)) status = RunCollective(c);
  }
  return status.ok() ? status : link_.Fail(status);
}

absl::Status MpiGroup::RunCollective(const Collective& c) {
  ++sequence_;
  RETURN_IF_ERROR(AgreeOnCall(c));
  if (!IsReduction(c)) return Exchange(c);
  RETURN_IF_ERROR(ReduceOwnSlice(c));
  return c.kind == Collective::kAllReduce ? GatherSlices(c) : absl::OkStatus();
}

absl::Status MpiGroup::AgreeOnCall(const Collective& c) {
  headers_[me_] = HeaderOf(c);
  for (int i = 0; i < size(); ++i) {
    if (i == me_) continue;
    RETURN_IF_ERROR(Receive(&headers_[i], sizeof(Header), i, kHeader));
    RETURN_IF_ERROR(Send(&headers_[me_], sizeof(Header), i, kHeader));
  }
  RETURN_IF_ERROR(Wait(c));
  for (int i = 0; i < size(); ++i) calls_[i] = i == me_ ? c : CallOf(headers_[i]);
  // A buffer is compared with its own call's only, so that the others' are unknown does not matter.
  return CheckCalls(spec_, sequence_, me_, [&](int i) -> const Collective& { return calls_[i]; });
}

// In segments, so that scratch stays small however long the buffers are. The result may lie in the input: what is written
// of it is this member's own slice, which nobody is sent.
absl::Status MpiGroup::ReduceOwnSlice(const Collective& c) {
  const int64_t element = SizeOf(c.dtype), segment = kSegmentBytes / element;
  const int64_t longest = (c.count + size() - 1) / size();
  const Slice own = SliceOf(c.count, size(), me_);
  for (int64_t begin = 0; begin < longest; begin += segment) {
    const auto cut = [&](const Slice& s) -> Slice {
      return {std::min(s.first + begin, s.last), std::min(s.first + begin + segment, s.last)};
    };
    const Slice mine = cut(own);
    const int64_t bytes = (mine.last - mine.first) * element;
    for (int i = 0; i < size(); ++i) {
      inputs_[i] = At(c.in, mine.first * element);
      if (i == me_) continue;
      if (static_cast<int64_t>(pieces_[i].size()) < bytes) pieces_[i].resize(bytes);
      inputs_[i] = pieces_[i].data();
      const Slice theirs = cut(SliceOf(c.count, size(), i));
      RETURN_IF_ERROR(Receive(pieces_[i].data(), bytes, i, kData));
      RETURN_IF_ERROR(Send(At(c.in, theirs.first * element), (theirs.last - theirs.first) * element, i, kData));
    }
    RETURN_IF_ERROR(Wait(c));
    const int64_t to = c.kind == Collective::kAllReduce ? mine.first : mine.first - own.first;
    Reduce(c.reduce, c.dtype, inputs_, 0, mine.last - mine.first, At(c.out, to * element));
  }
  return absl::OkStatus();
}

absl::Status MpiGroup::GatherSlices(const Collective& c) {
  const int64_t element = SizeOf(c.dtype);
  const Slice own = SliceOf(c.count, size(), me_);
  for (int i = 0; i < size(); ++i) {
    if (i == me_) continue;
    const Slice s = SliceOf(c.count, size(), i);
    RETURN_IF_ERROR(Receive(At(c.out, s.first * element), (s.last - s.first) * element, i, kData));
    RETURN_IF_ERROR(Send(At(c.out, own.first * element), (own.last - own.first) * element, i, kData));
  }
  return Wait(c);
}

absl::Status MpiGroup::Exchange(const Collective& c) {
  const int64_t bytes = c.count * SizeOf(c.dtype), part = bytes / size();
  if (c.kind == Collective::kBroadcast && me_ == c.peer) CopyBytes(c.out, c.in, bytes);
  if (c.kind == Collective::kBroadcast && me_ != c.peer) RETURN_IF_ERROR(Receive(c.out, bytes, c.peer, kData));
  for (int i = 0; i < size(); ++i) {
    if (c.kind == Collective::kAllGather) {
      if (i == me_) {
        CopyBytes(At(c.out, i * bytes), c.in, bytes);
        continue;
      }
      RETURN_IF_ERROR(Receive(At(c.out, i * bytes), bytes, i, kData));
      RETURN_IF_ERROR(Send(c.in, bytes, i, kData));
    } else if (c.kind == Collective::kAllToAll) {
      if (i == me_) {
        CopyBytes(At(c.out, i * part), At(c.in, i * part), part);
        continue;
      }
      RETURN_IF_ERROR(Receive(At(c.out, i * part), part, i, kData));
      RETURN_IF_ERROR(Send(At(c.in, i * part), part, i, kData));
    } else if (c.kind == Collective::kBroadcast && me_ == c.peer && i != me_) {
      RETURN_IF_ERROR(Send(c.in, bytes, i, kData));
    }
  }
  return Wait(c);
}

// All at once: a member that waits for one message before it posts another could wait for ever. What arrived is compared
// with what was expected afterwards.
absl::Status MpiGroup::PointToPoint(std::span<const Collective> calls) {
  if (pair_headers_.size() < calls.size()) pair_headers_.resize(calls.size());
  const Collective* last = nullptr;
  for (size_t k = 0; k < calls.size(); ++k) {
    const Collective& c = calls[k];
    if (!IsPointToPoint(c)) continue;
    RETURN_IF_ERROR(CheckPeer(spec_, c));
    last = &c;
    pair_headers_[k] = HeaderOf(c);
    const int64_t bytes = c.count * SizeOf(c.dtype);
    if (c.kind == Collective::kSend) {
      RETURN_IF_ERROR(Send(&pair_headers_[k], sizeof(Header), c.peer, kPairHeader));
      RETURN_IF_ERROR(Send(c.in, bytes, c.peer, kPairData));
    } else {
      pair_headers_[k].kind = kNoHeader;
      RETURN_IF_ERROR(Receive(&pair_headers_[k], sizeof(Header), c.peer, kPairHeader));
      RETURN_IF_ERROR(Receive(c.out, bytes, c.peer, kPairData));
    }
  }
  absl::Status arrived = Wait(*last);
  RETURN_IF_ERROR(CheckPairs(calls));  // says more than MPI's error about a message that is too long
  return arrived;
}

absl::Status MpiGroup::CheckPairs(std::span<const Collective> calls) const {
  for (size_t k = 0; k < calls.size(); ++k) {
    if (calls[k].kind != Collective::kRecv || pair_headers_[k].kind == kNoHeader) continue;
    RETURN_IF_ERROR(CheckPair(spec_, calls[k].peer, CallOf(pair_headers_[k]), me_, calls[k]));
  }
  return absl::OkStatus();
}

}  // namespace strata::internal
