#include "parallel/comm/thread_world.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>
#include <thread>

#include "absl/strings/str_format.h"
#include "core/base/philox.h"
#include "core/base/status.h"
#include "parallel/comm/counting.h"
#include "parallel/comm/faulty.h"
#include "tests/testing/alloc_counter.h"

namespace strata {
namespace {

using Bytes = std::vector<std::byte>;

constexpr DType kDTypes[] = {DType::kF64, DType::kF32, DType::kBF16, DType::kI64, DType::kI32, DType::kU8};
constexpr int64_t kCounts[] = {0, 1, 2, 5, 63, 1001};
constexpr Stream kStream{};

CommSpec All(const std::string& name, int n) {
  CommSpec spec{name, {}};
  for (int r = 0; r < n; ++r) spec.ranks.push_back(r);
  return spec;
}

double Get(const Bytes& b, DType t, int64_t i) {
  const void* p = b.data();
  switch (t) {
    case DType::kF64: return static_cast<const double*>(p)[i];
    case DType::kF32: return static_cast<const float*>(p)[i];
    case DType::kBF16: return static_cast<float>(static_cast<const BF16*>(p)[i]);
    case DType::kI64: return static_cast<double>(static_cast<const int64_t*>(p)[i]);
    case DType::kI32: return static_cast<const int32_t*>(p)[i];
    case DType::kU8: return static_cast<const uint8_t*>(p)[i];
    case DType::kLow16: break;
  }
  return 0;
}
void Set(Bytes& b, DType t, int64_t i, double v) {
  void* p = b.data();
  switch (t) {
    case DType::kF64: static_cast<double*>(p)[i] = v; break;
    case DType::kF32: static_cast<float*>(p)[i] = static_cast<float>(v); break;
    case DType::kBF16: static_cast<BF16*>(p)[i] = BF16(static_cast<float>(v)); break;
    case DType::kI64: static_cast<int64_t*>(p)[i] = static_cast<int64_t>(v); break;
    case DType::kI32: static_cast<int32_t*>(p)[i] = static_cast<int32_t>(v); break;
    case DType::kU8: static_cast<uint8_t*>(p)[i] = static_cast<uint8_t>(v); break;
    case DType::kLow16: break;
  }
}
// What rank `rank` puts in: values with full mantissas for floating types, small ones for integers.
Bytes Input(DType t, int64_t count, int rank) {
  Bytes b(static_cast<size_t>(count * SizeOf(t)));
  for (int64_t i = 0; i < count; ++i) {
    const PhiloxBlock block = Philox(7, static_cast<uint64_t>(rank), static_cast<uint64_t>(i));
    Set(b, t, i, IsFloating(t) ? PhiloxNormal(block) : block[0] % 30);
  }
  return b;
}
// The reduction of all ranks' inputs: in rank order, in the accumulator of the dtype, rounded once.
Bytes Reduced(ReduceOp op, DType t, int64_t count, int n) {
  Bytes out(static_cast<size_t>(count * SizeOf(t)));
  std::vector<Bytes> in;
  for (int r = 0; r < n; ++r) in.push_back(Input(t, count, r));
  for (int64_t i = 0; i < count; ++i) {
    double acc = Get(in[0], t, i);
    for (int r = 1; r < n; ++r) {
      const double x = Get(in[r], t, i);
      acc = op == ReduceOp::kMax ? std::max(acc, x) : acc + x;
      if (AccumulatorOf(t) == DType::kF32 && IsFloating(t)) acc = static_cast<float>(acc);
    }
    Set(out, t, i, acc);
  }
  return out;
}
Bytes Part(const Bytes& b, int n, int r) {
  const auto size = static_cast<std::ptrdiff_t>(b.size()) / n;
  return Bytes(b.begin() + r * size, b.begin() + (r + 1) * size);
}
absl::Status Same(const Bytes& got, const Bytes& want, const std::string& what) {
  if (got == want) return absl::OkStatus();
  return absl::InternalError("wrong result: " + what);
}
bool Says(const absl::Status& status, std::string_view text) {
  return std::string_view(status.message().data(), status.message().size()).find(text) != std::string_view::npos;
}
absl::Status IssueOne(Communicator& comm, const Collective& c) { return comm.Issue({&c, 1}, kStream); }

// Every kind, in its normal and its in-place form, against the plain computation.
absl::Status CheckAll(Communicator& comm, int me, int n, DType t, int64_t count) {
  const std::string what = absl::StrFormat("%s x %d on %d ranks", Name(t), count, n);
  const Bytes mine = Input(t, count, me), mine_n = Input(t, count * n, me);
  const size_t bytes = mine.size();
  for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax}) {
    Bytes out(bytes), place = mine;
    RETURN_IF_ERROR(IssueOne(comm, {Collective::kAllReduce, op, t, count, -1, mine.data(), out.data()}));
    RETURN_IF_ERROR(Same(out, Reduced(op, t, count, n), "all-reduce " + what));
    RETURN_IF_ERROR(IssueOne(comm, {Collective::kAllReduce, op, t, count, -1, place.data(), place.data()}));
    RETURN_IF_ERROR(Same(place, out, "all-reduce in place " + what));

    const Bytes want = Part(Reduced(op, t, count * n, n), n, me);
    Bytes place_n = mine_n;
    std::byte* slice = place_n.data() + bytes * me;
    RETURN_IF_ERROR(IssueOne(comm, {Collective::kReduceScatter, op, t, count * n, -1, mine_n.data(), out.data()}));
    RETURN_IF_ERROR(Same(out, want, "reduce-scatter " + what));
    RETURN_IF_ERROR(IssueOne(comm, {Collective::kReduceScatter, op, t, count * n, -1, place_n.data(), slice}));
    RETURN_IF_ERROR(Same(Part(place_n, n, me), want, "reduce-scatter in place " + what));
  }
  Bytes all, exchanged, out_n(bytes * n), place_n(bytes * n);
  for (int r = 0; r < n; ++r) {
    const Bytes part = Input(t, count, r), exchange = Part(Input(t, count * n, r), n, me);
    all.insert(all.end(), part.begin(), part.end());
    exchanged.insert(exchanged.end(), exchange.begin(), exchange.end());
  }
  RETURN_IF_ERROR(IssueOne(comm, {Collective::kAllGather, {}, t, count, -1, mine.data(), out_n.data()}));
  RETURN_IF_ERROR(Same(out_n, all, "all-gather " + what));
  std::byte* slice = place_n.data() + bytes * me;
  std::copy(mine.begin(), mine.end(), slice);
  RETURN_IF_ERROR(IssueOne(comm, {Collective::kAllGather, {}, t, count, -1, slice, place_n.data()}));
  RETURN_IF_ERROR(Same(place_n, all, "all-gather in place " + what));
  RETURN_IF_ERROR(IssueOne(comm, {Collective::kAllToAll, {}, t, count * n, -1, mine_n.data(), out_n.data()}));
  RETURN_IF_ERROR(Same(out_n, exchanged, "all-to-all " + what));
  for (int root = 0; root < n; ++root) {
    Bytes out(bytes), place = mine;
    const void* in = me == root ? mine.data() : nullptr;
    RETURN_IF_ERROR(IssueOne(comm, {Collective::kBroadcast, {}, t, count, root, in, out.data()}));
    RETURN_IF_ERROR(Same(out, Input(t, count, root), "broadcast " + what));
    RETURN_IF_ERROR(IssueOne(comm, {Collective::kBroadcast, {}, t, count, root, place.data(), place.data()}));
    RETURN_IF_ERROR(Same(place, out, "broadcast in place " + what));
  }
  // To and from every member, himself too, receives first on odd ranks.
  Bytes from_all(bytes * n);
  std::vector<Collective> calls;
  for (int r = 0; r < n; ++r) {
    calls.push_back({Collective::kSend, {}, t, count, r, mine.data(), nullptr});
    calls.push_back({Collective::kRecv, {}, t, count, r, nullptr, from_all.data() + bytes * r});
  }
  if (me % 2 == 1) std::reverse(calls.begin(), calls.end());
  RETURN_IF_ERROR(comm.Issue(calls, kStream));
  RETURN_IF_ERROR(Same(from_all, all, "send and recv " + what));
  return IssueOne(comm, {});
}

class ThreadWorldTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, ThreadWorldTest, ::testing::Values(1, 2, 3, 4, 7));

TEST_P(ThreadWorldTest, EveryCollectiveEqualsThePlainComputation) {
  const int n = GetParam();
  EXPECT_EQ(RunRanks(n,
                     [&](World& world) -> absl::Status {
                       ASSIGN_OR_RETURN(auto comm, world.Connect(All("all", n)));
                       for (DType t : kDTypes) {
                         for (int64_t count : kCounts) RETURN_IF_ERROR(CheckAll(*comm, world.rank(), n, t, count));
                       }
                       return comm->Close();
                     }),
            absl::OkStatus());
}

TEST(ThreadWorld, MaxKeepsNaN) {
  EXPECT_EQ(
      RunRanks(
          3,
          [](World& world) -> absl::Status {
            ASSIGN_OR_RETURN(auto comm, world.Connect(All("all", 3)));
            for (int bad = 0; bad < 3; ++bad) {
              float x = world.rank() == bad ? std::numeric_limits<float>::quiet_NaN() : 1.0f;
              RETURN_IF_ERROR(IssueOne(*comm, {Collective::kAllReduce, ReduceOp::kMax, DType::kF32, 1, -1, &x, &x}));
              if (!std::isnan(x)) return absl::InternalError("the NaN was lost");
            }
            return absl::OkStatus();
          }),
      absl::OkStatus());
}

