#pragma once
// Plans of states alone, made by hand: what every rank of a mesh stores of some tensors, also under layouts that no pass makes.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/env.h"
#include "core/mesh/mesh.h"
#include "core/plan/plan.h"

namespace strata::testing {

struct HandState {
  std::string name;
  Role role = Role::kParam;
  DType dtype = DType::kF32;
  Shape model, padded;  // padded: what the layout cuts
  Layout layout{};
  AxisSet flat = 0;  // axes that share out the local box's elements as ranges, of uneven lengths
};

// One plan a rank. A state's memory is a buffer of its own: ref is {region = index of the state, 0}.
std::vector<Plan> HandPlans(const std::vector<MeshAxis>& axes, const std::vector<HandState>& states);

// The memory of each state of a plan: element (i, j, ...) of tensor `name` holds a value of (name, i, j, ...); padding is `pad`.
using HandMemory = std::vector<std::vector<std::byte>>;
HandMemory FillMemory(const Plan& plan, double pad);
double ElementValue(const std::string& name, const Shape& index);

// Saves what the plans store as root/step-1, each rank's part by StatesToSave, from memory as FillMemory makes it, whose
// padding is NaN. Returns the checkpoint's folder.
absl::StatusOr<std::string> SaveHandPlans(Env& env, const std::string& root, const std::vector<Plan>& plans);

// Sets element i of memory of a dtype, and gets it.
void SetElement(std::span<std::byte> bytes, DType dtype, int64_t i, double value);
double GetElement(std::span<const std::byte> bytes, DType dtype, int64_t i);

}  // namespace strata::testing
