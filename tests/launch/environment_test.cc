#include "launch/rendezvous/environment.h"

#include <gtest/gtest.h>

namespace strata {
namespace {

struct Case {
  const char* name;
  Variables variables;
  int rank, size, local_rank, local_size;
  const char* source;
};

TEST(Environment, ReadsEachLauncherInOrder) {
  const Variables slurm = {{"SLURM_PROCID", "5"}, {"SLURM_LOCALID", "1"}, {"SLURM_STEP_ID", "0"}};
  Variables step = slurm, old = slurm, batch = slurm, under_mpirun = slurm;
  step["SLURM_STEP_NUM_TASKS"] = "8";
  step["SLURM_NTASKS"] = "16";  // of the job, not of the step
  old["SLURM_NTASKS"] = "16";
  batch["SLURM_NTASKS"] = "16";
  batch.erase("SLURM_STEP_ID");
  under_mpirun["SLURM_NTASKS"] = "2";  // mpirun's own step
  under_mpirun["OMPI_COMM_WORLD_RANK"] = "3";
  under_mpirun["OMPI_COMM_WORLD_SIZE"] = "4";
  const Case cases[] = {
      {"none", {{"HOME", "/root"}}, 0, 1, 0, 1, ""},
      {"strata",
       {{"STRATA_RANK", "1"}, {"STRATA_WORLD_SIZE", "4"}, {"STRATA_LOCAL_RANK", "0"}, {"STRATA_LOCAL_WORLD_SIZE", "2"}},
       1,
       4,
       0,
       2,
       "STRATA_RANK"},
      {"torchrun",
       {{"RANK", "2"}, {"WORLD_SIZE", "4"}, {"LOCAL_RANK", "0"}, {"LOCAL_WORLD_SIZE", "2"}},
       2,
       4,
       0,
       2,
       "RANK"},
      {"Open MPI",
       {{"OMPI_COMM_WORLD_RANK", "3"},
        {"OMPI_COMM_WORLD_SIZE", "4"},
        {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
        {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}},
       3,
       4,
       1,
       2,
       "OMPI_COMM_WORLD_RANK"},
      {"MPICH", {{"PMI_RANK", "1"}, {"PMI_SIZE", "2"}}, 1, 2, 1, 2, "PMI_RANK"},
      {"srun", step, 5, 8, 1, 8, "SLURM_PROCID"},
      {"srun of old", old, 5, 16, 1, 16, "SLURM_PROCID"},
      {"a batch script is no rank", batch, 0, 1, 0, 1, ""},
      {"mpirun in a Slurm job", under_mpirun, 3, 4, 3, 4, "OMPI_COMM_WORLD_RANK"},
      {"two that agree",
       {{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_RANK", "1"}, {"OMPI_COMM_WORLD_SIZE", "2"}},
       1,
       2,
       1,
       2,
       "RANK"},
  };
  for (const Case& c : cases) {
    const absl::StatusOr<ProcessPlace> place = ReadPlace(c.variables);
    ASSERT_TRUE(place.ok()) << c.name << ": " << place.status();
    EXPECT_EQ(place->rank, c.rank) << c.name;
    EXPECT_EQ(place->size, c.size) << c.name;
    EXPECT_EQ(place->local_rank, c.local_rank) << c.name;
    EXPECT_EQ(place->local_size, c.local_size) << c.name;
    EXPECT_EQ(place->source, c.source) << c.name;
    EXPECT_EQ(place->alone(), c.size == 1) << c.name;
  }
}

TEST(Environment, MistakesNameVariablesAndValues) {
  const std::pair<Variables, std::vector<std::string>> cases[] = {
      {{{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"OMPI_COMM_WORLD_RANK", "0"}, {"OMPI_COMM_WORLD_SIZE", "2"}},
       {"RANK=1", "OMPI_COMM_WORLD_RANK=0"}},
      {{{"STRATA_RANK", "1"}, {"STRATA_WORLD_SIZE", "8"}, {"PMI_RANK", "1"}, {"PMI_SIZE", "2"}},
       {"STRATA_WORLD_SIZE=8", "PMI_SIZE=2"}},
      {{{"RANK", "1"}}, {"RANK=1", "WORLD_SIZE is not"}},
      {{{"WORLD_SIZE", "4"}}, {"WORLD_SIZE=4", "RANK is not"}},
      {{{"PMI_RANK", "4"}, {"PMI_SIZE", "4"}}, {"PMI_RANK=4", "PMI_SIZE=4"}},
      {{{"RANK", "first"}, {"WORLD_SIZE", "4"}}, {"RANK=first"}},
      {{{"RANK", "-1"}, {"WORLD_SIZE", "4"}}, {"RANK=-1"}},
      {{{"RANK", "0"}, {"WORLD_SIZE", "0"}}, {"WORLD_SIZE=0"}},
  };
  for (const auto& [variables, parts] : cases) {
    const absl::Status status = ReadPlace(variables).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << parts[0] << ": " << status;
    for (const std::string& part : parts) EXPECT_NE(status.ToString().find(part), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace strata
