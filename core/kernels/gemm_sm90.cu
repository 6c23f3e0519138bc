#include <algorithm>
#include <array>
#include <iterator>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/base/status.h"
#include "core/kernels/gemm_sm90.cuh"
#include "core/kernels/gemm_sm90.h"
#include "core/kernels/gemm_sm90_pingpong.cuh"
#include "core/kernels/sm90_host.h"

namespace strata {
namespace {

using sm90::Epilogue;
using sm90::GemmArgs;
using sm90::Major;
using Form = Sm90Config::Form;

constexpr int64_t kFlagBytes = 4096;  // of the workspace, before the partial sums

struct FormTraits {
  const char* name;
  int blocks, rows, columns;  // a cluster, and its tile
  // Of an operand's boxes: rows where these lie along k, and where they lie across it.
  int a_rows, a_slab, b_rows, b_slab;
  bool pingpong;
  constexpr int SharedBytes() const { return pingpong ? sm90::pingpong::kSharedBytes : sm90::kSharedBytes; }
};
constexpr FormTraits kForms[] = {
    {"pair", 2, 256, 256, 128, 64, 128, 64, false},
    {"four", 4, 256, 512, 64, 64, 128, 64, false},
    {"wide", 2, 256, 192, 128, 64, 96, 32, true},
    {"tall", 2, 192, 256, 96, 32, 128, 64, true},
};
const FormTraits& TraitsOf(const Sm90Config& config) { return kForms[static_cast<int>(config.form)]; }

using KernelFn = void (*)(GemmArgs);
struct Entry {
  bool transpose_a, transpose_b;
  Epilogue epilogue;
  int steps;                                      // of the store of a tile
  std::array<KernelFn, std::size(kForms)> forms;  // or null