TEST(ThreadWorld, CrossingGroups) {
  constexpr int kRows = 2, kColumns = 3;
  for (bool all_named : {false, true}) {  // ranks name only their own groups, or all of them in one order
    EXPECT_EQ(
        RunRanks(kRows * kColumns,
                 [&](World& world) -> absl::Status {
                   const int row = world.rank() / kColumns, column = world.rank() % kColumns;
                   std::unique_ptr<Communicator> rows, columns;
                   for (int i = 0; i < (all_named ? kRows : 1); ++i) {
                     const int first = (all_named ? i : row) * kColumns;
                     ASSIGN_OR_RETURN(auto comm, world.Connect({"row", {first, first + 1, first + 2}}));
                     if (comm != nullptr) rows = std::move(comm);
                   }
                   for (int i = 0; i < (all_named ? kColumns : 1); ++i) {
                     const int first = all_named ? i : column;
                     ASSIGN_OR_RETURN(auto comm, world.Connect({"column", {first, first + kColumns}}));
                     if (comm != nullptr) columns = std::move(comm);
                   }
                   for (int repeat = 0; repeat < 20; ++repeat) {
                     int64_t x = 1 << world.rank();
                     RETURN_IF_ERROR(IssueOne(*rows, {Collective::kAllReduce, {}, DType::kI64, 1, -1, &x, &x}));
                     if (x != 7 << row * kColumns) return absl::InternalError("row sum");
                     RETURN_IF_ERROR(IssueOne(*columns, {Collective::kAllReduce, {}, DType::kI64, 1, -1, &x, &x}));
                     if (x != 63) return absl::InternalError("column sum");
                   }
                   return absl::OkStatus();
                 }),
        absl::OkStatus());
  }
}

