// Our own products on Hopper, each configuration by itself (elsewhere the fastest is taken), against sums in double on the CPU.

#include "core/kernels/gemm_sm90.h"

#include <cmath>
#include <cstring>
#include <random>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/exec/cuda_context.h"
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

class Gemm {
 public:
  explicit Gemm(const CudaContext& context) : own_(context) {
    EXPECT_EQ(cudaMalloc(&workspace_, kWorkspace), cudaSuccess);
    EXPECT_EQ(cudaMemset(workspace_, 0xff, kWorkspace), cudaSuccess);
  }
  ~Gemm() { cudaFree(workspace_); }

  // The largest error of what the case writes.
  absl::StatusOr<double> ErrorOf(const Case& c, Sm90Config config) {
    const GemmShape& s = c.shape;
    const bool swiglu = s.fusion == GemmFusion::kSwiglu, dx = s.fusion == GemmFusion::kSwigluDx;
    Buffer a(s.m * s.k, 2), b(s.k * s.n, 2), d((dx ? 2 : 1) * s.m * s.pitch(), SizeOf(s.out)), bias(s.n, 2);
    Buffer addend(s.m * s.n, SizeOf(s.out)), h(swiglu ? s.m * s.n / 2 : 0, 2), gate_up(dx ? 2 * s.m * s.n : 0, 2);
    uint32_t seed = 1;
    for (Buffer* x : {&a, &b, &bias, &addend, &gate_up}) x->Fill(seed++);
    if (c.in_place) {
      for (int64_t i = 0; i < d.count(); ++i) d.Set(i, static_cast<float>(addend.At(i)));
      d.Upload();
    }
    GemmPlans::Operands o{a.device(),
                          b.device(),
                          c.adds ? (c.in_place ? d.device() : addend.device()) : nullptr,
                          s.bias ? bias.device() : nullptr,
                          d.device(),
                          c.adds ? 1.0f : 0.0f,
                          {static_cast<std::byte*>(workspace_), static_cast<size_t>(kWorkspace)},
                          nullptr,
                          swiglu ? h.device() : nullptr,
                          dx ? gate_up.device() : nullptr};
    if (!own_.Runs(s, o)) return absl::FailedPreconditionError("does not run");
    RETURN_IF_ERROR(own_.Run(s, o, config));
    RETURN_IF_ERROR(CudaStatus(cudaDeviceSynchronize(), "a product"));
    d.Download();
    h.Download();
    if (!d.GuardIntact() || !h.GuardIntact()) return INFINITY;

    Error of_d, of_h;
    for (int64_t i = 0; i < s.m; ++i) {
      for (int64_t j = 0; j < s.n; ++j) {
        double sum = 0;
        for (int64_t k = 0; k < s.k; ++k) {
          sum += a.At(s.transpose_a ? k * s.m + i : i * s.k + k) * b.At(s.transpose_b ? j * s.k + k : k * s.n + j);
        }
        if (s.bias) sum += bias.At(j);
        if (c.adds) sum += addend.At(i * s.n + j);
        if (dx) {
          const double g = gate_up.At(i * 2 * s.n + j), u = gate_up.At(i * 2 * s.n + s.n + j), sig = Sigmoid(g);
          const double dh = FromBF16(ToBF16(static_cast<float>(sum)));
          of_d.Add(d.At(i * 2 * s.n + j), dh * u * sig * (1 + g * (1 - sig)));
          of_d.Add(d.At(i * 2 * s.n + s.n + j), dh * g * sig);
        } else {
          of_d.Add(d.At(i * s.pitch() + j), sum);
        }
      }
      for (int64_t j = 0; swiglu && j < s.n / 2; ++j) {
        const double g = d.At(i * s.n + j), u = d.At(i * s.n + s.n / 2 + j);
        of_h.Add(h.At(i * s.n / 2 + j), g * Sigmoid(g) * u);
      }
    }
    return swiglu ? std::max(of_d.value(), of_h.value()) : of_d.value();
  }

 private:
  Sm90Gemm own_;
  void* workspace_ = nullptr;
};

constexpr DType kHalf = DType::kBF16, kFloat = DType::kF32;

void ExpectClose(const std::vector<Case>& cases) {
  STRATA_NEEDS_GPU();
  const auto device = CudaDevice::Open(0);
  ASSERT_TRUE(device.ok()) << device.status();
  const CudaContext& context = (*device)->context();
  if (context.properties.major != 9) GTEST_SKIP() << "not a Hopper GPU";
  Gemm gemm(context);
  for (const Case& c : cases) {
    for (const Sm90Config& config :
         {Sm90Config{8, false, 2}, Sm90Config{1, false, 4}, Sm90Config{8, true, 2}, Sm90Config{8, true, 4}}) {
      const absl::StatusOr<double> error = gemm.ErrorOf(c, config);
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

// Sums cut along k are added in the same order every time.
TEST(CudaSm90Gemm, RepeatsItsBits) {
  STRATA_NEEDS_GPU();
  const auto device = CudaDevice::Open(0);
  ASSERT_TRUE(device.ok()) << device.status();
  if ((*device)->context().properties.major != 9) GTEST_SKIP() << "not a Hopper GPU";
  Sm90Gemm own((*device)->context());
  const GemmShape s{1024, 1024, 4096, true, false, kHalf, kFloat};
  Buffer a(s.m * s.k, 2), b(s.k * s.n, 2), d(s.m * s.n, 4), workspace(kWorkspace, 1);
  a.Fill(1);
  b.Fill(2);
  const GemmPlans::Operands o{a.device(),
                              b.device(),
                              nullptr,
                              nullptr,
                              d.device(),
                              0,
                              {static_cast<std::byte*>(workspace.device()), static_cast<size_t>(kWorkspace)},
                              nullptr};
  std::vector<double> first;
  for (int run = 0; run < 5; ++run) {
    const absl::Status status = own.Run(s, o, {8, true});
    ASSERT_TRUE(status.ok()) << status;
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    d.Download();
    std::vector<double> values(s.m * s.n);
    for (int64_t i = 0; i < s.m * s.n; ++i) values[i] = d.At(i);
    if (run == 0) first = values;
    EXPECT_TRUE(values == first) << "run " << run;
  }
}

TEST(CudaSm90Gemm, NamesOfConfigurations) {
  EXPECT_EQ((Sm90Config{4, true, 4}).Name(), "sm90 4 1 4");
  const absl::StatusOr<Sm90Config> config = Sm90Config::Parse("sm90 12 0 2");
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->group, 12);
  EXPECT_FALSE(config->cut_k);
  EXPECT_EQ(config->blocks, 2);
  for (const char* bad : {"", "sm90", "sm90 0 1 2", "sm90 4 1", "sm90 x 1 2", "sm90 4 1 3", "apart", "sm91 4 1 2"}) {
    EXPECT_FALSE(Sm90Config::Parse(bad).ok()) << bad;
  }
}

}  // namespace
}  // namespace strata::testing
