// Collectives on memory that the host cannot address, staged through host memory: the bits of the world underneath.

#include "parallel/comm/staged_world.h"

#include <gtest/gtest.h>

#include <numeric>

#include "absl/strings/str_format.h"
#include "core/base/philox.h"
#include "core/base/status.h"
#include "core/exec/cpu_device.h"
#include "parallel/comm/faulty.h"
#include "parallel/comm/thread_world.h"
#include "tests/testing/lazy_device.h"

namespace strata {
namespace {

using testing::LazyDevice;
using Bytes = std::vector<std::byte>;

CommSpec Everyone(const World& world) {
  CommSpec spec{"all", std::vector<int>(world.size())};
  std::iota(spec.ranks.begin(), spec.ranks.end(), 0);
  return spec;
}

Bytes Input(DType t, int64_t count, int rank) {
  Bytes b(static_cast<size_t>(count * SizeOf(t)));
  for (int64_t i = 0; i < count; ++i) {
    const double v = PhiloxUniform(Philox(7, static_cast<uint64_t>(rank), static_cast<uint64_t>(i))[0]) - 0.5;
    if (t == DType::kF64) reinterpret_cast<double*>(b.data())[i] = v;
    if (t == DType::kF32) reinterpret_cast<float*>(b.data())[i] = static_cast<float>(v);
    if (t == DType::kBF16) reinterpret_cast<BF16*>(b.data())[i] = BF16(static_cast<float>(v));
    if (t == DType::kU8) b[i] = static_cast<std::byte>(static_cast<int>(v * 100) & 15);
  }
  return b;
}

// A rank's communicator over its memory, and how that is written and read. Two of them, staged and plain, are compared.
struct Party {
  Communicator& comm;
  Device& device;
  Stream stream;

