#include "launch/job/job_memory.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>

#include "absl/algorithm/container.h"
#include "absl/strings/str_format.h"
#include "core/base/env.h"
#include "launch/job/saver.h"

namespace strata {
namespace {

constexpr int kDevice = static_cast<int>(Tier::kDevice);

bool OnGpus(std::span<const Plan> plans) { return plans[0].outside_bytes[kDevice] > 0; }

int64_t Arenas(std::span<const Plan> plans) {
  return std::accumulate(plans.begin(), plans.end(), int64_t{0},
                         [](int64_t sum, const Plan& p) { return sum + p.arena_bytes[kDevice]; });
}
int64_t SaveBuffers(const Job& job, std::span<const Plan> plans) {
  return absl::c_accumulate(SaveBufferBytes(job, plans), int64_t{0});
}

std::string Human(int64_t bytes) { return HumanBytes(static_cast<double>(bytes)); }

}  // namespace

int64_t OutsideBytes(const Job& job) {
  constexpr int64_t kProcess = 48 << 20, kRank = 6 << 20;  // measured: code, libraries and heap; stack and BLAS buffer
  const JobConfig& c = job.config;
  const int64_t feeds = c.batch.accumulate * c.batch.micro * c.model.seq * 16 * (1 + c.data.prefetch);
  return kProcess + job.ranks * (kRank + feeds);
}

int64_t GpuOutsideBytes(const Plan& plan, Transport transport) {
  // By the driver on H100 and H200, CUDA 13.0 and NCCL 2.28: 0.59 GB of one GPU alone; with NCCL 1.48, 2.36 and 3.18 GB of two
  // with 1, 3 and 5 communicators.
  constexpr int64_t kContext = 590'000'000, kNccl = 470'000'000, kCommunicator = 425'000'000;
  const int64_t communicators = absl::c_count_if(plan.comms, [](const CommSpec& c) { return c.ranks.size() > 1; });
  const bool nccl = transport == Transport::kNccl && communicators > 0;
  return kContext + (nccl ? kNccl + communicators * kCommunicator : 0);
}

int64_t DeviceBytes(const Plan& plan) { return plan.arena_bytes[kDevice] + plan.outside_bytes[kDevice]; }

absl::Status CheckFits(const Job& job, std::span<const Plan> plans) {
  const int64_t need = OutsideBytes(job) + SaveBuffers(job, plans) + (OnGpus(plans) ? 0 : Arenas(plans));
  const int64_t have = sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGE_SIZE);
  if (need <= have) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("the plan of %d ranks needs %s, this machine has %s\n%sfixes: a smaller batch.micro "
                      "(activations), a smaller model",
                      plans.size(), Human(need), Human(have), Print(plans[0])));
}

bool EqualArenas(std::span<const Plan> plans) {
  return absl::c_all_of(plans, [&](const Plan& p) { return p.arena_bytes[kDevice] == plans[0].arena_bytes[kDevice]; });
}

std::string MemoryText(const Job& job, std::span<const Plan> plans) {
  const std::string who = absl::StrFormat("all ranks%s", EqualArenas(plans) ? "" : " (arenas differ)");
  const int64_t arenas = Arenas(plans), buffers = SaveBuffers(job, plans);
  if (!OnGpus(plans)) {
    const int64_t outside = OutsideBytes(job);
    return absl::StrFormat("%s: arenas %s (exact), save buffers %s (exact), outside %s (estimated), together %s\n", who,
                           Human(arenas), Human(buffers), Human(outside), Human(arenas + buffers + outside));
  }
  int64_t outside = 0, fullest = 0;
  for (const Plan& p : plans) {
    outside += p.outside_bytes[kDevice];
    fullest = std::max(fullest, DeviceBytes(p));
  }
  return absl::StrFormat(
      "%s, on GPUs: arenas %s (exact), outside %s (estimated), at most %s of a GPU\n"
      "%s, on the host: save buffers %s (exact)\n",
      who, Human(arenas), Human(outside), Human(fullest), who, Human(buffers));
}

int64_t PeakResidentBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss * 1024;
}

int64_t ResidentBytes() {
  const absl::StatusOr<std::string> statm = ReadKernelText("/proc/self/statm");
  long long size = 0, resident = 0;
  if (!statm.ok() || std::sscanf(statm->c_str(), "%lld %lld", &size, &resident) != 2) return 0;
  return resident * sysconf(_SC_PAGE_SIZE);
}

}  // namespace strata