  KernelFn Of(const Sm90Config& config) const { return forms[static_cast<int>(config.form)]; }
};
template <Major kA, Major kB, Epilogue kEpilogue>
constexpr Entry EntryOf() {
  namespace pingpong = sm90::pingpong;
  Entry e{kA == Major::kMN,
          kB == Major::kK,
          kEpilogue,
          sm90::kStoreSteps<kEpilogue>,
          {sm90::GemmKernel<kA, kB, kEpilogue, 1>, sm90::GemmKernel<kA, kB, kEpilogue, 2>}};
  using pingpong::Shape;
  if constexpr (pingpong::kHas<kEpilogue, Shape::kWide>) {
    e.forms[static_cast<int>(Form::kWide)] = pingpong::GemmKernel<kA, kB, kEpilogue, Shape::kWide>;
  }
  if constexpr (pingpong::kHas<kEpilogue, Shape::kTall>) {
    e.forms[static_cast<int>(Form::kTall)] = pingpong::GemmKernel<kA, kB, kEpilogue, Shape::kTall>;
  }
  return e;
}
constexpr Entry kEntries[] = {
    EntryOf<Major::kK, Major::kK, Epilogue::kRound>(),
    EntryOf<Major::kK, Major::kMN, Epilogue::kRound>(),
    EntryOf<Major::kMN, Major::kMN, Epilogue::kRound>(),
    EntryOf<Major::kMN, Major::kMN, Epilogue::kFloat32>(),
    EntryOf<Major::kK, Major::kK, Epilogue::kSwiglu>(),
    EntryOf<Major::kK, Major::kMN, Epilogue::kSwigluDx>(),
    EntryOf<Major::kK, Major::kK, Epilogue::kRope64>(),
    EntryOf<Major::kK, Major::kK, Epilogue::kRope128>(),
    EntryOf<Major::kK, Major::kK, Epilogue::kGelu>(),
    EntryOf<Major::kK, Major::kMN, Epilogue::kGeluDx>(),
    EntryOf<Major::kMN, Major::kMN, Epilogue::kFloat32Squares>(),
    EntryOf<Major::kMN, Major::kMN, Epilogue::kRoundSquares>(),
};

Epilogue EpilogueOf(const GemmShape& s) {
  if (s.fusion == GemmFusion::kSwiglu) return Epilogue::kSwiglu;
  if (s.fusion == GemmFusion::kSwigluDx) return Epilogue::kSwigluDx;
  if (s.fusion == GemmFusion::kRope) return s.head_dim == 64 ? Epilogue::kRope64 : Epilogue::kRope128;
  if (s.fusion == GemmFusion::kGelu) return Epilogue::kGelu;
  if (s.fusion == GemmFusion::kGeluDx || s.fusion == GemmFusion::kGeluDxSums) return Epilogue::kGeluDx;
  if (s.fusion == GemmFusion::kSquares) {
    return s.out == DType::kF32 ? Epilogue::kFloat32Squares : Epilogue::kRoundSquares;
  }
  return s.out == DType::kF32 ? Epilogue::kFloat32 : Epilogue::kRound;
}

const Entry* Find(const GemmShape& s) {
  for (const Entry& e : kEntries) {
    if (e.transpose_a == s.transpose_a && e.transpose_b == s.transpose_b && e.epilogue == EpilogueOf(s)) return &e;
  }
  return nullptr;
}

// Of a cluster.
int64_t Tiles(const GemmShape& s, const FormTraits& form) { return Ceil(s.m, form.rows) * Ceil(s.n, form.columns); }

// Steps of a store are spread over the next tile where it has blocks of k enough.
int StepMask(const Entry& entry, int k_blocks) { return k_blocks >= 2 * entry.steps ? 1 : 0; }

// x[rows, columns], rows `pitch` elements apart, in boxes of box_rows x 64.
absl::StatusOr<CUtensorMap> MapOf(const void* x, int64_t rows, int64_t columns, int64_t pitch, int box_rows) {
  return sm90::BF16Map(x, {columns, rows}, {pitch}, {64, box_rows});
}

absl::StatusOr<GemmArgs> ArgsOf(const Entry& entry, const GemmShape& s, const GemmPlans::Operands& o, Sm90Config config,
                                int clusters) {
  GemmArgs g{};
  const FormTraits& form = TraitsOf(config);
  const bool swiglu = s.fusion == GemmFusion::kSwiglu;
  const int64_t n = swiglu ? s.n / 2 : s.n;
  // A warp stores 16 rows at a time, or where it also loads two tensors 8.
  const int box = s.fusion == GemmFusion::kSwigluDx && form.pingpong ? 8 : 16;
  ASSIGN_OR_RETURN(g.a,
                   s.transpose_a ? MapOf(o.a, s.k, s.m, s.m, form.a_slab) : MapOf(o.a, s.m, s.k, s.k, form.a_rows));
  const int b_rows = swiglu && form.pingpong ? form.b_rows / 2 : form.b_rows;  // gate's, then up's
  ASSIGN_OR_RETURN(g.b, s.transpose_b ? MapOf(o.b, s.n, s.k, s.k, b_rows) : MapOf(o.b, s.k, s.n, s.n, form.b_slab));
  const auto half = [&](const void* x, int which, int64_t pitch) {
    return MapOf(static_cast<const CudaBF16*>(x) + which * n, s.m, n, pitch, box);
  };
  if (swiglu) {
    ASSIGN_OR_RETURN(g.d, half(o.d, 0, 2 * n));
    ASSIGN_OR_RETURN(g.d_up, half(o.d, 1, 2 * n));
    ASSIGN_OR_RETURN(g.e, MapOf(o.h, s.m, n, n, box));
  } else if (s.fusion == GemmFusion::kSwigluDx) {
    ASSIGN_OR_RETURN(g.d, half(o.d, 0, 2 * n));
    ASSIGN_OR_RETURN(g.d_up, half(o.d, 1, 2 * n));
    ASSIGN_OR_RETURN(g.gate, half(o.gate_up, 0, 2 * n));
    ASSIGN_OR_RETURN(g.up, half(o.gate_up, 1, 2 * n));
  } else if (s.out == DType::kF32) {
    g.d32 = static_cast<float*>(o.d);
    g.accumulate = o.beta != 0;
  } else {
    ASSIGN_OR_RETURN(g.d, MapOf(o.d, s.m, s.n, s.pitch(), box));
    if (o.beta != 0) {
      g.c = static_cast<const CudaBF16*>(o.c != nullptr ? o.c : o.d);
      ASSIGN_OR_RETURN(g.c_map, MapOf(g.c, s.m, s.n, s.n, box));
    }
    g.bias = static_cast<const CudaBF16*>(o.bias);
    g.angles = static_cast<const float4*>(o.angles);
    g.angle_rows = static_cast<int>(o.angle_rows);
    g.turned = static_cast<int>(o.turned);
    if (s.fusion == GemmFusion::kGelu) {
      ASSIGN_OR_RETURN(g.e, MapOf(o.h, s.m, s.n, s.n, box));
    }
    if (entry.epilogue == Epilogue::kGeluDx) {
      ASSIGN_OR_RETURN(g.pre, MapOf(o.pre, s.m, s.n, s.n, box));
    }
  }
  if (s.fusion == GemmFusion::kGeluDxSums || s.fusion == GemmFusion::kSquares) g.sums = o.sums;
  g.m = static_cast<int>(s.m);
  g.n = static_cast<int>(n);
  g.grid = {static_cast<int>(Ceil(s.m, form.rows)), static_cast<int>(Ceil(s.n, form.columns)), config.group,
            static_cast<int>(Ceil(s.k, sm90::kTileK))};
  g.grid.direct = g.grid.Tiles();
  g.step_mask = StepMask(entry, g.grid.k_blocks);
  const int64_t parts = int64_t{form.blocks} * clusters * sm90::kPartFloats * 4;
  if (config.cut_k && g.grid.direct % clusters != 0 && kFlagBytes + parts <= static_cast<int64_t>(o.workspace.size())) {
    // With a whole wave cut too a tile has fewer parts, but its blocks of k are read at as many times as there are clusters.
    const int waves = g.grid.Tiles() / clusters - (form.pingpong ? 0 : 1);
    g.grid.direct = std::max(0, waves) * clusters;
    g.ready = reinterpret_cast<int*>(o.workspace.data());
    g.parts = reinterpret_cast<float*>(o.workspace.data() + kFlagBytes);
  }
  return g;
}

}  // namespace

std::string Sm90Config::Name() const { return absl::StrFormat("sm90 %d %d %s", group, cut_k, TraitsOf(*this).name); }

absl::StatusOr<Sm90Config> Sm90Config::Parse(const std::string& name) {
  const std::vector<std::string> words = absl::StrSplit(name, ' ');
  int group = 0, cut = 0;
  if (words.size() == 4 && words[0] == "sm90" && absl::SimpleAtoi(words[1], &group) &&
      absl::SimpleAtoi(words[2], &cut) && group >= 1 && group <= 1024) {
    for (size_t i = 0; i < std::size(kForms); ++i) {
      if (words[3] == kForms[i].name) return Sm90Config{group, cut != 0, static_cast<Form>(i)};
    }
  }
  return absl::InvalidArgumentError("not a configuration of a product: " + name);
}

Sm90Gemm::Sm90Gemm(const CudaContext& context)
    : major_(context.properties.major), multiprocessors_(context.properties.multiProcessorCount) {}

bool Sm90Gemm::Runs(const GemmShape& s, const GemmPlans::Operands& o) const {
  if (!sm90::KernelsRun(major_) || s.in != DType::kBF16 || Find(s) == nullptr || s.align % 16 != 0 || s.n % 16 != 0)
    return false;
  if (s.m == 0 || s.n == 0 || s.k == 0 || std::max({s.m, s.n, s.k}) >= int64_t{1} << 30) return false;
  if ((s.transpose_a ? s.m : s.k) % 8 != 0 || s.pitch() % 8 != 0) return false;  // rows of 16-byte units
  // Indices of blocks of k are ints.
  if (Ceil(s.m, sm90::kTileM) * Ceil(s.n, sm90::kTileM) * Ceil(s.k, sm90::kTileK) >= int64_t{1} << 30) return false;
  const bool pitched = s.pitch() != s.n;
  if (s.fusion == GemmFusion::kRope) {  // a warp's 16 rows have consecutive rows of angles, whose indices are ints
    const bool angles = o.angle_rows > 0 && o.angle_rows % 16 == 0 && o.angle_rows < int64_t{1} << 24;
    if ((s.head_dim != 64 && s.head_dim != 128) || !angles || o.turned % s.head_dim != 0) return false;
  }
  if (s.fusion == GemmFusion::kGeluDxSums && multiprocessors_ * sm90::kWarps > kGemmSumRows) return false;
  if (s.fusion == GemmFusion::kSquares) {
    return multiprocessors_ <= kSquareParts && !s.bias && o.beta == 0 && !pitched && o.sums != nullptr;
  }
  if (s.fusion != GemmFusion::kNone) {
    return s.bias == (s.fusion == GemmFusion::kGelu) && s.out == DType::kBF16 && o.beta == 0 && !pitched;
  }
  if (s.out == DType::kF32)
    return !pitched && !s.bias && (o.beta == 0 || (o.beta == 1 && (o.c == nullptr || o.c == o.d)));
  return o.beta == 0 || (o.beta == 1 && !pitched);
}

bool Sm90Gemm::Has(const GemmShape& s, const Sm90Config& config) const {
  const Entry* entry = Find(s);
  return entry != nullptr && entry->Of(config) != nullptr;
}

std::vector<Sm90Config> Sm90Gemm::Configs(const GemmShape& s) const {
  std::vector<Sm90Config> configs;
  for (const Form form : {Form::kPair, Form::kFour, Form::kWide, Form::kTall}) {
    if (!Has(s, {8, false, form})) continue;
    const FormTraits& traits = kForms[static_cast<int>(form)];
    for (const int group : {4, 6, 8, 12}) {
      if (group != (traits.pingpong ? 12 : 6)) configs.push_back({group, false, form});
    }
    const bool uneven = Tiles(s, traits) % (multiprocessors_ / traits.blocks) != 0;
    for (const int group : {4, 8}) {
      if (uneven && s.k >= 16 * sm90::kTileK) configs.push_back({group, true, form});
    }
  }
  return configs;
}

absl::Status Sm90Gemm::Run(const GemmShape& s, const GemmPlans::Operands& o, Sm90Config config) {
  const Entry* entry = Find(s);
  const KernelFn fn = entry == nullptr ? nullptr : entry->Of(config);
  if (fn == nullptr) return absl::InternalError("a product without a kernel");
  const FormTraits& form = TraitsOf(config);
  const void* kernel = reinterpret_cast<const void*>(fn);
  auto [at, fresh] = clusters_.try_emplace(kernel, 0);
  if (fresh) {
    RETURN_IF_ERROR(CudaStatus(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, form.SharedBytes()), "GemmKernel"));
    cudaLaunchConfig_t launch{};
    launch.gridDim = dim3(multiprocessors_ / form.blocks * form.blocks);
    launch.blockDim = dim3(sm90::kThreads);
    launch.dynamicSmemBytes = form.SharedBytes();
    RETURN_IF_ERROR(CudaStatus(cudaOccupancyMaxActiveClusters(&at->second, kernel, &launch), "GemmKernel"));
  }
  const int clusters = at->second;
  if (clusters == 0) return absl::InternalError("no cluster of blocks fits this GPU");
  ASSIGN_OR_RETURN(const GemmArgs args, ArgsOf(*entry, s, o, config, clusters));
  if (args.ready != nullptr) {
    RETURN_IF_ERROR(CudaStatus(cudaMemsetAsync(args.ready, 0, kFlagBytes, o.stream), "GemmKernel"));
  }
  if (s.fusion == GemmFusion::kGeluDxSums) {
    RETURN_IF_ERROR(CudaStatus(cudaMemsetAsync(args.sums, 0, kGemmSumRows * s.n * 4, o.stream), "GemmKernel"));
  }
  fn<<<form.blocks * clusters, sm90::kThreads, form.SharedBytes(), o.stream>>>(args);
  return Launched("GemmKernel");
}

}  // namespace strata
