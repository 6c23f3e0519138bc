// Our own products on Hopper, each configuration by itself (elsewhere the fastest is taken), against sums in double on the CPU.

#include "core/kernels/gemm_sm90.h"

#include <cmath>
#include <cstring>
#include <numeric>
#include <random>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "core/kernels/rope_cuda.h"
#include "core/kernels/sm90_host.h"
#include "core/ops/squares.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

constexpr int64_t kGuard = 256, kWorkspace = int64_t{32} << 20;

uint16_t ToBF16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}
double FromBF16(uint16_t x) {
  const uint32_t bits = uint32_t{x} << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}
double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
// In the tanh form, and its derivative.
double Gelu(double x) { return x * Sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x)); }
double GeluSlope(double x) {
  const double c = Sigmoid(1.5957691216057308 * (x + 0.044715 * x * x * x));
  return c + x * c * (1 - c) * 1.5957691216057308 * (1 + 3 * 0.044715 * x * x);
}

// On the host and on the GPU; what is written is NaN before, and followed by a guard.
class Buffer {
 public:
  Buffer(int64_t count, int64_t size) : count_(count), size_(size), host_(count * size + kGuard, 0xff) {
    EXPECT_EQ(cudaMalloc(&device_, host_.size()), cudaSuccess);
    Upload();
  }
  ~Buffer() { cudaFree(device_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  void Fill(uint32_t seed) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(-1, 1);
    for (int64_t i = 0; i < count_; ++i) Set(i, uniform(random));
    Upload();
  }
  void Upload() { EXPECT_EQ(cudaMemcpy(device_, host_.data(), host_.size(), cudaMemcpyHostToDevice), cudaSuccess); }
  void Download() { EXPECT_EQ(cudaMemcpy(host_.data(), device_, host_.size(), cudaMemcpyDeviceToHost), cudaSuccess); }
  double At(int64_t i) const {
    if (size_ == 2) {
      uint16_t x;
      std::memcpy(&x, &host_[i * 2], 2);
      return FromBF16(x);
    }
    float x;
    std::memcpy(&x, &host_[i * 4], 4);
    return x;
  }
  void Set(int64_t i, float x) {
    const uint16_t half = ToBF16(x);
    std::memcpy(&host_[i * size_], size_ == 2 ? static_cast<const void*>(&half) : &x, size_);
  }
  bool GuardIntact() const {
    return std::all_of(host_.end() - kGuard, host_.end(), [](uint8_t x) { return x == 0xff; });
  }
  void* device() const { return device_; }
  int64_t count() const { return count_; }

 private:
  int64_t count_, size_;
  std::vector<uint8_t> host_;
  void* device_ = nullptr;
};

struct Case {
  GemmShape shape;
  bool adds = false, in_place = false;
};

// ||got - want|| / ||want||, or infinity where a value is not a number or the guard is broken.
class Error {
 public:
  void Add(double got, double want) {
    bad_ |= !std::isfinite(got);
    difference_ += (got - want) * (got - want);
    norm_ += want * want;
  }
  double value() const { return bad_ ? INFINITY : std::sqrt(difference_ / norm_); }

 private:
  double difference_ = 0, norm_ = 0;
  bool bad_ = false;
};

// A case's operands, and its product in double.
class Operands {
 public:
  explicit Operands(const Case& c) : case_(c) {
    uint32_t seed = 1;
    for (Buffer* x : {&a_, &b_, &bias_, &addend_, &other_, &angles_}) x->Fill(seed++);
    const GemmShape& s = c.shape;
    std::vector<double> a(s.m * s.k), b(s.n * s.k);  // rows along k
    for (int64_t i = 0; i < s.m; ++i) {
      for (int64_t k = 0; k < s.k; ++k) a[i * s.k + k] = a_.At(s.transpose_a ? k * s.m + i : i * s.k + k);
    }
    for (int64_t j = 0; j < s.n; ++j) {
      for (int64_t k = 0; k < s.k; ++k) b[j * s.k + k] = b_.At(s.transpose_b ? j * s.k + k : k * s.n + j);
    }
    for (int64_t i = 0; i < s.m; ++i) {
      for (int64_t j = 0; j < s.n; ++j) {
        const double sum = std::inner_product(&a[i * s.k], &a[i * s.k] + s.k, &b[j * s.k], 0.0);
        product_.push_back(sum + (s.bias ? bias_.At(j) : 0) + (c.adds ? addend_.At(i * s.n + j) : 0));
      }
    }
  }

