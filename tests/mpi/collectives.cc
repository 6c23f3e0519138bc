#include "tests/mpi/collectives.h"

#include <algorithm>
#include <chrono>

#include "core/base/philox.h"
#include "core/base/status.h"
#include "parallel/comm/faulty.h"

namespace strata::testing {
namespace {

using Bytes = std::vector<std::byte>;

constexpr Stream kStream{};
constexpr DType kDTypes[] = {DType::kF64, DType::kF32, DType::kBF16, DType::kI64, DType::kI32, DType::kU8};

CommSpec Ranks(const std::string& name, int first, int last, int step = 1) {
  CommSpec spec{name, {}};
  for (int r = first; r < last; r += step) spec.ranks.push_back(r);
  return spec;
}

// Full mantissas for floating types: every order of summation has other bits.
Bytes Input(DType t, int64_t count, int rank) {
  Bytes b(static_cast<size_t>(count * SizeOf(t)));
  uint64_t state = static_cast<uint64_t>(rank) + 1;
  for (int64_t i = 0; i < count; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const double value = static_cast<double>(static_cast<int64_t>(state)) / 3e18;
    void* p = b.data() + i * SizeOf(t);
    if (t == DType::kF64) *static_cast<double*>(p) = value;
    if (t == DType::kF32) *static_cast<float*>(p) = static_cast<float>(value);
    if (t == DType::kBF16) *static_cast<BF16*>(p) = BF16(static_cast<float>(value));
    if (!IsFloating(t)) *static_cast<uint8_t*>(p) = static_cast<uint8_t>(state >> 60);
  }
  return b;
}

uint64_t Hash(const void* p, int64_t bytes, uint64_t so_far) {
  return HashName({static_cast<const char*>(p), static_cast<size_t>(bytes)}, so_far);
}

// Adds to the hash what every kind, in its normal and its in-place form, gives this rank.
absl::Status AllKinds(Communicator& comm, int rank, DType t, int64_t count, uint64_t& hash) {
  const int n = static_cast<int>(comm.spec().ranks.size());
  const int me =
      static_cast<int>(std::find(comm.spec().ranks.begin(), comm.spec().ranks.end(), rank) - comm.spec().ranks.begin());
  const int64_t bytes = count * SizeOf(t);
  const Bytes whole = Input(t, count * n, rank);
  const auto run = [&](Collective c, int64_t in_offset, int64_t out_bytes, bool in_place) -> absl::Status {
    Bytes in = whole, separate(static_cast<size_t>(bytes * n));
    std::byte* from = in.data() + in_offset;
    c.in = from;
    c.out = !in_place                              ? separate.data()
            : c.kind == Collective::kAllGather     ? in.data()
            : c.kind == Collective::kReduceScatter ? in.data() + me * bytes
                                                   : from;
    RETURN_IF_ERROR(comm.Issue({&c, 1}, kStream));
    hash = Hash(c.out, out_bytes, hash);
    return absl::OkStatus();
  };
  for (bool in_place : {false, true}) {
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kMax}) {
      RETURN_IF_ERROR(run({Collective::kAllReduce, op, t, count}, 0, bytes, in_place));
      RETURN_IF_ERROR(run({Collective::kReduceScatter, op, t, count * n}, 0, bytes, in_place));
    }
    RETURN_IF_ERROR(run({Collective::kAllGather, {}, t, count}, me * bytes, bytes * n, in_place));
    RETURN_IF_ERROR(run({Collective::kBroadcast, {}, t, count, n - 1}, 0, bytes, in_place));
  }
  RETURN_IF_ERROR(run({Collective::kAllToAll, {}, t, count * n}, 0, bytes * n, false));
  // To and from every member, himself too, receives first on odd members.
  Bytes from_all(static_cast<size_t>(bytes * n));
  std::vector<Collective> calls;
  for (int r = 0; r < n; ++r) {
    calls.push_back({Collective::kSend, {}, t, count, r, whole.data(), nullptr});
    calls.push_back({Collective::kRecv, {}, t, count, r, nullptr, from_all.data() + bytes * r});
  }
  if (me % 2 == 1) std::reverse(calls.begin(), calls.end());
  RETURN_IF_ERROR(comm.Issue(calls, kStream));
  hash = Hash(from_all.data(), bytes * n, hash);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<uint64_t> BitsOfCollectives(World& inner) {
  CommFault jitter;
  jitter.max_delay = std::chrono::microseconds(50);
  FaultyWorld world(inner, {jitter}, 5);
  const int n = world.size(), parity = world.rank() % 2;
  ASSIGN_OR_RETURN(auto all, world.Connect(Ranks("all", 0, n)));
  ASSIGN_OR_RETURN(auto alike, world.Connect(Ranks("alike", parity, n, 2)));
  ASSIGN_OR_RETURN(auto without_first, world.Connect(Ranks("rest", 1, n)));
  if ((without_first == nullptr) != (world.rank() == 0)) return absl::InternalError("null for the wrong ranks");
  uint64_t hash = 1;
  for (Communicator* comm : {all.get(), alike.get(), without_first.get()}) {
    if (comm == nullptr) continue;
    for (DType t : kDTypes) {
      for (int64_t count : {0, 5, 1001}) RETURN_IF_ERROR(AllKinds(*comm, world.rank(), t, count, hash));
    }
  }
  RETURN_IF_ERROR(AllKinds(*all, world.rank(), DType::kU8, 3'000'001, hash));  // several segments
  RETURN_IF_ERROR(alike->Close());
  RETURN_IF_ERROR(all->Close());
  return hash;
}

}  // namespace strata::testing
