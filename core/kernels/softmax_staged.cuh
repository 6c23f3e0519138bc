#pragma once
// Hopper: softmax_nll_grad of long rows, each of which lies in a block's shared memory, or in those of a cluster's blocks, while it is
// read twice: once for the sum of exponentials, once for dz. Rows come by the copy engine in chunks, a vector for each thread that
// computes, through a ring: a chunk's place is free for a later row as soon as it was read the second time. Blocks stay.

#include <algorithm>

#include "core/kernels/cross_entropy.cuh"
#include "core/kernels/row_ring.cuh"

namespace strata {

template <typename T>
struct SoftmaxNll {
  VocabRows<T> z;
  const int32_t* targets;
  const float *weights, *seed;  // seed and dz: null where no gradient is wanted
  T* dz;
  double* nll;  // [rows]
};

struct MaxSum {
  float max, sum;
};

// Of a row in so many blocks, as measured: vectors of a chunk, of which each reading thread has one, and a ring's places for chunks.
template <int kParts>
struct RowChunks {
  static constexpr int kVecs = kParts == 1 ? 832 : 768, kPlaces = kParts == 1 ? 17 : 18, kWarps = kVecs / 32;
  static constexpr int kThreads = kVecs + 32, kRingBytes = kPlaces * kVecs * 16;
  static constexpr int64_t kMostVecs = int64_t{kParts} * kPlaces * kVecs;  // of a row
};

// e^x as powers of the base that the hardware has, where its approximation is good enough; a max is in units of its exponents.
template <typename T>
struct Powers {
  static constexpr bool kOfTwo = !std::is_same_v<T, float>;
  static constexpr float kUnits = kOfTwo ? 1.4426950408889634f : 1.0f, kLeast = -1e38f;
  __device__ static float Of(float exponent) {
    if constexpr (!kOfTwo) return expf(exponent);
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(exponent));
    return y;
  }
  __device__ static float Below(float x, float max) { return Of(fmaf(x, kUnits, -max)); }
  __device__ static double Log(const MaxSum& r) {  // of the sum
    return (static_cast<double>(r.max) + (kOfTwo ? log2f(r.sum) : logf(r.sum))) / static_cast<double>(kUnits);
  }
  __device__ static MaxSum Both(const MaxSum& a, const MaxSum& b) {
    const float max = fmaxf(a.max, b.max);
    return {max, a.sum * Of(a.max - max) + b.sum * Of(b.max - max)};
  }
};

template <typename T>
__device__ __forceinline__ float MaxOf(const Vec<T>& x) {
  if constexpr (std::is_same_v<T, float>) {
    return fmaxf(fmaxf(x.v[0], x.v[1]), fmaxf(x.v[2], x.v[3]));
  } else {
    const auto* const pairs = reinterpret_cast<const __nv_bfloat162*>(x.v);
    const float2 top = __bfloat1622float2(__hmax2(__hmax2(pairs[0], pairs[1]), __hmax2(pairs[2], pairs[3])));
    return fmaxf(top.x, top.y);
  }
}

// Adds a thread's vector; what was summed is scaled down where the max rises.
template <typename T>
__device__ __forceinline__ void Take(const Vec<T>& x, MaxSum& r) {
  const float max = fmaxf(r.max, MaxOf(x) * Powers<T>::kUnits);
  float sum = r.sum * Powers<T>::Of(r.max - max);
#pragma unroll
  for (int j = 0; j < Vec<T>::kSize; ++j) sum += Powers<T>::Below(x[j], max);
  r = {max, sum};
}

// Over the lanes of a warp, and over the reading warps, in each thread; `shared` [kWarps] is not written by others meanwhile.
template <typename T>
__device__ __forceinline__ MaxSum OfWarp(const MaxSum& r) {
  float max = r.max;
  for (int d = 16; d > 0; d /= 2) max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, d));
  float sum = r.sum * Powers<T>::Of(r.max - max);
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
  return {max, sum};
}
template <typename T, int kWarps>
__device__ __forceinline__ MaxSum OfReaders(const MaxSum& r, MaxSum* shared) {
  const MaxSum warp = OfWarp<T>(r);
  const int lane = threadIdx.x % 32;
  if (lane == 0) shared[threadIdx.x / 32] = warp;
  sm90::NamedBarrier(1, kWarps * 32);
  return OfWarp<T>(lane < kWarps ? shared[lane] : MaxSum{Powers<T>::kLeast, 0});
}

