#include "launch/doctor/doctor.h"

#include <algorithm>

#include "absl/strings/str_format.h"

namespace strata {
namespace {

constexpr double kGiB = 1024.0 * 1024 * 1024;

std::string Gib(int64_t bytes) { return absl::StrFormat("%.1f GiB", static_cast<double>(bytes) / kGiB); }
std::string Gflops(double flops) { return absl::StrFormat("%.0f", flops / 1e9); }
std::string Limit(int64_t limit) { return limit < 0 ? "unlimited" : absl::StrFormat("%d", limit); }

Finding Cpu(const MachineFacts& f) {
  std::string text = absl::StrFormat("%s, %d cores", f.cpu.empty() ? "unknown CPU" : f.cpu, f.cores);
  for (const auto& [has, name] : {std::pair(f.avx2, "AVX2"), std::pair(f.fma, "FMA"), std::pair(f.avx512, "AVX-512"),
                                  std::pair(f.avx512_bf16, "AVX-512 BF16"), std::pair(f.amx, "AMX bf16")}) {
    if (has) text += absl::StrFormat(", %s", name);
  }
  if (!f.avx2 || !f.fma) return {"cpu", text, "needs AVX2 and FMA: build with -DSTRATA_MARCH=x86-64"};
  if (f.quota_cores > 0 && f.quota_cores < 0.9 * f.cores) {
    return {"cpu", text + absl::StrFormat("; the container may use %.1f of them", f.quota_cores),
            "raise the container's CPU limit, or pin it to that many cores (taskset), so that threads do not wait"};
  }
  return {"cpu", text, ""};
}

Finding Memory(const MachineFacts& f) {
  const bool low = f.memory_free < static_cast<int64_t>(kGiB);
  return {"memory", absl::StrFormat("%s, %s free", Gib(f.memory), Gib(f.memory_free)),
          low ? "free some, or take a smaller model: `strata plan` says what one needs" : ""};
}

// The kernel set that fits the CPU's widest vectors.
Finding Blas(const MachineFacts& f) {
  const std::string text = absl::StrFormat(
      "%s, %s kernels: %s GFLOP/s float32, %s float64 on a core; %s float32 on all; bf16 by %s", f.blas.version,
      f.blas.core, Gflops(f.f32_flops), Gflops(f.f64_flops), Gflops(f.all_f32_flops), f.bf16_gemm);
  constexpr std::string_view kAvx512[] = {"SkylakeX", "Cooperlake", "SapphireRapids"}, kAvx2[] = {"Haswell", "Zen"};
  const auto is_one_of = [&](std::span<const std::string_view> cores) {
    return std::find(cores.begin(), cores.end(), f.blas.core) != cores.end();
  };
  const bool good = is_one_of(kAvx512) || (!f.avx512 && is_one_of(kAvx2));
  if (good || !f.avx2) return {"blas", text, ""};
  return {"blas", text,
          absl::StrFormat("OpenBLAS took kernels for an older CPU: export OPENBLAS_CORETYPE=%s before strata starts",
                          f.avx512 ? "SkylakeX" : "Haswell")};
}

Finding Disk(const MachineFacts& f) {
  if (!f.folder_error.ok()) {
    return {"disk", std::string(f.folder_error.message()), "name a folder that can be written to: --dir DIR"};
  }
  std::string advice;
  if (f.disk_write < 50e6) advice = "checkpoints would take long: put run.out on a faster disk";
  if (f.disk_free < static_cast<int64_t>(2 * kGiB))
    advice = "checkpoints need room: free some, or set run.out elsewhere";
  return {"disk",
          absl::StrFormat("%s: %s free, writes %.0f MB/s (synced)", f.folder, Gib(f.disk_free), f.disk_write / 1e6),
          advice};
}

Finding Limits(const MachineFacts& f) {
  const auto low = [](int64_t limit, int64_t need) { return limit >= 0 && limit < need; };
  std::string advice;
  if (low(f.max_file_bytes, int64_t{1} << 40)) advice = "a checkpoint's file may be cut short: ulimit -f unlimited";
  if (low(f.max_processes, 1024)) advice = "ranks are threads, and each has workers: ulimit -u 4096";
  if (low(f.max_open_files, 1024)) advice = "a large job opens many files: ulimit -n 4096";
  return {"limits",
          absl::StrFormat("open files %s, file size %s, processes %s", Limit(f.max_open_files), Limit(f.max_file_bytes),
                          Limit(f.max_processes)),
          advice};
}

Finding Mpi(const MachineFacts& f) {
  if (!f.mpirun.empty()) return {"mpi", f.mpirun, ""};
  return {"mpi", "no mpirun in PATH", "only for jobs of several processes: apt-get install openmpi-bin"};
}

Finding Gpu(const MachineFacts& f) {
  if (!f.gpu.empty()) return {"gpu", f.gpu, ""};
  if (f.gpu_driver.empty() && !f.gpu_device) return {"gpu", "none: ranks compute on the CPU", ""};
  if (f.gpu_driver.empty()) return {"gpu", "a device node, but no driver is loaded", "load it: modprobe nvidia"};
  return {"gpu", f.gpu_driver, f.gpu_device ? "" : "no device node: start the container with its GPUs"};
}

}  // namespace

std::vector<Finding> Judge(const MachineFacts& facts) {
  return {Cpu(facts), Memory(facts), Blas(facts), Disk(facts), Limits(facts), Mpi(facts), Gpu(facts)};
}

std::string Print(std::span<const Finding> findings) {
  std::string text;
  for (const Finding& f : findings) {
    absl::StrAppendFormat(&text, "%-5s %-7s %s\n", f.advice.empty() ? "ok" : "warn", f.about, f.text);
    if (!f.advice.empty()) absl::StrAppendFormat(&text, "              -> %s\n", f.advice);
  }
  return text;
}

}  // namespace strata
