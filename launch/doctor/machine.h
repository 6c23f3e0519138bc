#pragma once
// What this machine is, as far as training depends on it. Plain facts; launch/doctor/doctor.h judges them.

#include <cstdint>
#include <string>

#include "core/base/env.h"
#include "core/kernels/blas_info.h"

namespace strata {

struct MachineFacts {
  std::string cpu;  // model name; empty if unknown
  bool avx2 = false, fma = false, avx512 = false, avx512_bf16 = false, amx = false;
  int cores = 0;            // that this process may run on
  double quota_cores = 0;   // of the container's CPU limit; 0: none
  int64_t memory = 0;       // bytes; of the container's limit where that is less
  int64_t memory_free = 0;  // bytes available without swapping
  BlasInfo blas;
  std::string bf16_gemm;                // what multiplies bf16 (DescribeGemm)
  double f32_flops = 0, f64_flops = 0;  // a second, one core, matrix product
  double all_f32_flops = 0;             // all cores at once, each its own product
  std::string folder;                   // whose disk the next three are of
  absl::Status folder_error;            // of writing there
  int64_t disk_free = 0;                // bytes
  double disk_write = 0;                // bytes a second, synced
  int64_t max_open_files = 0;           // soft limits; -1: none
  int64_t max_file_bytes = 0;
  int64_t max_processes = 0;
  std::string mpirun;       // path; empty: not in PATH
  std::string gpu_driver;   // version line of NVIDIA's kernel driver; empty: none
  bool gpu_device = false;  // a device node is there
  std::string gpu;  // what CUDA sees and has: "NVIDIA H200, 132 SMs, ..., cuDNN 9.19.0"; empty: none to compute on
};

// Measures for about a second, and writes and removes one file of 64 MiB in `folder`.
MachineFacts ReadMachine(Env& env, const std::string& folder);

// The value of "key: 123 kB" in the text of /proc/meminfo, in bytes; 0 if it is not there.
int64_t MeminfoBytes(const std::string& text, const std::string& key);

}  // namespace strata