  // The error of what this configuration writes.
  absl::StatusOr<double> ErrorOf(Sm90Gemm& own, Sm90Config config, std::span<std::byte> workspace) const {
    const GemmShape& s = case_.shape;
    Buffer d((Is(GemmFusion::kSwigluDx) ? 2 : 1) * s.m * s.pitch(), SizeOf(s.out)), h(HCount(), 2);
    Buffer sums(Is(GemmFusion::kSquares) ? kSquareParts : kGemmSumRows * s.n, 4);
    if (case_.in_place) {
      for (int64_t i = 0; i < d.count(); ++i) d.Set(i, static_cast<float>(addend_.At(i)));
      d.Upload();
    }
    const GemmPlans::Operands o{a_.device(),
                                b_.device(),
                                !case_.adds      ? nullptr
                                : case_.in_place ? d.device()
                                                 : addend_.device(),
                                s.bias ? bias_.device() : nullptr,
                                d.device(),
                                case_.adds ? 1.0f : 0.0f,
                                workspace,
                                nullptr,
                                h.device(),
                                Is(GemmFusion::kSwigluDx) ? other_.device() : nullptr,
                                gelu_dx() ? other_.device() : nullptr,
                                rope() ? angles_.device() : nullptr,
                                kAngleRows,
                                turned(),
                                has_sums() ? static_cast<float*>(sums.device()) : nullptr};
    if (!own.Runs(s, o)) return absl::FailedPreconditionError("does not run");
    RETURN_IF_ERROR(own.Run(s, o, config));
    RETURN_IF_ERROR(CudaStatus(cudaDeviceSynchronize(), "a product"));
    d.Download();
    h.Download();
    sums.Download();
    if (!d.GuardIntact() || !h.GuardIntact() || !sums.GuardIntact()) return INFINITY;
    return std::max({ErrorOfD(d), HCount() > 0 ? ErrorOfH(d, h) : 0.0,
                     Is(GemmFusion::kGeluDxSums) ? ErrorOfSums(d, sums) : 0.0,
                     Is(GemmFusion::kSquares) ? ErrorOfSquares(d, sums) : 0.0});
  }

 private:
  bool rope() const { return case_.shape.fusion == GemmFusion::kRope; }
  int64_t turned() const { return rope() ? case_.shape.n / case_.shape.head_dim * 2 / 3 * case_.shape.head_dim : 0; }
  bool has_sums() const { return Is(GemmFusion::kGeluDxSums) || Is(GemmFusion::kSquares); }
  bool Is(GemmFusion fusion) const { return case_.shape.fusion == fusion; }
  bool gelu_dx() const { return Is(GemmFusion::kGeluDx) || Is(GemmFusion::kGeluDxSums); }
  int64_t HCount() const {
    const int64_t count = case_.shape.m * case_.shape.n;
    return Is(GemmFusion::kSwiglu) ? count / 2 : Is(GemmFusion::kGelu) ? count : 0;
  }

  double ErrorOfD(const Buffer& d) const {
    const GemmShape& s = case_.shape;
    Error e;
    for (int64_t i = 0; i < s.m; ++i) {
      for (int64_t j = 0; j < s.n; ++j) {
        const double sum = product_[i * s.n + j];
        if (gelu_dx()) {
          const double dh = FromBF16(ToBF16(static_cast<float>(sum)));
          e.Add(d.At(i * s.n + j), dh * GeluSlope(other_.At(i * s.n + j)));
        } else if (Is(GemmFusion::kSwigluDx)) {
          const int64_t gate = i * 2 * s.n + j, up = gate + s.n;
          const double g = other_.At(gate), u = other_.At(up), sig = Sigmoid(g);
          const double dh = FromBF16(ToBF16(static_cast<float>(sum)));
          e.Add(d.At(gate), dh * u * sig * (1 + g * (1 - sig)));
          e.Add(d.At(up), dh * g * sig);
        } else if (j < turned()) {
          const int64_t half = s.head_dim / 2, at = j % s.head_dim, first = i * s.n + j - at + at % half,
                        angle = 2 * RopeTableAt(kAngleRows, half, i % kAngleRows, at % half);
          const auto rounded = [&](int64_t x) { return FromBF16(ToBF16(static_cast<float>(product_[x]))); };
          const double u = rounded(first), v = rounded(first + half), c = angles_.At(angle), t = angles_.At(angle + 1);
          e.Add(d.At(i * s.n + j), at < half ? u * c - v * t : v * c + u * t);
        } else {
          e.Add(d.At(i * s.pitch() + j), sum);
        }
      }
    }
    return e.value();
  }
  double ErrorOfH(const Buffer& d, const Buffer& h) const {
    const int64_t m = case_.shape.m, F = case_.shape.n / 2;
    Error e;
    for (int64_t i = 0; Is(GemmFusion::kGelu) && i < h.count(); ++i) e.Add(h.At(i), Gelu(d.At(i)));
    if (Is(GemmFusion::kGelu)) return e.value();
    for (int64_t i = 0; i < m * F; ++i) {
      const int64_t gate = i / F * 2 * F + i % F;
      e.Add(h.At(i), d.At(gate) * Sigmoid(d.At(gate)) * d.At(gate + F));
    }
    return e.value();
  }

