#pragma once
// Hopper: rows of some tensors of one shape, which the copy engine brings into shared memory some rows ahead of the threads that
// work on them, so that as many bytes are on their way while these compute as while they wait. A row belongs to a team, kWarps
// warps of a block; each team has a ring of its own and waits for no other. Teams of all blocks take rows in turn.

#include <algorithm>

#include "core/kernels/cuda_util.cuh"
#include "core/kernels/sm90.cuh"

namespace strata {

inline constexpr int kMostStages = 4;

template <int kTeamWarps, int kBlockWarps>
struct WarpTeam {
  static constexpr int kWarps = kTeamWarps, kThreads = 32 * kTeamWarps, kCount = kBlockWarps / kTeamWarps;
  static constexpr int kBlockThreads = kCount * kThreads;
  static_assert(kTeamWarps == 1 || kCount < 16, "barriers 1 to 15 are the teams'");

  __device__ static int Index() { return threadIdx.x / kThreads; }
  __device__ static int Thread() { return threadIdx.x % kThreads; }
  __device__ static int64_t FirstRow() { return blockIdx.x + int64_t{Index()} * gridDim.x; }
  __device__ static int64_t Step() { return int64_t{kCount} * gridDim.x; }
  __device__ static void Sync() {
    if constexpr (kTeamWarps == 1) {
      __syncwarp();
    } else {
      sm90::NamedBarrier(1 + Index(), kThreads);
    }
  }
};

// Sums over a team, in each of its threads, in a fixed order. Warps meet in two places in turn: who writes one again has met
// everybody since they read it. What the team read before, nobody of it reads any more.
template <typename Team, int kSums>
class TeamSums {
 public:
  static constexpr int kShared = 2 * kSums * Team::kWarps * Team::kCount;  // floats
  __device__ explicit TeamSums(float* shared) : at_(shared + Team::Index() * 2 * kSums * Team::kWarps) {}

  __device__ __forceinline__ void Add(float (&x)[kSums]) {
#pragma unroll
    for (int d = 16; d > 0; d /= 2) {
#pragma unroll
      for (int n = 0; n < kSums; ++n) x[n] += __shfl_xor_sync(0xffffffffu, x[n], d);
    }
    if constexpr (Team::kWarps == 1) {
      Team::Sync();
    } else {
      float* const at = at_ + turn_ * kSums * Team::kWarps;
      turn_ ^= 1;
      if (threadIdx.x % 32 == 0) {
#pragma unroll
        for (int n = 0; n < kSums; ++n) at[n * Team::kWarps + Team::Thread() / 32] = x[n];
      }
      Team::Sync();
#pragma unroll
      for (int n = 0; n < kSums; ++n) {
        x[n] = at[n * Team::kWarps];
#pragma unroll
        for (int w = 1; w < Team::kWarps; ++w) x[n] += at[n * Team::kWarps + w];
      }
    }
  }

 private:
  float* const at_;
  int turn_ = 0;
};

// What a row that was read does in the L2 cache: as others, or leaves it first, so that what is written meanwhile stays.
enum class Leaves { kAsOthers, kFirst };

// sm90::LoadBytes() of what leaves first.
__device__ __forceinline__ void LoadBytesOnce(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  asm volatile(
      "{ .reg .b64 policy;\n"
      "createpolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], policy; "
      "}" ::"r"(sm90::Shared(to)),
      "l"(from), "r"(bytes), "r"(sm90::Shared(barrier))
      : "memory");
}

template <typename T, typename Team, int kMostOperands>
struct RowRing {
  const T* operands[kMostOperands];
  int count, stages;  // of the operands, the first ones
  int64_t rows;
  int columns;
  Leaves leaves;
  T* places;          // of the team: [stages, count, columns]
  uint64_t* arrived;  // of the team: [stages]

  // All threads of the block, once; `barriers` is kMostStages for each team.
  __device__ __forceinline__ void Begin(uint4* memory, uint64_t* barriers) {
    places = reinterpret_cast<T*>(memory) + int64_t{Team::Index()} * stages * count * columns;
    arrived = barriers + Team::Index() * kMostStages;
    if (Team::Thread() == 0) {
      for (int s = 0; s < stages; ++s) sm90::BarrierInit(arrived + s, 1);
      sm90::FenceBarrierInit();
      for (int s = 0; s < stages; ++s) Load(s, Team::FirstRow() + s * Team::Step());
    }
    __syncthreads();
  }
  // Of one thread, when nobody reads the place any more.
  __device__ __forceinline__ void Load(int stage, int64_t row) const {
    if (row >= rows) return;
    const auto bytes = static_cast<uint32_t>(columns * sizeof(T));
    sm90::ArriveExpecting(arrived + stage, count * bytes);
    for (int o = 0; o < count; ++o) {
      T* const to = places + (stage * count + o) * columns;
      const T* const from = operands[o] + row * columns;
      if (leaves == Leaves::kFirst) {
        LoadBytesOnce(to, from, bytes, arrived + stage);
      } else {
        sm90::LoadBytes(to, from, bytes, arrived + stage);
      }
    }
  }
  // Vectors of an operand's row, by their addresses in shared memory.
  __device__ __forceinline__ uint32_t Row(int stage, int operand) const {
    return sm90::Shared(places + (stage * count + operand) * columns);
  }
};

template <typename T>
__device__ __forceinline__ Vec<T> LoadSharedVec(uint32_t row, int vector) {
  const float4 bits = sm90::LoadShared(row + vector * 16);
  Vec<T> v;
  memcpy(&v, &bits, 16);
  return v;
}

// Rounded in pairs: half as many instructions as one by one.
template <typename T>
__device__ __forceinline__ Vec<T> Rounded(const float (&x)[Vec<T>::kSize]) {
  Vec<T> v;
  if constexpr (std::is_same_v<T, float>) {
#pragma unroll
    for (int i = 0; i < Vec<T>::kSize; ++i) v.v[i] = x[i];
  } else {
    uint4 bits = {sm90::Pack(x[0], x[1]), sm90::Pack(x[2], x[3]), sm90::Pack(x[4], x[5]), sm90::Pack(x[6], x[7])};
    memcpy(&v, &bits, sizeof v);
  }
  return v;
}

// Stages, of which a team needs two, that fit into a block's shared memory beside other_bytes: 227 KiB, of which kernels take 2 for
// barriers and sums. row_bytes of all operands.
template <typename Team>
int StagesFor(int64_t row_bytes, int64_t other_bytes) {
  const int64_t fit = ((int64_t{225} << 10) - other_bytes) / (Team::kCount * row_bytes);
  return static_cast<int>(std::min<int64_t>(kMostStages, fit));
}

}  // namespace strata
