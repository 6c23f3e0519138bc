// One rank of what layouts_test.cc starts with mpirun: `layout_program "llama dp2 tp2 sp"`. Trains that row of the table of
// layouts, and compares with one rank, which every process runs for itself. Exits with 0 if they are equal.

#include <algorithm>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "parallel/comm/mpi_world.h"
#include "tests/testing/layout_table.h"

namespace strata::testing {
namespace {

absl::Status Compare(const LayoutRow& row, const JobRun& one, World& world) {
  ASSIGN_OR_RETURN(const JobRun run, RunJobRank(row.config, kLayoutSteps, world));
  int64_t held = 0;
  for (const auto& [name, elements] : run.held) held += std::count(elements.begin(), elements.end(), true);
  const LayoutDifference d = DifferenceOf(run, one);
  if (!(d.worst <= kLayoutTolerance) || held == 0) {
    return absl::InternalError(absl::StrFormat("%s: %s is off by %g", row.name, d.what, d.worst));
  }
  absl::PrintF("rank %d of %d: %d elements equal\n", world.rank(), world.size(), held);
  return absl::OkStatus();
}

absl::Status Run(const std::string& words) {
  const LayoutRow row = ParseLayoutRow(words);
  ASSIGN_OR_RETURN(const JobRun one, RunJob(row.one_rank, kLayoutSteps));
  ASSIGN_OR_RETURN(const auto session, MpiSession::Start());
  if (session->size() != row.config.parallel.ranks()) return absl::InternalError("another number of processes");
  RETURN_IF_ERROR(RunMpiRank(*session, [&](World& world) { return Compare(row, one, world); }));
  return session->Finish();
}

}  // namespace
}  // namespace strata::testing

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const absl::Status status = strata::testing::Run(argv[1]);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
