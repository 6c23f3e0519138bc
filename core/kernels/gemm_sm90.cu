#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/base/status.h"
#include "core/kernels/gemm_sm90.cuh"
#include "core/kernels/gemm_sm90.h"
#include "core/kernels/sm90_host.h"

namespace strata {
namespace {

using sm90::Epilogue;
using sm90::GemmArgs;
using sm90::Major;

constexpr int64_t kFlagBytes = 4096;  // of the workspace, before the partial sums

using KernelFn = void (*)(GemmArgs);
struct Entry {
  bool transpose_a, transpose_b;
  Epilogue epilogue;
  int steps;            // of the store of a tile
  KernelFn pair, four;  // by the blocks of a cluster
};
template <Major kA, Major kB, Epilogue kEpilogue>
constexpr Entry kEntry{kA == Major::kMN,
                       kB == Major::kK,
                       kEpilogue,
                       sm90::kStoreSteps<kEpilogue>,
                       sm90::GemmKernel<kA, kB, kEpilogue, 1>,
                       sm90::GemmKernel<kA, kB, kEpilogue, 2>};
constexpr Entry kEntries[] = {
    kEntry<Major::kK, Major::kK, Epilogue::kRound>,   kEntry<Major::kK, Major::kMN, Epilogue::kRound>,
    kEntry<Major::kMN, Major::kMN, Epilogue::kRound>, kEntry<Major::kMN, Major::kMN, Epilogue::kFloat32>,
    kEntry<Major::kK, Major::kK, Epilogue::kSwiglu>,  kEntry<Major::kK, Major::kMN, Epilogue::kSwigluDx>,
    kEntry<Major::kK, Major::kK, Epilogue::kRope64>,  kEntry<Major::kK, Major::kK, Epilogue::kRope128>,
    kEntry<Major::kK, Major::kK, Epilogue::kGelu>,    kEntry<Major::kK, Major::kMN, Epilogue::kGeluDx>,
};

Epilogue EpilogueOf(const GemmShape& s) {
  if (s.fusion == GemmFusion::kSwiglu) return Epilogue::kSwiglu;
  if (s.fusion == GemmFusion::kSwigluDx) return Epilogue::kSwigluDx;
  if (s.fusion == GemmFusion::kRope) return s.head_dim == 64 ? Epilogue::kRope64 : Epilogue::kRope128;
  if (s.fusion == GemmFusion::kGelu) return Epilogue::kGelu;
  if (s.fusion == GemmFusion::kGeluDx || s.fusion == GemmFusion::kGeluDxSums) return Epilogue::kGeluDx;
  return s.out == DType::kF32 ? Epilogue::kFloat32 : Epilogue::kRound;
}

const Entry* Find(const GemmShape& s) {
  for (const Entry& e : kEntries) {
    if (e.transpose_a == s.transpose_a && e.transpose_b == s.transpose_b && e.epilogue == EpilogueOf(s)) return &e;
  }
  return nullptr;
}

// Of a cluster.
int64_t Tiles(const GemmShape& s, Sm90Config config) {
  return Ceil(s.m, 2 * sm90::kTileM) * Ceil(s.n, config.blocks / 2 * sm90::kTileN);
}

// Steps of a store are spread over the next tile where it has blocks of k enough.
int StepMask(const Entry& entry, int k_blocks) { return k_blocks >= 2 * entry.steps ? 1 : 0; }

// x[rows, columns], rows `pitch` elements apart, in boxes of box_rows x 64.
absl::StatusOr<CUtensorMap> MapOf(const void* x, int64_t rows, int64_t columns, int64_t pitch, int box_rows) {
  return sm90::BF16Map(x, {columns, rows}, {pitch}, {64, box_rows});
}

absl::StatusOr<GemmArgs> ArgsOf(const Entry& entry, const GemmShape& s, const GemmPlans::Operands& o, Sm90Config config,
                                int clusters) {
  GemmArgs g{};
  const bool swiglu = s.fusion == GemmFusion::kSwiglu;
  const int64_t n = swiglu ? s.n / 2 : s.n;
  constexpr int kBoxRows = 16;  // a warp stores 16 rows at a time
  ASSIGN_OR_RETURN(g.a, s.transpose_a ? MapOf(o.a, s.k, s.m, s.m, sm90::kTileK)
                                      : MapOf(o.a, s.m, s.k, s.k, 2 * sm90::kTileM / config.blocks));
  ASSIGN_OR_RETURN(
      g.b, s.transpose_b ? MapOf(o.b, s.n, s.k, s.k, sm90::kTileN / 2) : MapOf(o.b, s.k, s.n, s.n, sm90::kTileK));
  const auto half = [&](const void* x, int which, int64_t pitch) {
    return MapOf(static_cast<const CudaBF16*>(x) + which * n, s.m, n, pitch, kBoxRows);
  };
  if (swiglu) {
    ASSIGN_OR_RETURN(g.d, half(o.d, 0, 2 * n));
    ASSIGN_OR_RETURN(g.d_up, half(o.d, 1, 2 * n));
    ASSIGN_OR_RETURN(g.e, MapOf(o.h, s.m, n, n, kBoxRows));
  } else if (s.fusion == GemmFusion::kSwigluDx) {
    ASSIGN_OR_RETURN(g.d, half(o.d, 0, 2 * n));
    ASSIGN_OR_RETURN(g.d_up, half(o.d, 1, 2 * n));
    ASSIGN_OR_RETURN(g.gate, half(o.gate_up, 0, 2 * n));
    ASSIGN_OR_RETURN(g.up, half(o.gate_up, 1, 2 * n));
  } else if (s.out == DType::kF32) {
    g.d32 = static_cast<float*>(o.d);
    g.accumulate = o.beta != 0;
  } else {
    ASSIGN_OR_RETURN(g.d, MapOf(o.d, s.m, s.n, s.pitch(), kBoxRows));
    if (o.beta != 0) g.c = static_cast<const CudaBF16*>(o.c != nullptr ? o.c : o.d);
    g.bias = static_cast<const CudaBF16*>(o.bias);
    g.angles = static_cast<const float4*>(o.angles);
    g.angle_rows = static_cast<int>(o.angle_rows);
    g.turned = static_cast<int>(o.turned);
    if (s.fusion == GemmFusion::kGelu) {
      ASSIGN_OR_RETURN(g.e, MapOf(o.h, s.m, s.n, s.n, kBoxRows));
    }
    if (entry.epilogue == Epilogue::kGeluDx) {
      ASSIGN_OR_RETURN(g.pre, MapOf(o.pre, s.m, s.n, s.n, kBoxRows));
    }
    if (s.fusion == GemmFusion::kGeluDxSums) g.sums = o.sums;
  }
  g.m = static_cast<int>(s.m);
  g.n = static_cast<int>(n);
  const int rows = static_cast<int>(Ceil(s.m, 2 * sm90::kTileM));
  g.grid = {rows, static_cast<int>(Tiles(s, config) / rows), config.group, static_cast<int>(Ceil(s.k, sm90::kTileK))};
  g.grid.direct = g.grid.Tiles();
  g.step_mask = StepMask(entry, g.grid.k_blocks);
  const int64_t parts = int64_t{config.blocks} * clusters * sm90::kPartFloats * 4;
  if (config.cut_k && g.grid.direct % clusters != 0 && kFlagBytes + parts <= static_cast<int64_t>(o.workspace.size())) {
    g.grid.direct = std::max(0, g.grid.Tiles() / clusters - 1) * clusters;
    g.ready = reinterpret_cast<int*>(o.workspace.data());
    g.parts = reinterpret_cast<float*>(o.workspace.data() + kFlagBytes);
  }
  return g;
}

}  // namespace

std::string Sm90Config::Name() const { return absl::StrFormat("sm90 %d %d %d", group, cut_k, blocks); }

absl::StatusOr<Sm90Config> Sm90Config::Parse(const std::string& name) {
  const std::vector<std::string> words = absl::StrSplit(name, ' ');
  int group = 0, cut = 0, blocks = 0;
  if (words.size() != 4 || words[0] != "sm90" || !absl::SimpleAtoi(words[1], &group) ||
      !absl::SimpleAtoi(words[2], &cut) || !absl::SimpleAtoi(words[3], &blocks) || (blocks != 2 && blocks != 4) ||
      group < 1 || group > 1024) {
    return absl::InvalidArgumentError("not a configuration of a product: " + name);
  }
  return Sm90Config{group, cut != 0, blocks};
}

Sm90Gemm::Sm90Gemm(const CudaContext& context)
    : major_(context.properties.major), multiprocessors_(context.properties.multiProcessorCount) {}

bool Sm90Gemm::Runs(const GemmShape& s, const GemmPlans::Operands& o) const {
  if (!sm90::KernelsRun(major_) || s.in != DType::kBF16 || Find(s) == nullptr || s.align % 16 != 0 || s.n % 16 != 0)
    return false;
  if (s.m == 0 || s.n == 0 || s.k == 0 || std::max({s.m, s.n, s.k}) >= int64_t{1} << 30) return false;
  if ((s.transpose_a ? s.m : s.k) % 8 != 0 || s.pitch() % 8 != 0) return false;  // rows of 16-byte units
  // Indices of blocks of k are ints.
  if (Tiles(s, {}) * Ceil(s.k, sm90::kTileK) >= int64_t{1} << 30) return false;
  const bool pitched = s.pitch() != s.n;
  if (s.fusion == GemmFusion::kRope) {  // a warp's 16 rows have consecutive rows of angles, whose indices are ints
    const bool angles = o.angle_rows > 0 && o.angle_rows % 16 == 0 && o.angle_rows < int64_t{1} << 24;
    if ((s.head_dim != 64 && s.head_dim != 128) || !angles || o.turned % s.head_dim != 0) return false;
  }
  if (s.fusion == GemmFusion::kGeluDxSums && multiprocessors_ * sm90::kWarps > kGemmSumRows) return false;
  if (s.fusion != GemmFusion::kNone) {
    return s.bias == (s.fusion == GemmFusion::kGelu) && s.out == DType::kBF16 && o.beta == 0 && !pitched;
  }
  if (s.out == DType::kF32)
    return !pitched && !s.bias && (o.beta == 0 || (o.beta == 1 && (o.c == nullptr || o.c == o.d)));
  return o.beta == 0 || (o.beta == 1 && !pitched);
}

std::vector<Sm90Config> Sm90Gemm::Configs(const GemmShape& s) const {
  std::vector<Sm90Config> configs;
  for (const int blocks : {2, 4}) {
    for (const int group : {4, 8, 12}) configs.push_back({group, false, blocks});
    const int64_t clusters = multiprocessors_ / blocks, tiles = Tiles(s, configs.back());
    if (tiles % clusters != 0 && s.k >= 16 * sm90::kTileK) {
      for (const int group : {4, 8}) configs.push_back({group, true, blocks});
    }
  }
  return configs;
}

absl::Status Sm90Gemm::Run(const GemmShape& s, const GemmPlans::Operands& o, Sm90Config config) {
  const Entry* entry = Find(s);
  if (entry == nullptr) return absl::InternalError("a product without a kernel");
  const KernelFn fn = config.blocks == 2 ? entry->pair : entry->four;
  const void* kernel = reinterpret_cast<const void*>(fn);
  auto [at, fresh] = clusters_.try_emplace(kernel, 0);
  if (fresh) {
    RETURN_IF_ERROR(CudaStatus(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sm90::kSharedBytes), "GemmKernel"));
    cudaLaunchConfig_t launch{};
    launch.gridDim = dim3(multiprocessors_ / config.blocks * config.blocks);
    launch.blockDim = dim3(sm90::kThreads);
    launch.dynamicSmemBytes = sm90::kSharedBytes;
    RETURN_IF_ERROR(CudaStatus(cudaOccupancyMaxActiveClusters(&at->second, kernel, &launch), "GemmKernel"));
  }
  const int clusters = at->second;
  if (clusters == 0) return absl::InternalError("no cluster of blocks fits this GPU");
  ASSIGN_OR_RETURN(const GemmArgs args, ArgsOf(*entry, s, o, config, clusters));
  if (args.ready != nullptr) {
    RETURN_IF_ERROR(CudaStatus(cudaMemsetAsync(args.ready, 0, kFlagBytes, o.stream), "GemmKernel"));
  }
  if (args.sums != nullptr) {
    RETURN_IF_ERROR(CudaStatus(cudaMemsetAsync(args.sums, 0, kGemmSumRows * s.n * 4, o.stream), "GemmKernel"));
  }
  fn<<<config.blocks * clusters, sm90::kThreads, sm90::kSharedBytes, o.stream>>>(args);
  return Launched("GemmKernel");
}

}  // namespace strata