// Into the same place of another block of the cluster, and its 8 bytes to the same barrier there.
__device__ __forceinline__ void SendTo(uint32_t block, MaxSum* place, uint64_t* barrier, const MaxSum& r) {
  asm volatile(
      "{ .reg .b32 to, met;\n"
      "mapa.shared::cluster.u32 to, %0, %2;\n"
      "mapa.shared::cluster.u32 met, %1, %2;\n"
      "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v2.f32 [to], {%3, %4}, [met]; }" ::"r"(
          sm90::Shared(place)),
      "r"(sm90::Shared(barrier)), "r"(block), "f"(r.max), "f"(r.sum)
      : "memory");
}

template <typename Chunks>
struct ChunkPlace {
  int index = 0, parity = 0;  // of the place's rounds
  __device__ void Next() {
    if (++index == Chunks::kPlaces) index = 0, parity ^= 1;
  }
};

// A block's part of every row: vectors [begin, begin + vecs).
struct RowPart {
  int begin, vecs, first_row, step;
};

template <typename Chunks>
struct ChunkRing {
  uint64_t full[Chunks::kPlaces], read[Chunks::kPlaces];  // read: by each warp, the second time
};

// One thread.
template <typename Chunks, typename T>
__device__ __forceinline__ void FetchRows(const SoftmaxNll<T>& a, int rows, const RowPart& part, uint4* places,
                                          ChunkRing<Chunks>& ring) {
  ChunkPlace<Chunks> at;
  for (int row = part.first_row; row < rows; row += part.step) {
    const T* const from = a.z.z + row * a.z.columns + part.begin * Vec<T>::kSize;
    for (int v = 0; v < part.vecs; v += Chunks::kVecs, at.Next()) {
      const uint32_t bytes = 16 * min(Chunks::kVecs, part.vecs - v);
      sm90::Wait(&ring.read[at.index], at.parity ^ 1);
      sm90::ArriveExpecting(&ring.full[at.index], bytes);
      sm90::LoadBytes(places + at.index * Chunks::kVecs, from + v * Vec<T>::kSize, bytes, &ring.full[at.index]);
    }
  }
}

// dz and nll of a row of which `r` is known; scale is seed weight, `target` is counted from the part's first column.
template <typename Chunks, typename T>
__device__ __forceinline__ void WriteRow(const SoftmaxNll<T>& a, int row, const RowPart& part, float weight,
                                         float scale, int target, const MaxSum& r, const uint4* places,
                                         ChunkRing<Chunks>& ring, ChunkPlace<Chunks>& at) {
  constexpr int kSize = Vec<T>::kSize;
  T* const to = a.dz + row * a.z.columns + part.begin * kSize;
  const float over_s = scale / r.sum;
  for (int begin = 0; begin < part.vecs; begin += Chunks::kVecs, at.Next()) {
    const int v = begin + static_cast<int>(threadIdx.x);
    Vec<T> x = {};
    if (v < part.vecs) x = LoadSharedVec<T>(sm90::Shared(places + at.index * Chunks::kVecs), threadIdx.x);
    __syncwarp();
    if (threadIdx.x % 32 == 0) sm90::Arrive(&ring.read[at.index]);
    if (v >= part.vecs) continue;
    float p[kSize];
#pragma unroll
    for (int j = 0; j < kSize; ++j) p[j] = Powers<T>::Below(x[j], r.max) * over_s;
    if (const int own = target - v * kSize; own >= 0 && own < kSize) {
      float picked = 0;
#pragma unroll
      for (int j = 0; j < kSize; ++j) {
        if (j != own) continue;
        picked = x[j];
        p[j] -= scale;
      }
      a.nll[row] = weight * (Powers<T>::Log(r) - picked);
    }
    StoreVec(to + v * kSize, weight != 0 ? Rounded<T>(p) : Vec<T>{});
  }
}

