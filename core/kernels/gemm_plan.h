#pragma once
// What a GemmPlans keeps of cuBLASLt, for its own sources: gemm_cuda.cc, gemm_choice_cuda.cc.

#include <cublasLt.h>

#include <optional>
#include <string>

#include "core/base/dynamic_library.h"
#include "core/base/status.h"
#include "core/kernels/gemm_cuda.h"

namespace strata {

struct GemmPlans::Library {
  decltype(cublasLtCreate)* Create;
  decltype(cublasLtDestroy)* Destroy;
  decltype(cublasLtGetVersion)* GetVersion;
  decltype(cublasLtGetStatusString)* StatusString;
  decltype(cublasLtMatmul)* Matmul;
  decltype(cublasLtMatmulAlgoCheck)* AlgoCheck;
  decltype(cublasLtMatmulAlgoGetHeuristic)* Heuristic;
  decltype(cublasLtMatmulDescCreate)* DescCreate;
  decltype(cublasLtMatmulDescDestroy)* DescDestroy;
  decltype(cublasLtMatmulDescSetAttribute)* DescSet;
  decltype(cublasLtMatrixLayoutCreate)* LayoutCreate;
  decltype(cublasLtMatrixLayoutDestroy)* LayoutDestroy;
  decltype(cublasLtMatmulPreferenceCreate)* PreferenceCreate;
  decltype(cublasLtMatmulPreferenceDestroy)* PreferenceDestroy;
  decltype(cublasLtMatmulPreferenceSetAttribute)* PreferenceSet;

  absl::Status Load() {
    const std::string names[] = {"libcublasLt.so.13", "libcublasLt.so"};
    ASSIGN_OR_RETURN(const DynamicLibrary lib, DynamicLibrary::Open(names));
    absl::Status s;
    s.Update(lib.Load("cublasLtCreate", Create));
    s.Update(lib.Load("cublasLtDestroy", Destroy));
    s.Update(lib.Load("cublasLtGetVersion", GetVersion));
    s.Update(lib.Load("cublasLtGetStatusString", StatusString));
    s.Update(lib.Load("cublasLtMatmul", Matmul));
    s.Update(lib.Load("cublasLtMatmulAlgoCheck", AlgoCheck));
    s.Update(lib.Load("cublasLtMatmulAlgoGetHeuristic", Heuristic));
    s.Update(lib.Load("cublasLtMatmulDescCreate", DescCreate));
    s.Update(lib.Load("cublasLtMatmulDescDestroy", DescDestroy));
    s.Update(lib.Load("cublasLtMatmulDescSetAttribute", DescSet));
    s.Update(lib.Load("cublasLtMatrixLayoutCreate", LayoutCreate));
    s.Update(lib.Load("cublasLtMatrixLayoutDestroy", LayoutDestroy));
    s.Update(lib.Load("cublasLtMatmulPreferenceCreate", PreferenceCreate));
    s.Update(lib.Load("cublasLtMatmulPreferenceDestroy", PreferenceDestroy));
    s.Update(lib.Load("cublasLtMatmulPreferenceSetAttribute", PreferenceSet));
    return s;
  }
};

// cuBLASLt is column-major: D^T = op(B)^T op(A)^T, so its first operand is our B.
struct GemmPlans::Plan {
  const Library& library;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t first = nullptr, second = nullptr, result = nullptr;
  GemmFusion fusion = GemmFusion::kNone;
  cublasLtMatmulAlgo_t algorithm{};
  std::optional<Sm90Config> own;  // instead of the algorithm and all before it
  std::string why;                // what was measured; empty: from the file

  explicit Plan(const Library& l) : library(l) {}
  ~Plan() {
    if (operation != nullptr) library.DescDestroy(operation);
    for (cublasLtMatrixLayout_t l : {first, second, result}) {
      if (l != nullptr) library.LayoutDestroy(l);
    }
  }
  Plan(const Plan&) = delete;
  Plan& operator=(const Plan&) = delete;
};

// A shape in the file and in messages.
std::string KeyOf(const GemmShape& shape);
inline constexpr char kApart[] = "apart";  // in the file: not fused

// What cuBLASLt does with results.
inline bool IsEpilogue(GemmFusion fusion) { return fusion == GemmFusion::kGelu || fusion == GemmFusion::kGeluDx; }

}  // namespace strata