TEST(ThreadWorld, ConnectRefusesGroupsThatDoNotFit) {
  const auto connect = [](const std::vector<CommSpec>& specs) {
    return RunRanks(static_cast<int>(specs.size()), [&](World& world) -> absl::Status {
      return world.Connect(specs[static_cast<size_t>(world.rank())]).status();
    });
  };
  EXPECT_TRUE(absl::IsInternal(connect({{"dp", {0, 1}}, {"tp", {0, 1}}})));  // one group, two names
  EXPECT_TRUE(absl::IsInternal(connect({{"dp", {0, 1}}, {"dp", {1, 2}}, {"dp", {1, 2}}})));
  EXPECT_TRUE(absl::IsInternal(connect({{"dp", {0, 1}}, {"dp", {2}}, {"dp", {2}}})));  // rank 1 is not with rank 0
  EXPECT_TRUE(absl::IsInvalidArgument(connect({{"dp", {0, 2}}, {"dp", {0, 2}}})));
  EXPECT_TRUE(absl::IsInvalidArgument(connect({{"dp", {0, 0}}, {"dp", {0, 0}}})));
}

TEST(ThreadWorld, SpansAreMatchedByOrderNotBySpan) {
  EXPECT_EQ(RunRanks(2,
                     [](World& world) -> absl::Status {
                       ASSIGN_OR_RETURN(auto comm, world.Connect(All("edge", 2)));
                       int64_t x[3] = {1, 2, 3}, y[3] = {};
                       if (world.rank() == 0) {
                         for (int64_t& v : x)
                           RETURN_IF_ERROR(IssueOne(*comm, {Collective::kSend, {}, DType::kI64, 1, 1, &v, nullptr}));
                         return absl::OkStatus();
                       }
                       std::vector<Collective> calls;
                       for (int64_t& v : y) calls.push_back({Collective::kRecv, {}, DType::kI64, 1, 0, nullptr, &v});
                       RETURN_IF_ERROR(comm->Issue(calls, kStream));
                       return std::equal(x, x + 3, y) ? absl::OkStatus() : absl::InternalError("order lost");
                     }),
            absl::OkStatus());
}

// Ranks 0..n-2 wait in `kind`; the last one does `last`. Returns what each rank saw.
std::vector<absl::Status> WhileOthersWait(int n, Collective::Kind kind, std::chrono::milliseconds deadline,
                                          const std::function<absl::Status(Communicator&)>& last) {
  std::vector<absl::Status> seen(static_cast<size_t>(n));
  const absl::Status all = RunRanks(n,
                                    [&](World& world) -> absl::Status {
                                      ASSIGN_OR_RETURN(auto comm, world.Connect(All("dp", n)));
                                      std::vector<float> x(8, 1.0f);
                                      const int root = kind == Collective::kRecv ? n - 1 : 0;
                                      const Collective call{kind, {}, DType::kF32, 8, root, x.data(), x.data()};
                                      absl::Status& mine = seen[static_cast<size_t>(world.rank())];
                                      RETURN_IF_ERROR(IssueOne(*comm, {}));
                                      mine = world.rank() < n - 1 ? IssueOne(*comm, call) : last(*comm);
                                      const absl::Status error = comm->Poll();
                                      if (!error.ok() && IssueOne(*comm, call) != error)
                                        return absl::InternalError("an aborted communicator went on");
                                      return mine;
                                    },
                                    {deadline});
  seen.push_back(all);
  return seen;
}

TEST(ThreadWorld, AnErrorWakesEveryoneWithItsCause) {
  for (Collective::Kind kind : {Collective::kAllReduce, Collective::kRecv}) {
    const auto seen = WhileOthersWait(4, kind, std::chrono::minutes(1), [](Communicator&) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));  // long enough that the others sleep
      return absl::DataLossError("bad shard");
    });
    EXPECT_EQ(seen.back(), absl::DataLossError("rank 3: bad shard"));
    for (size_t r = 0; r < 3; ++r) EXPECT_EQ(seen[r], absl::UnavailableError("rank 3: bad shard"));
  }
}

TEST(ThreadWorld, TheFirstAbortStays) {
  const auto seen = WhileOthersWait(3, Collective::kBarrier, std::chrono::minutes(1), [](Communicator& comm) {
    comm.Abort(absl::UnavailableError("first"));
    comm.Abort(absl::UnavailableError("second"));
    return comm.Poll();
  });
  for (size_t r = 0; r < 3; ++r) EXPECT_EQ(seen[r], absl::UnavailableError("first"));
}

