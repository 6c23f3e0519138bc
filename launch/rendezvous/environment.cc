#include "launch/rendezvous/environment.h"

#include <unistd.h>

#include <cstring>
#include <optional>

#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {
namespace {

struct Launcher {
  const char *rank, *size, *local_rank, *local_size;
};
constexpr Launcher kLaunchers[] = {
    {"STRATA_RANK", "STRATA_WORLD_SIZE", "STRATA_LOCAL_RANK", "STRATA_LOCAL_WORLD_SIZE"},
    {"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
};
constexpr char kSlurmStep[] = "SLURM_STEP_ID";  // set in what srun starts, not in a batch script
constexpr Launcher kSlurm = {"SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", nullptr};
constexpr Launcher kOldSlurm = {"SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", nullptr};

absl::StatusOr<std::optional<int>> Number(const Variables& variables, const char* name) {
  const auto found = name == nullptr ? variables.end() : variables.find(name);
  if (found == variables.end()) return std::optional<int>();
  int value = 0;
  if (absl::SimpleAtoi(found->second, &value) && value >= 0) return std::optional<int>(value);
  return absl::InvalidArgumentError(absl::StrFormat("%s=%s is not a number of processes", name, found->second));
}

absl::StatusOr<std::optional<ProcessPlace>> Read(const Variables& variables, const Launcher& names) {
  ASSIGN_OR_RETURN(const std::optional<int> rank, Number(variables, names.rank));
  ASSIGN_OR_RETURN(const std::optional<int> size, Number(variables, names.size));
  if (!rank && !size) return std::optional<ProcessPlace>();
  if (!rank || !size) {
    const auto [set, unset] = rank ? std::pair(names.rank, names.size) : std::pair(names.size, names.rank);
    return absl::InvalidArgumentError(
        absl::StrFormat("%s=%s is set, and %s is not: set both or none", set, variables.at(set), unset));
  }
  if (*rank >= *size) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s=%d: there is no such rank in %s=%d", names.rank, *rank, names.size, *size));
  }
  ASSIGN_OR_RETURN(const std::optional<int> local_rank, Number(variables, names.local_rank));
  ASSIGN_OR_RETURN(const std::optional<int> local_size, Number(variables, names.local_size));
  ProcessPlace place{*rank, *size, local_rank.value_or(*rank), local_size.value_or(*size), names.rank};
  if (place.local_size < 1) place.local_size = 1;
  const auto ledger = variables.find("STRATA_LEDGER");
  if (ledger != variables.end()) place.ledger = ledger->second;
  return std::optional<ProcessPlace>(std::move(place));
}

absl::Status Disagree(const Variables& variables, const char* one, const char* other) {
  return absl::InvalidArgumentError(absl::StrFormat("%s=%s, but %s=%s: two launchers set these; unset those of one",
                                                    one, variables.at(one), other, variables.at(other)));
}

}  // namespace

absl::StatusOr<ProcessPlace> ReadPlace(const Variables& variables) {
  std::optional<ProcessPlace> place;
  const Launcher* first = nullptr;
  for (const Launcher& launcher : kLaunchers) {
    ASSIGN_OR_RETURN(std::optional<ProcessPlace> read, Read(variables, launcher));
    if (!read) continue;
    if (place && place->rank != read->rank) return Disagree(variables, first->rank, launcher.rank);
    if (place && place->size != read->size) return Disagree(variables, first->size, launcher.size);
    if (place) continue;
    place = std::move(read);
    first = &launcher;
  }
  if (place) return *std::move(place);
  if (!variables.contains(kSlurmStep)) return ProcessPlace{};
  ASSIGN_OR_RETURN(place, Read(variables, variables.contains(kSlurm.size) ? kSlurm : kOldSlurm));
  return place ? *std::move(place) : ProcessPlace{};
}

Variables EnvironmentVariables() {
  Variables variables;
  for (char** e = environ; *e != nullptr; ++e) {
    const char* equals = std::strchr(*e, '=');
    if (equals != nullptr) variables.emplace(std::string(*e, static_cast<size_t>(equals - *e)), equals + 1);
  }
  return variables;
}

}  // namespace strata
