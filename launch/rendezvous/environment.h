#pragma once
// Which process of a job this one is, from the variables that launchers set.

#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace strata {

using Variables = std::map<std::string, std::string>;

struct ProcessPlace {
  int rank = 0, size = 1;
  int local_rank = 0, local_size = 1;  // among the processes on this machine; all of them where nothing says
  std::string source;                  // the variable that gave the rank; empty: no launcher, one process
  std::string ledger;                  // $STRATA_LEDGER, of strata launch: see MpiWorldOptions; may be empty

  bool alone() const { return size == 1; }
};

// The first of these that is set, as a pair of rank and size:
//   STRATA_RANK, STRATA_WORLD_SIZE; RANK, WORLD_SIZE (torchrun); OMPI_COMM_WORLD_RANK, _SIZE (Open MPI);
//   PMI_RANK, PMI_SIZE (MPICH, srun --mpi=pmi2); SLURM_PROCID, SLURM_STEP_NUM_TASKS or SLURM_NTASKS (srun).
// Slurm's count only in a job step, and only alone: under mpirun they are those of mpirun's own process.
// A pure function. Errors: InvalidArgument naming variables and values where two launchers disagree, a pair is half set or
// a value is no rank.
absl::StatusOr<ProcessPlace> ReadPlace(const Variables& variables);

Variables EnvironmentVariables();  // of this process

}  // namespace strata