TEST(ThreadWorld, ARankThatNeverArrivesIsNamed) {
  for (Collective::Kind kind : {Collective::kAllReduce, Collective::kRecv}) {
    const auto seen = WhileOthersWait(3, kind, std::chrono::milliseconds(100), [](Communicator& comm) {
      while (comm.Poll().ok()) std::this_thread::yield();
      return comm.Poll();
    });
    for (size_t r = 0; r < 3; ++r) {
      EXPECT_TRUE(absl::IsDeadlineExceeded(seen[r])) << seen[r];
      EXPECT_TRUE(Says(seen[r], "rank 2 did not arrive")) << seen[r];
      EXPECT_TRUE(Says(seen[r], "communicator dp")) << seen[r];
      EXPECT_TRUE(Says(seen[r], Name(kind))) << seen[r];
      EXPECT_TRUE(kind == Collective::kRecv || Says(seen[r], "call 2")) << seen[r];
    }
  }
}

TEST(ThreadWorld, ARankThatNeverConnectsIsNamed) {
  const absl::Status status =
      RunRanks(3,
               [](World& world) -> absl::Status {
                 return world.rank() == 1 ? absl::OkStatus() : world.Connect(All("dp", 3)).status();
               },
               {std::chrono::milliseconds(50)});
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
  EXPECT_TRUE(Says(status, "rank 1 did not arrive")) << status;
}

TEST(ThreadWorld, DifferentCallsAreAnErrorThatNamesBoth) {
  float x[8] = {}, y[8] = {};
  const Collective base{Collective::kAllReduce, {}, DType::kF32, 4, 0, x, y};
  Collective kind = base, count = base, dtype = base, reduce = base;
  kind.kind = Collective::kAllGather;
  count.count = 3;
  dtype.dtype = DType::kF64;
  reduce.reduce = ReduceOp::kMax;
  for (const auto& [other, text] :
       std::vector<std::pair<Collective, std::string>>{{kind, "all-gather of 4 f32"},
                                                       {count, "all-reduce sum of 3 f32"},
                                                       {dtype, "all-reduce sum of 4 f64"},
                                                       {reduce, "all-reduce max of 4 f32"}}) {
    const Collective& different = other;  // clang 14 captures no structured binding
    const absl::Status status = RunRanks(3, [&](World& world) -> absl::Status {
      ASSIGN_OR_RETURN(auto comm, world.Connect(All("dp", 3)));
      return IssueOne(*comm, world.rank() == 2 ? different : base);
    });
    EXPECT_TRUE(absl::IsInternal(status)) << status;
    EXPECT_TRUE(Says(status, "rank 0 issues all-reduce sum of 4 f32, rank 2 issues " + text)) << status;
  }
  const absl::Status status = RunRanks(2, [&](World& world) -> absl::Status {
    ASSIGN_OR_RETURN(auto comm, world.Connect(All("edge", 2)));
    if (world.rank() == 0) return IssueOne(*comm, {Collective::kSend, {}, DType::kF32, 4, 1, x, nullptr});
    return IssueOne(*comm, {Collective::kRecv, {}, DType::kF32, 5, 0, nullptr, y});
  });
  EXPECT_TRUE(absl::IsInternal(status));
  EXPECT_TRUE(Says(status, "rank 0 issues send of 4 f32, rank 1 issues recv of 5 f32")) << status;
}

TEST(ThreadWorld, ImpossibleCallsAreRefused) {
  float x[8] = {}, y[8] = {};
  for (const Collective& bad : {Collective{Collective::kReduceScatter, {}, DType::kF32, 5, -1, x, y},
                                Collective{Collective::kAllToAll, {}, DType::kF32, 5, -1, x, y},
                                Collective{Collective::kAllToAll, {}, DType::kF32, 4, -1, x, x},
                                Collective{Collective::kBroadcast, {}, DType::kF32, 4, 2, x, y},
                                Collective{Collective::kSend, {}, DType::kF32, 4, 2, x, y}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(RunRanks(2, [&](World& world) -> absl::Status {
      ASSIGN_OR_RETURN(auto comm, world.Connect(All("dp", 2)));
      return IssueOne(*comm, bad);
    }))) << Name(bad.kind);
  }
}

