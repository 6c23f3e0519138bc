#pragma once
// What a job takes of memory: exact in the arenas of its ranks and in its save buffers, estimated beside them.

#include <span>
#include <string>

#include "core/plan/plan.h"
#include "launch/job/compile.h"

namespace strata {

// Of the process, on the host, beside arenas and save buffers of ranks on the CPU: code and libraries, BLAS buffers, data. An
// estimate.
int64_t OutsideBytes(const Job& job);

// On the GPU of a rank beside its arena: CUDA's context, kernels, libraries, and what NCCL takes a communicator. An estimate.
int64_t GpuOutsideBytes(const Plan& plan, Transport transport);

// What a rank takes of its device: the arena, and on a GPU what is outside of it.
int64_t DeviceBytes(const Plan& plan);

// InvalidArgument with the memory table where all ranks together need more than this machine's physical memory. Arenas on
// GPUs are none of it: their devices refuse what is too much.
absl::Status CheckFits(const Job& job, std::span<const Plan> plans);

bool EqualArenas(std::span<const Plan> plans);
// "all ranks: arenas 1.00 GiB (exact), save buffers ...": a line, for a job on GPUs one of these and one of the host.
std::string MemoryText(const Job& job, std::span<const Plan> plans);

int64_t ResidentBytes();      // of this process now
int64_t PeakResidentBytes();  // its highest

}  // namespace strata