  // What `call` makes of `out_bytes` bytes, with `in` as input; in place: in the input, `offset` bytes after its start.
  absl::StatusOr<Bytes> Run(Collective call, const Bytes& in, int64_t in_offset, int64_t out_bytes, int64_t offset,
                            bool in_place) {
    ASSIGN_OR_RETURN(std::byte* const from, device.Reserve(Tier::kDevice, static_cast<int64_t>(in.size()) + 8));
    ASSIGN_OR_RETURN(std::byte* const apart, device.Reserve(Tier::kDevice, out_bytes + 8));
    RETURN_IF_ERROR(device.Copy(from, in.data(), static_cast<int64_t>(in.size()), stream));
    std::byte* const to = in_place ? from + offset : apart;
    call.in = from + in_offset;
    call.out = to;
    RETURN_IF_ERROR(comm.Issue({&call, 1}, stream));
    Bytes out(static_cast<size_t>(out_bytes));
    RETURN_IF_ERROR(device.Copy(out.data(), to, out_bytes, stream));
    RETURN_IF_ERROR(device.Drain(stream));
    return out;
  }
};

absl::Status Same(const char* what, DType t, int64_t count, bool in_place, const absl::StatusOr<Bytes>& staged,
                  const absl::StatusOr<Bytes>& plain) {
  RETURN_IF_ERROR(staged.status());
  RETURN_IF_ERROR(plain.status());
  if (*staged == *plain) return absl::OkStatus();
  return absl::InternalError(
      absl::StrFormat("%s of %d x %d bytes, in place %d: differs", what, count, SizeOf(t), in_place));
}

absl::Status CompareAll(Party& staged, Party& plain, int n, int me, DType t, int64_t count) {
  const Bytes whole = Input(t, count * n, me);
  const int64_t part = count * SizeOf(t), all = part * n;
  struct Row {
    Collective call;
    int64_t in_offset, out_bytes, offset;  // offset: of the output in the input, in place; -1: not possible
  };
  const Row rows[] = {{{Collective::kAllReduce, ReduceOp::kSum, t, count * n}, 0, all, 0},
                      {{Collective::kAllReduce, ReduceOp::kMax, t, count}, 0, part, 0},
                      {{Collective::kReduceScatter, ReduceOp::kSum, t, count * n}, 0, part, me * part},
                      {{Collective::kBroadcast, {}, t, count, n - 1}, 0, part, 0},
                      {{Collective::kAllToAll, {}, t, count * n}, 0, all, -1}};
  for (const Row& r : rows) {
    for (const bool in_place : {false, true}) {
      if (in_place && r.offset < 0) continue;
      RETURN_IF_ERROR(Same(Name(r.call.kind), t, count, in_place,
                           staged.Run(r.call, whole, r.in_offset, r.out_bytes, r.offset, in_place),
                           plain.Run(r.call, whole, r.in_offset, r.out_bytes, r.offset, in_place)));
    }
  }
  // An all-gather in place is the one whose output begins before its input.
  const Collective gather{Collective::kAllGather, {}, t, count};
  RETURN_IF_ERROR(Same("all-gather", t, count, false, staged.Run(gather, whole, 0, all, 0, false),
                       plain.Run(gather, whole, 0, all, 0, false)));
  return Same("all-gather", t, count, true, staged.Run(gather, whole, me * part, all, 0, true),
              plain.Run(gather, whole, me * part, all, 0, true));
}

class Staged : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, Staged, ::testing::Values(1, 2, 3));

TEST_P(Staged, EveryCollectiveHasTheBitsOfTheHostWorld) {
  const int n = GetParam();
  const absl::Status status = RunRanks(n, [&](World& host) -> absl::Status {
    LazyDevice device;
    CpuDevice memory;
    ASSIGN_OR_RETURN(const Stream stream, device.NewStream("test", Priority::kNormal));
    StagedWorld world(host, device, {.chunk_bytes = 256});
    ASSIGN_OR_RETURN(const auto staged, world.Connect(Everyone(host)));
    CommSpec spec = Everyone(host);
    spec.name = "plain";
    ASSIGN_OR_RETURN(const auto plain, host.Connect(spec));
    Party a{*staged, device, stream}, b{*plain, memory, Stream{}};
    for (const DType t : {DType::kF64, DType::kF32, DType::kBF16, DType::kU8}) {
      for (const int64_t count : {0, 1, 5, 64, 1001}) RETURN_IF_ERROR(CompareAll(a, b, n, host.rank(), t, count));
    }
    RETURN_IF_ERROR(plain->Close());
    return staged->Close();
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST_P(Staged, MessagesGoInPiecesAndStartTogether) {
  const int n = GetParam();
  const absl::Status status = RunRanks(n, [&](World& host) -> absl::Status {
    LazyDevice device;
    ASSIGN_OR_RETURN(const Stream stream, device.NewStream("test", Priority::kNormal));
    StagedWorld world(host, device, {.chunk_bytes = 256});
    ASSIGN_OR_RETURN(const auto comm, world.Connect(Everyone(host)));
    const int me = host.rank();
    // To everyone, as many as his number and mine say; what goes to rank r is Input(r).
    const auto count = [](int from, int to) { return int64_t{300} * from + 7 * to; };
    std::vector<Collective> calls;
    std::vector<Bytes> got(n);
    std::vector<std::byte*> outs(n);
    for (int r = 0; r < n; ++r) {
      const Bytes data = Input(DType::kF32, count(me, r), me * 10 + r);
      ASSIGN_OR_RETURN(std::byte* const from, device.Reserve(Tier::kDevice, static_cast<int64_t>(data.size())));
      ASSIGN_OR_RETURN(outs[r], device.Reserve(Tier::kDevice, count(r, me) * 4));
      RETURN_IF_ERROR(device.Copy(from, data.data(), static_cast<int64_t>(data.size()), stream));
      RETURN_IF_ERROR(device.Drain(stream));  // `data` goes
      calls.push_back({Collective::kSend, {}, DType::kF32, count(me, r), r, from, nullptr});
      calls.push_back({Collective::kRecv, {}, DType::kF32, count(r, me), r, nullptr, outs[r]});
    }
    RETURN_IF_ERROR(comm->Issue(calls, stream));
    for (int r = 0; r < n; ++r) {
      got[r].resize(static_cast<size_t>(count(r, me)) * 4);
      RETURN_IF_ERROR(device.Copy(got[r].data(), outs[r], count(r, me) * 4, stream));
    }
    RETURN_IF_ERROR(device.Drain(stream));
    for (int r = 0; r < n; ++r) {
      if (got[r] != Input(DType::kF32, count(r, me), r * 10 + me))
        return absl::InternalError(absl::StrFormat("from %d", r));
    }
    return comm->Close();
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST(StagedWorld, ALateRankIsNamedAndAnAbortReachesTheOthers) {
  const absl::Status status =
      RunRanks(2,
               [](World& host) -> absl::Status {
                 LazyDevice device;
                 const CommFault hang{CommFault::kHang, "all", 1, {}};
                 FaultyWorld faulty(host, host.rank() == 1 ? std::vector{hang} : std::vector<CommFault>{}, 1);
                 StagedWorld world(faulty, device, {.chunk_bytes = 64});
                 ASSIGN_OR_RETURN(const auto comm, world.Connect(Everyone(host)));
                 ASSIGN_OR_RETURN(const Stream stream, device.NewStream("test", Priority::kNormal));
                 ASSIGN_OR_RETURN(std::byte* const p, device.Reserve(Tier::kDevice, 4096));
                 const Collective sum{.kind = Collective::kAllReduce, .count = 1024, .in = p, .out = p};
                 return comm->Issue({&sum, 1}, stream);
               },
               {std::chrono::milliseconds(100)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_NE(status.message().find("rank 1 did not arrive within 100 ms"), std::string::npos) << status;
}

}  // namespace
}  // namespace strata