TEST(ThreadWorld, IssueDoesNotAllocate) {
  EXPECT_EQ(RunRanks(3,
                     [](World& world) -> absl::Status {
                       ASSIGN_OR_RETURN(auto comm, world.Connect(All("all", 3)));
                       std::vector<float> x(300, 1.0f), y(900);
                       const int next = (world.rank() + 1) % 3, last = (world.rank() + 2) % 3;
                       const Collective calls[] = {
                           {Collective::kSend, {}, DType::kF32, 300, next, x.data(), nullptr},
                           {Collective::kRecv, {}, DType::kF32, 300, last, nullptr, y.data()},
                           {Collective::kAllReduce, {}, DType::kF32, 300, -1, x.data(), x.data()},
                           {Collective::kReduceScatter, {}, DType::kF32, 300, -1, x.data(), y.data()},
                           {Collective::kAllGather, {}, DType::kF32, 300, -1, x.data(), y.data()},
                           {Collective::kAllToAll, {}, DType::kF32, 300, -1, x.data(), y.data()},
                           {Collective::kBroadcast, {}, DType::kF32, 300, 1, x.data(), x.data()},
                           {}};
                       RETURN_IF_ERROR(IssueOne(*comm, {}));  // all buffers are made
                       std::unique_ptr<testing::AllocCounter> counter;
                       if (world.rank() == 0) counter = std::make_unique<testing::AllocCounter>();
                       RETURN_IF_ERROR(IssueOne(*comm, {}));  // counting has begun
                       for (int i = 0; i < 50; ++i) RETURN_IF_ERROR(comm->Issue(calls, kStream));
                       if (world.rank() == 0 && counter->count() != 0) {
                         return absl::InternalError(absl::StrFormat("%d allocations", counter->count()));
                       }
                       RETURN_IF_ERROR(IssueOne(*comm, {}));  // rank 0 has looked
                       return absl::OkStatus();
                     }),
            absl::OkStatus());
  testing::AllocCounter counter;    // the counter itself counts
  int* volatile kept = new int(1);  // not optimized away
  delete kept;
  EXPECT_EQ(counter.count(), 1);
}

// 1000 calls of kinds, dtypes and sizes drawn by all ranks alike, each rank delayed at random now and then.
TEST(ThreadWorld, StressOfMixedCollectives) {
  constexpr int kRanks = 4;
  std::vector<uint64_t> hashes[2];
  for (std::vector<uint64_t>& hash : hashes) {
    hash.resize(kRanks);
    EXPECT_EQ(
        RunRanks(
            kRanks,
            [&](World& inner) -> absl::Status {
              CommFault jitter;
              jitter.max_delay = std::chrono::microseconds(100);
              FaultyWorld world(inner, {jitter}, static_cast<uint64_t>(&hash - hashes));
              ASSIGN_OR_RETURN(auto comm, world.Connect(All("all", kRanks)));
              Bytes in(8 * 4096), out(8 * 4096 * kRanks), accepted(8 * 4096);
              uint64_t h = 1;
              for (uint64_t i = 0; i < 1000; ++i) {
                const PhiloxBlock draw = Philox(3, 0, i);
                const auto kind = static_cast<Collective::Kind>(draw[0] % (Collective::kBroadcast + 1));
                const DType t = kDTypes[draw[1] % 6];
                const int64_t count = draw[2] % 1024 * kRanks;
                in = Input(t, count, world.rank() + static_cast<int>(i % 3));
                const int peer = static_cast<int>(draw[3] % kRanks), to = (world.rank() + 1) % kRanks;
                const Collective calls[] = {
                    {kind, {}, t, count, peer, in.data(), out.data()},
                    {Collective::kSend, {}, t, count, to, in.data(), nullptr},
                    {Collective::kRecv, {}, t, count, (world.rank() + kRanks - 1) % kRanks, nullptr, accepted.data()}};
                RETURN_IF_ERROR(comm->Issue({calls, i % 2 == 0 ? size_t{3} : size_t{1}}, kStream));
                const int64_t elements = kind == Collective::kAllGather       ? count * kRanks
                                         : kind == Collective::kReduceScatter ? count / kRanks
                                                                              : count;
                h = HashName({reinterpret_cast<const char*>(out.data()), static_cast<size_t>(elements * SizeOf(t))}, h);
                h = HashName({reinterpret_cast<const char*>(accepted.data()), static_cast<size_t>(count * SizeOf(t))},
                             h);
              }
              hash[static_cast<size_t>(world.rank())] = h;
              return comm->Close();
            }),
        absl::OkStatus());
  }
  EXPECT_EQ(hashes[0], hashes[1]);
}