  // Of the columns of D as it was rounded.
  double ErrorOfSums(const Buffer& d, const Buffer& sums) const {
    const GemmShape& s = case_.shape;
    Error e;
    for (int64_t j = 0; j < s.n; ++j) {
      double got = 0, want = 0;
      for (int64_t i = 0; i < kGemmSumRows; ++i) got += sums.At(i * s.n + j);
      for (int64_t i = 0; i < s.m; ++i) want += d.At(i * s.n + j);
      e.Add(got, want);
    }
    return e.value() * 1e3;  // nothing is rounded to bf16 here
  }

  // Of D as it was stored.
  double ErrorOfSquares(const Buffer& d, const Buffer& parts) const {
    double got = 0, want = 0;
    for (int64_t i = 0; i < kSquareParts; ++i) got += parts.At(i);
    for (int64_t i = 0; i < d.count(); ++i) want += d.At(i) * d.At(i);
    Error e;
    e.Add(got, want);
    return e.value() * (case_.shape.out == DType::kF32 ? 1 : 1e3);  // no part is rounded to bf16
  }

  const Case case_;
  Buffer a_{case_.shape.m * case_.shape.k, 2}, b_{case_.shape.k * case_.shape.n, 2}, bias_{case_.shape.n, 2};
  Buffer addend_{case_.shape.m * case_.shape.n, SizeOf(case_.shape.out)};
  static constexpr int64_t kAngleRows = 48;
  Buffer angles_{rope() ? kAngleRows * case_.shape.head_dim : 0, 4};
  Buffer other_{2 * case_.shape.m * case_.shape.n, 2};  // gate | up, or pre
  std::vector<double> product_;
};

using Form = Sm90Config::Form;
constexpr DType kHalf = DType::kBF16, kFloat = DType::kF32;

#define STRATA_OPENS_HOPPER(device)                             \
  STRATA_NEEDS_GPU();                                           \
  const auto device = CudaDevice::Open(0);                      \
  ASSERT_TRUE(device.ok()) << device.status();                  \
  if (!sm90::KernelsRun((*device)->context().properties.major)) \
  GTEST_SKIP() << "not a Hopper GPU, or a build for others"

void ExpectClose(const std::vector<Case>& cases) {
  STRATA_OPENS_HOPPER(device);
  Sm90Gemm own((*device)->context());
  const Buffer workspace(kWorkspace, 1);
  const std::span<std::byte> bytes{static_cast<std::byte*>(workspace.device()), static_cast<size_t>(kWorkspace)};
  for (const Case& c : cases) {
    const Operands operands(c);
    for (const Sm90Config& config :
         {Sm90Config{8, false, Form::kPair}, Sm90Config{1, false, Form::kFour}, Sm90Config{8, true, Form::kPair},
          Sm90Config{8, true, Form::kFour}, Sm90Config{2, false, Form::kWide}, Sm90Config{8, false, Form::kTall},
          Sm90Config{3, true, Form::kWide}, Sm90Config{3, true, Form::kTall}}) {
      if (!own.Has(c.shape, config)) continue;
      const absl::StatusOr<double> error = operands.ErrorOf(own, config, bytes);
      const std::string what =
          absl::StrFormat("m %d n %d k %d %s%s %s", c.shape.m, c.shape.n, c.shape.k, c.shape.transpose_a ? "t" : "n",
                          c.shape.transpose_b ? "t" : "n", config.Name());
      ASSERT_TRUE(error.ok()) << what << ": " << error.status();
      EXPECT_LE(*error, GpuTolerance(c.shape.out)) << what;
    }
  }
}

TEST(CudaSm90Gemm, EveryLayout) {
  std::vector<Case> cases;
  for (const auto& [m, n, k] : {std::tuple{256, 256, 64}, {264, 528, 200}, {8, 16, 8}, {520, 272, 1032}}) {
    cases.push_back({{m, n, k, false, true}});
    cases.push_back({{m, n, k, false, false}});
    cases.push_back({{m, n, k, true, false}});
    cases.push_back({{m, n, k, true, false, kHalf, kFloat}});
  }
  ExpectClose(cases);
}

// Sizes that end within tiles of each form, fewer tiles than blocks and more: parts without a block are zero.
TEST(CudaSm90Gemm, Squares) {
  std::vector<Case> cases;
  for (const auto& [m, n, k] :
       {std::tuple{256, 256, 64}, {264, 528, 200}, {8, 16, 8}, {520, 272, 1032}, {4360, 1296, 136}}) {
    for (const DType out : {kHalf, kFloat}) {
      Case c{{m, n, k, true, false, kHalf, out}};
      c.shape.fusion = GemmFusion::kSquares;
      cases.push_back(c);
    }
  }
  ExpectClose(cases);
}

// More tiles than blocks, so that warpgroups with tiles of their own take turns.
TEST(CudaSm90Gemm, SeveralTilesABlock) {
  std::vector<Case> cases;
  for (const int64_t k : {64, 136, 520}) {
    cases.push_back({{4360, 1296, k, false, true}, true});
    cases.push_back({{4360, 1296, k, true, false, kHalf, kFloat}, true, true});
  }
  ExpectClose(cases);
}

TEST(CudaSm90Gemm, AddsAndBias) {
  std::vector<Case> cases;
  for (const auto& [m, n, k] : {std::tuple{256, 256, 64}, {520, 272, 328}}) {
    cases.push_back({{m, n, k, false, true}, true});
    cases.push_back({{m, n, k, false, false}, true});
    cases.push_back({{m, n, k, false, true}, true, true});
    cases.push_back({{m, n, k, false, true, kHalf, kHalf, true}});
    cases.push_back({{m, n, k, false, true, kHalf, kHalf, true}, true});
    cases.push_back({{m, n, k, true, false, kHalf, kFloat}, true, true});
  }
  Case pitched{{264, 272, 72, false, false}};
  pitched.shape.ldd = 272 * 2;
  cases.push_back(pitched);
  ExpectClose(cases);
}

TEST(CudaSm90Gemm, Swiglu) {
  std::vector<Case> cases;
  for (const auto& [m, f, k] : {std::tuple{256, 128, 64}, {264, 200, 328}, {16, 8, 40}, {264, 264, 1000}}) {
    Case forward{{m, 2 * f, k, false, true}}, backward{{m, 2 * f, k, false, false}};
    forward.shape.fusion = GemmFusion::kSwiglu;
    backward.shape.fusion = GemmFusion::kSwigluDx;
    cases.push_back(forward);
    cases.push_back(backward);
  }
  ExpectClose(cases);
}

// Heads that a tile has whole, that end within one, and that are not turned; rows of angles that repeat within a tile.
TEST(CudaSm90Gemm, Rope) {
  std::vector<Case> cases;
  for (const auto& [m, heads, k] : {std::tuple{256, 6, 64}, {264, 3, 1000}, {528, 9, 2048}}) {
    for (const int d : {64, 128}) {
      Case c{{m, heads * d, k, false, true}};
      c.shape.fusion = GemmFusion::kRope;
      c.shape.head_dim = d;
      cases.push_back(c);
    }
  }
  ExpectClose(cases);
}

TEST(CudaSm90Gemm, Gelu) {
  std::vector<Case> cases;
  for (const auto& [m, n, k] : {std::tuple{256, 256, 64}, {264, 400, 328}, {16, 16, 40}, {520, 272, 1000}}) {
    Case forward{{m, n, k, false, true, kHalf, kHalf, true}}, backward{{m, n, k, false, false}};
    forward.shape.fusion = GemmFusion::kGelu;
    cases.push_back(forward);
    for (const GemmFusion fusion : {GemmFusion::kGeluDx, GemmFusion::kGeluDxSums}) {
      backward.shape.fusion = fusion;
      cases.push_back(backward);
    }
  }
  ExpectClose(cases);
}

// Sums cut along k are added in the same order every time.
TEST(CudaSm90Gemm, RepeatsItsBits) {
  STRATA_OPENS_HOPPER(device);
  Sm90Gemm own((*device)->context());
  GemmShape s{1024, 1024, 4096, true, false, kHalf, kFloat};
  Buffer a(s.m * s.k, 2), b(s.k * s.n, 2), d(s.m * s.n, 4), squares(kSquareParts, 4), workspace(kWorkspace, 1);
  a.Fill(1);
  b.Fill(2);
  GemmPlans::Operands o{a.device(),
                        b.device(),
                        nullptr,
                        nullptr,
                        d.device(),
                        0,
                        {static_cast<std::byte*>(workspace.device()), static_cast<size_t>(kWorkspace)},
                        nullptr};
  o.sums = static_cast<float*>(squares.device());
  for (const Form form : {Form::kPair, Form::kWide, Form::kTall}) {
    std::vector<double> first;  // D, with its squares or without
    for (const GemmFusion fusion : {GemmFusion::kNone, GemmFusion::kSquares}) {
      s.fusion = fusion;
      std::vector<double> parts;
      for (int run = 0; run < 4; ++run) {
        const absl::Status status = own.Run(s, o, {8, true, form});
        ASSERT_TRUE(status.ok()) << status;
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        d.Download();
        squares.Download();
        std::vector<double> values(s.m * s.n), sums(kSquareParts);
        for (int64_t i = 0; i < s.m * s.n; ++i) values[i] = d.At(i);
        for (int64_t i = 0; fusion == GemmFusion::kSquares && i < kSquareParts; ++i) sums[i] = squares.At(i);
        if (first.empty()) first = values;
        if (run == 0) parts = sums;
        EXPECT_TRUE(values == first && sums == parts) << "run " << run;
      }
    }
  }
}

// So that bits do not depend on what was faster, but for those of the sums.
TEST(CudaSm90Gemm, TurnsAsAKernelBehindItWould) {
  STRATA_OPENS_HOPPER(device);
  Sm90Gemm own((*device)->context());
  for (const int d : {64, 128}) {
    constexpr int64_t kM = 384, kHeads = 12, kTurned = 8, kK = 1024, kRows = 64;
    GemmShape s{kM, kHeads * d, kK, false, true};
    Buffer a(s.m * s.k, 2), b(s.k * s.n, 2), positions(kRows, 4), apart(s.m * s.n, 2), fused(s.m * s.n, 2);
    const Buffer angles(kRows * d, 4);
    a.Fill(1), b.Fill(2);
    std::vector<int32_t> at(kRows);
    std::iota(at.begin(), at.end(), 100);
    ASSERT_EQ(cudaMemcpy(positions.device(), at.data(), kRows * 4, cudaMemcpyHostToDevice), cudaSuccess);
    const RopeTableCall table{RopeAttributes{}, static_cast<const int32_t*>(positions.device()), kRows, d / 2,
                              static_cast<float2*>(angles.device())};
    ASSERT_TRUE(MakeRopeTable(table, nullptr).ok());
    GemmPlans::Operands o{a.device(), b.device(), nullptr, nullptr, apart.device(), 0, {}, nullptr};
    ASSERT_TRUE(own.Run(s, o, {8, false}).ok());
    ASSERT_TRUE(TurnHeads(table, {kHalf, kM, kHeads, kTurned, apart.device(), apart.device()}, nullptr).ok());
    s.fusion = GemmFusion::kRope;
    s.head_dim = d;
    o.d = fused.device();
    o.angles = angles.device();
    o.angle_rows = kRows;
    o.turned = kTurned * d;
    ASSERT_TRUE(own.Runs(s, o));
    ASSERT_TRUE(own.Run(s, o, {8, false}).ok());
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    apart.Download();
    fused.Download();
    int64_t unequal = 0;
    for (int64_t i = 0; i < s.m * s.n; ++i) unequal += fused.At(i) == apart.At(i) ? 0 : 1;
    EXPECT_EQ(unequal, 0) << "heads of " << d;
  }
}

// Needs no GPU. In a build without sm_90a, and on other GPUs, the kernels are empty.
TEST(CudaSm90Gemm, RunsWhereItsKernelsDo) {
  const GemmShape s{256, 256, 64, false, true};
  const GemmPlans::Operands o{};
  for (const int major : {8, 9, 10}) {
    CudaContext context;
    context.properties.major = major;
    EXPECT_EQ(Sm90Gemm(context).Runs(s, o), sm90::KernelsRun(major)) << major;
    EXPECT_TRUE(major == 9 || !sm90::KernelsRun(major)) << major;
  }
}

TEST(CudaSm90Gemm, NamesOfConfigurations) {
  EXPECT_EQ((Sm90Config{4, true, Form::kFour}).Name(), "sm90 4 1 four");
  const absl::StatusOr<Sm90Config> config = Sm90Config::Parse("sm90 12 0 tall");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->group, 12);
  EXPECT_FALSE(config->cut_k);
  EXPECT_EQ(config->form, Form::kTall);
  for (const char* bad :
       {"", "sm90", "sm90 0 1 pair", "sm90 4 1", "sm90 x 1 pair", "sm90 4 1 2", "apart", "sm91 4 1 pair"}) {
    EXPECT_FALSE(Sm90Config::Parse(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace strata::testing
