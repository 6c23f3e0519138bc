#include "launch/rendezvous/cores.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "launch/job/gather.h"

namespace strata {
namespace {

// The machine's name and the set of its cores, as bytes to compare.
std::string Place() {
  char host[256] = {};
  ::gethostname(host, sizeof(host) - 1);
  cpu_set_t cores;
  CPU_ZERO(&cores);
  ::sched_getaffinity(0, sizeof(cores), &cores);
  return host + std::string(1, '\n') + std::string(reinterpret_cast<const char*>(&cores), sizeof(cores));
}

}  // namespace

absl::StatusOr<int> CoresOfRank(Communicator& everyone) {
  const std::string mine = Place();
  ASSIGN_OR_RETURN(const std::vector<std::string> places, AllGatherText(everyone, mine));
  const auto sharers = static_cast<int>(std::count(places.begin(), places.end(), mine));
  return std::max(1, AvailableCores() / sharers);
}

}  // namespace strata