TEST(Counting, CountsCallsAndBytesOfEachCommunicatorAndKind) {
  std::vector<std::string> text(2);
  EXPECT_EQ(RunRanks(2,
                     [&](World& inner) -> absl::Status {
                       CountingWorld world(inner);
                       ASSIGN_OR_RETURN(auto dp, world.Connect(All("dp", 2)));
                       ASSIGN_OR_RETURN(auto tp, world.Connect({"tp", {world.rank()}}));
                       float x[8] = {}, y[16];
                       RETURN_IF_ERROR(IssueOne(*dp, {Collective::kAllGather, {}, DType::kF32, 8, -1, x, y}));
                       world.Reset();
                       const Collective twice[] = {{Collective::kAllReduce, {}, DType::kF32, 8, -1, x, x},
                                                   {Collective::kAllReduce, {}, DType::kF32, 4, -1, x, x}};
                       RETURN_IF_ERROR(dp->Issue(twice, kStream));
                       RETURN_IF_ERROR(IssueOne(*tp, {}));
                       text[static_cast<size_t>(world.rank())] = ToString(world.counts());
                       return absl::OkStatus();
                     }),
            absl::OkStatus());
  for (const std::string& s : text) EXPECT_EQ(s, "dp all-reduce: 2 calls, 48 bytes\ntp barrier: 1 calls, 0 bytes\n");
}

absl::Status RunWithFault(const CommFault& fault, std::chrono::milliseconds deadline) {
  return RunRanks(2,
                  [&](World& inner) -> absl::Status {
                    FaultyWorld world(inner, inner.rank() == 1 ? std::vector{fault} : std::vector<CommFault>{}, 1);
                    ASSIGN_OR_RETURN(auto dp, world.Connect(All("dp", 2)));
                    ASSIGN_OR_RETURN(auto tp, world.Connect(All("tp", 2)));
                    for (int i = 0; i < 5; ++i) {
                      RETURN_IF_ERROR(IssueOne(*dp, {}));
                      RETURN_IF_ERROR(IssueOne(*tp, {}));
                    }
                    return absl::OkStatus();
                  },
                  {deadline});
}

TEST(Faulty, InjectsAtTheCallThatIsNamed) {
  using std::chrono::milliseconds;
  EXPECT_EQ(RunWithFault({CommFault::kDelay, "", -1, milliseconds(2)}, milliseconds(60'000)), absl::OkStatus());
  EXPECT_EQ(RunWithFault({CommFault::kError, "dp", 5, {}}, milliseconds(60'000)), absl::OkStatus());  // only 0 to 4
  EXPECT_EQ(RunWithFault({CommFault::kError, "tp", 3, {}}, milliseconds(60'000)),
            absl::UnavailableError("rank 1: injected fault: communicator tp, call 3"));
  const absl::Status hung = RunWithFault({CommFault::kHang, "tp", 2, {}}, milliseconds(50));
  EXPECT_TRUE(absl::IsDeadlineExceeded(hung)) << hung;
  EXPECT_TRUE(Says(hung, "communicator tp, call 3, barrier: rank 1 did not arrive")) << hung;
}

}  // namespace
}  // namespace strata
