#include "launch/doctor/machine.h"

#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <limits>
#include <vector>

#include "core/base/status.h"
#include "core/exec/cuda_device.h"
#include "core/kernels/gemm.h"
#include "launch/job/plan_report.h"

namespace strata {
namespace {

// A file of the kernel or the container; empty if it is not there.
std::string Text(const std::string& path) { return ReadKernelText(path).value_or(""); }

// What follows "key<tabs>: " on its line of /proc/cpuinfo.
std::string CpuinfoValue(const std::string& text, const std::string& key) {
  const size_t at = text.find(key);
  const size_t colon = text.find(": ", at);
  if (at == std::string::npos || colon == std::string::npos) return "";
  return text.substr(colon + 2, text.find('\n', colon) - colon - 2);
}

bool HasWord(const std::string& words, const std::string& word) {
  return (" " + words + " ").find(" " + word + " ") != std::string::npos;
}

int UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 0;
}

// "max 100000" or "200000 100000": quota and period in microseconds.
double QuotaCores(const std::string& cpu_max) {
  const double quota = std::strtod(cpu_max.c_str(), nullptr);
  const size_t space = cpu_max.find(' ');
  const double period = space == std::string::npos ? 0 : std::strtod(cpu_max.c_str() + space, nullptr);
  return quota > 0 && period > 0 ? quota / period : 0;
}

int64_t SoftLimit(__rlimit_resource resource) {
  rlimit limit{};
  if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return -1;
  return static_cast<int64_t>(std::min<rlim_t>(limit.rlim_cur, std::numeric_limits<int64_t>::max()));
}

std::string InPath(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::string rest = path == nullptr ? "" : path;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(':'), rest.size());
    const std::filesystem::path candidate = std::filesystem::path(rest.substr(0, end)) / program;
    std::error_code error;
    if (std::filesystem::is_regular_file(candidate, error)) return candidate.string();
    rest.erase(0, end + 1);
  }
  return "";
}

absl::StatusOr<double> WriteSpeed(Env& env, const std::string& path) {
  constexpr int64_t kChunk = 4 << 20, kChunks = 16;
  std::vector<std::byte> bytes(kChunk);
  for (int64_t i = 0; i < kChunk; ++i) bytes[i] = static_cast<std::byte>(i * 2654435761u >> 13);  // no file of zeros
  const auto begun = std::chrono::steady_clock::now();
  ASSIGN_OR_RETURN(const auto file, env.OpenWritable(path, Env::Open::kTruncate));
  for (int64_t i = 0; i < kChunks; ++i) RETURN_IF_ERROR(file->Append(bytes));
  RETURN_IF_ERROR(file->Sync());
  RETURN_IF_ERROR(file->Close());
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  return static_cast<double>(kChunk * kChunks) / seconds;
}

void ReadCpu(MachineFacts& facts) {
  const std::string cpuinfo = Text("/proc/cpuinfo"), flags = CpuinfoValue(cpuinfo, "flags");
  facts.cpu = CpuinfoValue(cpuinfo, "model name");
  facts.avx2 = HasWord(flags, "avx2");
  facts.fma = HasWord(flags, "fma");
  facts.avx512 = HasWord(flags, "avx512bw");
  facts.avx512_bf16 = HasWord(flags, "avx512_bf16");
  facts.amx = HasWord(flags, "amx_bf16");
  facts.cores = UsableCores();
  facts.quota_cores = QuotaCores(Text("/sys/fs/cgroup/cpu.max"));
}

void ReadMemory(MachineFacts& facts) {
  const std::string meminfo = Text("/proc/meminfo");
  facts.memory = MeminfoBytes(meminfo, "MemTotal");
  facts.memory_free = MeminfoBytes(meminfo, "MemAvailable");
  const std::string limit = Text("/sys/fs/cgroup/memory.max"), used = Text("/sys/fs/cgroup/memory.current");
  const int64_t limit_bytes = std::strtoll(limit.c_str(), nullptr, 10);  // "max": 0
  if (limit_bytes <= 0 || limit_bytes >= facts.memory) return;
  facts.memory = limit_bytes;
  facts.memory_free = std::min(facts.memory_free, limit_bytes - int64_t{std::strtoll(used.c_str(), nullptr, 10)});
}

double BestFlops(DType dtype, int threads) {  // of three: the first call of all pays for OpenBLAS's start
  double best = 0;
  for (int i = 0; i < 3; ++i) best = std::max(best, MeasureFlops(dtype, threads));
  return best;
}

void ReadDisk(Env& env, const std::string& folder, MachineFacts& facts) {
  facts.folder = folder;
  const std::string path = folder + "/.strata-doctor.tmp";
  const absl::StatusOr<double> speed = WriteSpeed(env, path);
  facts.folder_error = speed.status();
  env.RemoveAll(path).IgnoreError();
  facts.disk_write = speed.value_or(0);
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  facts.disk_free = error ? 0 : static_cast<int64_t>(space.available);
}

}  // namespace

int64_t MeminfoBytes(const std::string& text, const std::string& key) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    if (text.compare(begin, key.size() + 1, key + ":") == 0) {
      return std::strtoll(text.c_str() + begin + key.size() + 1, nullptr, 10) * 1024;
    }
    begin = end + 1;
  }
  return 0;
}

MachineFacts ReadMachine(Env& env, const std::string& folder) {
  MachineFacts facts;
  ReadCpu(facts);
  ReadMemory(facts);
  facts.blas = DescribeBlas();
  facts.bf16_gemm = DescribeGemm(DType::kBF16);
  InitCpuLibraries();
  facts.f32_flops = BestFlops(DType::kF32, 1);
  facts.f64_flops = BestFlops(DType::kF64, 1);
  facts.all_f32_flops = BestFlops(DType::kF32, std::max(1, facts.cores));
  ReadDisk(env, folder, facts);
  facts.max_open_files = SoftLimit(RLIMIT_NOFILE);
  facts.max_file_bytes = SoftLimit(RLIMIT_FSIZE);
  facts.max_processes = SoftLimit(RLIMIT_NPROC);
  facts.mpirun = InPath("mpirun");
  const std::string driver = Text("/proc/driver/nvidia/version");
  facts.gpu_driver = driver.substr(0, driver.find('\n'));
  facts.gpu_device = env.Exists("/dev/nvidia0");
  if (CudaDeviceCount() > 0) facts.gpu = CudaStatusLine();
  return facts;
}

}  // namespace strata
