#include "core/kernels/attention_cudnn.h"

#include <gmock/gmock.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "core/base/dynamic_library.h"
#include "core/kernels/cudnn_graph.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

using ::testing::HasSubstr;

std::string Message(const absl::Status& s) { return std::string(s.message()); }

// A packed q | k | v.
AttentionShape Shape(int64_t b, int64_t hq, int64_t hk, int64_t s, int64_t d,
                     AttentionMask mask = AttentionMask::kCausal) {
  const int64_t row = (hq + 2 * hk) * d;
  return {.b = b, .hq = hq, .hk = hk, .sq = s, .sk = s, .d = d, .q_row = row, .kv_row = row, .mask = mask};
}

struct Named {
  const char* name;
  AttentionShape shape;
};
const Named kShapes[] = {
    {"Llama 1.3B", Shape(8, 16, 16, 2048, 128)},
    {"Llama 3B", Shape(2, 24, 8, 4096, 128)},
    {"GPT-2 124M", Shape(64, 12, 12, 1024, 64)},
    {"BERT base", Shape(32, 12, 12, 512, 64, AttentionMask::kFull)},
    {"8k, 64/8 heads", Shape(1, 64, 8, 8192, 128)},
    {"2k full, 64/8 heads", Shape(1, 64, 8, 2048, 128, AttentionMask::kFull)},
    {"odd length", Shape(2, 4, 2, 511, 128)},
    {"odd length, three to one", Shape(1, 6, 2, 257, 64)},
    {"one tile", Shape(2, 4, 4, 64, 64)},
    {"small head dim", Shape(2, 3, 3, 33, 8)},
    {"head dim 40", Shape(2, 4, 2, 100, 40)},
    {"head dim 256", Shape(2, 4, 2, 128, 256)},
    {"head dim 256, odd tiles", Shape(1, 2, 2, 130, 256)},
};

TEST(CudnnLibrary, SaysWhatWasFoundAndWhatIsNeeded) {
  EXPECT_TRUE(CheckCudnnVersion(91002).ok());
  EXPECT_TRUE(CheckCudnnVersion(91400).ok());
  EXPECT_TRUE(CheckCudnnVersion(91900).ok());
  for (const int64_t version : {8907, 90999, 91000, 91001, 100000}) {
    const absl::Status s = CheckCudnnVersion(version);
    EXPECT_TRUE(absl::IsFailedPrecondition(s)) << version;
    EXPECT_THAT(Message(s), HasSubstr("need 9 from 9.10.2 on"));
  }
  EXPECT_THAT(Message(CheckCudnnVersion(91001)), HasSubstr("found cuDNN 9.10.1"));

  const char* before = std::getenv("STRATA_CUDNN");
  const std::string kept = before != nullptr ? before : "";
  setenv("STRATA_CUDNN", "/nowhere/libcudnn.so.9", 1);
  const AttentionPlans plans("no GPU");
  setenv("STRATA_CUDNN", kept.c_str(), 1);
  EXPECT_TRUE(absl::IsFailedPrecondition(plans.usable()));
  EXPECT_THAT(Message(plans.usable()), HasSubstr("/nowhere/libcudnn.so.9"));
}

// Both are taken by cuDNN 9.19 and come out wrong.
TEST(CudnnAttention, RefusesWhatIsSilentlyWrong) {
  AttentionShape float_results = kShapes[0].shape;
  float_results.dtype = DType::kF32;
  for (const AttentionPass pass : {AttentionPass::kForward, AttentionPass::kBackward}) {
    float_results.pass = pass;
    const absl::Status s = AttentionGraph(CudnnLibrary{}, float_results).status();
    EXPECT_TRUE(absl::IsInvalidArgument(s)) << s;
    EXPECT_THAT(Message(s), HasSubstr("wrong with f32 results"));
  }
  CudnnGraph graph(CudnnLibrary{});
  graph.Pointwise(CUDNN_POINTWISE_CMP_GT, nullptr, nullptr, nullptr);
  const absl::Status s = graph.Build(nullptr, 0);
  EXPECT_TRUE(absl::IsInvalidArgument(s)) << s;
  EXPECT_THAT(Message(s), HasSubstr("CMP_GT"));
}

