#include "launch/doctor/doctor.h"

#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

MachineFacts Good() {
  return {.cpu = "A CPU",
          .avx2 = true,
          .fma = true,
          .avx512 = true,
          .cores = 8,
          .memory = int64_t{16} << 30,
          .memory_free = int64_t{8} << 30,
          .blas = {"OpenBLAS 0.3.21", "SkylakeX", 8},
          .bf16_gemm = "oneDNN 2.6.3 (AMX)",
          .f32_flops = 150e9,
          .f64_flops = 70e9,
          .all_f32_flops = 900e9,
          .folder = "/data",
          .disk_free = int64_t{100} << 30,
          .disk_write = 800e6,
          .max_open_files = 4096,
          .max_file_bytes = -1,
          .max_processes = -1,
          .mpirun = "/usr/bin/mpirun"};
}

TEST(Doctor, AGoodMachine) {
  EXPECT_EQ(
      Print(Judge(Good())),
      "ok    cpu     A CPU, 8 cores, AVX2, FMA, AVX-512\n"
      "ok    memory  16.0 GiB, 8.0 GiB free\n"
      "ok    blas    OpenBLAS 0.3.21, SkylakeX kernels: 150 GFLOP/s float32, 70 float64 on a core; 900 float32 on "
      "all; bf16 by oneDNN 2.6.3 (AMX)\n"
      "ok    disk    /data: 100.0 GiB free, writes 800 MB/s (synced)\n"
      "ok    limits  open files 4096, file size unlimited, processes unlimited\n"
      "ok    mpi     /usr/bin/mpirun\n"
      "ok    gpu     none: ranks compute on the CPU\n");
}

// Each fault alone gives one advice, on its own line.
TEST(Doctor, EachFaultHasItsAdvice) {
  struct Case {
    const char* about;
    void (*spoil)(MachineFacts&);
    const char* advice;
  };
  const Case kCases[] = {
      {"cpu", [](MachineFacts& f) { f.fma = false; }, "STRATA_MARCH"},
      {"cpu", [](MachineFacts& f) { f.quota_cores = 2; }, "CPU limit"},
      {"memory", [](MachineFacts& f) { f.memory_free = 1 << 20; }, "strata plan"},
      {"blas", [](MachineFacts& f) { f.blas.core = "Haswell"; }, "OPENBLAS_CORETYPE=SkylakeX"},
      {"blas", [](MachineFacts& f) { f.avx512 = false, f.blas.core = "Prescott"; }, "OPENBLAS_CORETYPE=Haswell"},
      {"disk", [](MachineFacts& f) { f.folder_error = absl::PermissionDeniedError("/data: no"); }, "--dir"},
      {"disk", [](MachineFacts& f) { f.disk_free = 1 << 20; }, "room"},
      {"disk", [](MachineFacts& f) { f.disk_write = 1e6; }, "faster"},
      {"limits", [](MachineFacts& f) { f.max_open_files = 64; }, "ulimit -n"},
      {"limits", [](MachineFacts& f) { f.max_file_bytes = 1 << 20; }, "ulimit -f"},
      {"limits", [](MachineFacts& f) { f.max_processes = 10; }, "ulimit -u"},
      {"mpi", [](MachineFacts& f) { f.mpirun.clear(); }, "openmpi-bin"},
      {"gpu", [](MachineFacts& f) { f.gpu_device = true; }, "modprobe"},
      {"gpu", [](MachineFacts& f) { f.gpu_driver = "NVRM 550"; }, "container"},
  };
  for (const Case& c : kCases) {
    MachineFacts facts = Good();
    c.spoil(facts);
    int warned = 0;
    for (const Finding& f : Judge(facts)) {
      if (f.advice.empty()) continue;
      ++warned;
      EXPECT_EQ(f.about, c.about);
      EXPECT_THAT(f.advice, HasSubstr(c.advice));
    }
    EXPECT_EQ(warned, 1) << c.about << " " << c.advice;
  }
}

TEST(Doctor, ReadsThisMachineAndLeavesNothing) {
  const TempDir dir;
  const MachineFacts f = ReadMachine(Env::Posix(), dir.path());
  EXPECT_GT(f.cores, 0);
  EXPECT_GT(f.memory, int64_t{1} << 27);
  EXPECT_GT(f.memory_free, 0);
  EXPECT_LE(f.memory_free, f.memory);
  EXPECT_THAT(f.blas.version, ::testing::MatchesRegex("OpenBLAS [0-9.]+"));
  EXPECT_THAT(f.blas.core, ::testing::Not(IsEmpty()));
  EXPECT_GT(f.f32_flops, 1e8);
  EXPECT_TRUE(f.folder_error.ok()) << f.folder_error;
  EXPECT_GT(f.disk_write, 1e5);
  EXPECT_GT(f.disk_free, 0);
  EXPECT_THAT(Env::Posix().List(dir.path()).value(), IsEmpty());
  const MachineFacts none = ReadMachine(Env::Posix(), dir.path("none"));
  EXPECT_EQ(none.folder_error.code(), absl::StatusCode::kNotFound);
}

TEST(Doctor, Meminfo) {
  const std::string text = "MemTotal:       100 kB\nMemAvailable:  7 kB\n";
  EXPECT_EQ(MeminfoBytes(text, "MemTotal"), 102400);
  EXPECT_EQ(MeminfoBytes(text, "MemAvailable"), 7168);
  EXPECT_EQ(MeminfoBytes(text, "Available"), 0);
}

}  // namespace
}  // namespace strata