template <typename T, int kParts>
__global__ void __launch_bounds__(RowChunks<kParts>::kThreads, 1) StagedRows(SoftmaxNll<T> a, int rows) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using Chunks = RowChunks<kParts>;
  constexpr int kSize = Vec<T>::kSize;
  extern __shared__ uint4 places[];
  __shared__ ChunkRing<Chunks> ring;
  __shared__ alignas(8) MaxSum warps[2][Chunks::kWarps], others[2];
  __shared__ uint64_t met[2];
  const int me = kParts == 1 ? 0 : static_cast<int>(sm90::ClusterRank());
  const int all = static_cast<int>(a.z.columns) / kSize, most = (all + kParts - 1) / kParts;
  const RowPart part{me * most, min(most, all - me * most), static_cast<int>(blockIdx.x) / kParts,
                     static_cast<int>(gridDim.x) / kParts};
  if (threadIdx.x == 0) {
    for (uint64_t& barrier : ring.full) sm90::BarrierInit(&barrier, 1);
    for (uint64_t& barrier : ring.read) sm90::BarrierInit(&barrier, Chunks::kWarps);
    for (uint64_t& barrier : met) sm90::BarrierInit(&barrier, 1);
    sm90::FenceBarrierInit();
  }
  __syncthreads();
  if constexpr (kParts > 1) sm90::ClusterSync();
  if (threadIdx.x >= Chunks::kVecs) {
    if (threadIdx.x == Chunks::kVecs) FetchRows(a, rows, part, places, ring);
  } else {
    const float seed = *a.seed;
    ChunkPlace<Chunks> at;
    int turn = 0, met_parity = 0;
    for (int row = part.first_row; row < rows; row += part.step) {
      const float weight = a.weights[row];
      const int whole = static_cast<int>(a.z.LocalTarget(a.targets[row]));
      MaxSum r{Powers<T>::kLeast, 0};
      ChunkPlace<Chunks> first = at;
      for (int begin = 0; begin < part.vecs; begin += Chunks::kVecs, first.Next()) {
        sm90::Wait(&ring.full[first.index], first.parity);
        if (begin + static_cast<int>(threadIdx.x) >= part.vecs) continue;
        Take(LoadSharedVec<T>(sm90::Shared(places + first.index * Chunks::kVecs), threadIdx.x), r);
      }
      r = OfReaders<T, Chunks::kWarps>(r, warps[turn]);
      if constexpr (kParts == 2) {
        if (threadIdx.x == 0) {
          sm90::ArriveExpecting(&met[turn], sizeof(MaxSum));
          SendTo(me ^ 1, &others[turn], &met[turn], r);
        }
        sm90::Wait(&met[turn], met_parity);
        r = me == 0 ? Powers<T>::Both(r, others[turn]) : Powers<T>::Both(others[turn], r);
      }
      if (threadIdx.x == 0 && me == 0 && (whole < 0 || weight == 0)) {
        a.nll[row] = weight == 0 ? 0 : weight * Powers<T>::Log(r);
      }
      const int target = whole < 0 || weight == 0 ? -1 : whole - part.begin * kSize;
      WriteRow(a, row, part, weight, seed * weight, target, r, places, ring, at);
      turn ^= 1;
      met_parity ^= turn == 0 ? 1 : 0;
    }
  }
  if constexpr (kParts > 1) sm90::ClusterSync();  // what others send here has arrived
#endif
}

template <typename T, int kParts>
cudaError_t LaunchStagedRows(const SoftmaxNll<T>& a, int rows, int processors, cudaStream_t stream) {
  if (const cudaError_t error = cudaFuncSetAttribute(StagedRows<T, kParts>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                     RowChunks<kParts>::kRingBytes);
      error != cudaSuccess) {
    return error;
  }
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {kParts, 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = static_cast<unsigned>(kParts * std::min(rows, processors / kParts));
  config.blockDim = RowChunks<kParts>::kThreads;
  config.dynamicSmemBytes = RowChunks<kParts>::kRingBytes;
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, StagedRows<T, kParts>, a, rows);
}

}  // namespace strata