TEST(CudnnAttention, KeepsDocumentsApartUnderACausalMaskOnly) {
  AttentionShape z = Shape(2, 4, 2, 128, 64);
  z.documents = true;
  EXPECT_TRUE(CheckAttentionShape(z).ok());
  z.mask = AttentionMask::kFull;
  EXPECT_TRUE(absl::IsInvalidArgument(CheckAttentionShape(z)));
}

TEST(CudnnAttention, RefusesHeadDimsThatItCannotTake) {
  for (const int64_t d : {4, 20, 33, 264}) {
    EXPECT_TRUE(absl::IsInvalidArgument(CheckAttentionShape(Shape(1, 2, 2, 64, d)))) << d;
  }
}

// The graphs are built and cuDNN's heuristic asked for an H200, which needs no GPU: only some libcuda in the process.
class CudnnEngines : public ::testing::Test {
 protected:
  void SetUp() override {
    (void)CudaDeviceCount();  // before the stub stands in for the driver
    const std::string drivers[] = {"libcuda.so.1", "/usr/local/cuda/lib64/stubs/libcuda.so",
                                   "/usr/local/cuda/lib/stubs/libcuda.so"};
    if (const auto driver = DynamicLibrary::Open(drivers); !driver.ok()) GTEST_SKIP() << driver.status();
    auto library = CudnnLibrary::Open();
    if (!library.ok()) GTEST_SKIP() << library.status();
    library_ = *library;
    std::ostringstream text;
    text << std::ifstream(STRATA_SOURCE_DIR "/tests/gpu/h200.json").rdbuf();
    device_ = text.str();
  }
  void ExpectEngine(const char* name, const AttentionShape& shape) {
    const auto graph = AttentionGraph(library_, shape);
    ASSERT_TRUE(graph.ok()) << graph.status();
    const auto bytes = (*graph)->EngineWorkspaces(device_);
    ASSERT_TRUE(bytes.ok()) << name << ": " << bytes.status();
    ASSERT_FALSE(bytes->empty()) << name << ": no engine for " << ToString(shape);
    EXPECT_LE(bytes->front(), AttentionWorkspaceOf(shape).library_bytes()) << name << ": " << ToString(shape);
  }

  CudnnLibrary library_{};
  std::string device_;
};

TEST_F(CudnnEngines, ExistForEveryShapeAndFitTheirWorkspace) {
  for (Named n : kShapes) {
    n.shape.pass = AttentionPass::kForward;
    ExpectEngine(n.name, n.shape);
    n.shape.pass = AttentionPass::kBackward;
    ExpectEngine(n.name, n.shape);
  }
}

TEST_F(CudnnEngines, KeepDocumentsApart) {
  for (Named n : kShapes) {
    if (n.shape.mask != AttentionMask::kCausal) continue;
    n.shape.documents = true;
    ExpectEngine(n.name, n.shape);
    n.shape.pass = AttentionPass::kBackward;
    ExpectEngine(n.name, n.shape);
  }
}

TEST_F(CudnnEngines, TakeSeparateTensorsToo) {
  AttentionShape z = Shape(2, 4, 2, 128, 64, AttentionMask::kFull);
  z.sk = 256, z.q_row = z.hq * z.d, z.kv_row = z.hk * z.d;
  ExpectEngine("cross", z);
  z.pass = AttentionPass::kBackward;
  ExpectEngine("cross", z);
}

TEST(CudnnAttention, WorkspaceOfTheBackwardPass) {
  AttentionShape z = kShapes[1].shape;  // b 2, heads 24/8, s 4096, d 128
  z.pass = AttentionPass::kBackward;
  const AttentionWorkspace w = AttentionWorkspaceOf(z);
  EXPECT_EQ(w.row_sum, 0);
  EXPECT_EQ(w.dq_sum, 2 * 24 * 4096 * 4);
  EXPECT_EQ(w.library - w.dq_sum, int64_t{2} * 24 * 4096 * 128 * 4);
  EXPECT_GE(w.library_bytes(), int64_t{2} * 2 * 24 * 4096 * 128 * 2) << "dk and dv of every query head";
  z.documents = true;
  const AttentionWorkspace d = AttentionWorkspaceOf(z);
  EXPECT_EQ(d.first_keys, w.library);
  EXPECT_EQ(d.library - d.first_keys, 2 * 4096 * 4);
  EXPECT_EQ(d.library_bytes(), w.library_bytes());
}

}  // namespace
}  // namespace strata::testing
