#include "core/plan/code.h"

#include <algorithm>

#include "core/base/status.h"
#include "core/graph/op.h"

namespace strata {

void Code::Emit(int position, Step step) {
  const Storage::Moment at{position, static_cast<int>(steps_[position].size())};
  for (const auto* operands : {&step.in, &step.out}) {
    for (const Operand& o : *operands) storages_.Touch(o, at);
  }
  steps_[position].push_back(std::move(step));
}

void Code::EmitBetween(int position, int to, Step step) {
  for (const Operand& o : step.in) storages_.Touch(o, {position, static_cast<int>(steps_[position].size())});
  for (const Operand& o : step.out) storages_.Touch(o, {to, -1});
  steps_[position].push_back(std::move(step));
}

absl::Status Code::Launch(int position, Step step) {
  std::vector<TensorRef> in;
  for (const Operand& o : step.in) in.push_back(o.view);
  ASSIGN_OR_RETURN(step.kernel, context_.kernels.Find(step.op->name(), KernelDType(in, step.out[0].view.dtype)));
  if (step.kernel->workspace != nullptr) step.workspace_bytes = step.kernel->workspace(*step.op, in);
  workspace_bytes_ = std::max(workspace_bytes_, step.workspace_bytes);
  Emit(position, std::move(step));
  return absl::OkStatus();
}

int16_t Code::Comm(CommSpec spec) {
  const auto it = std::find(context_.comms.begin(), context_.comms.end(), spec);
  if (it != context_.comms.end()) return static_cast<int16_t>(it - context_.comms.begin());
  context_.comms.push_back(std::move(spec));
  return static_cast<int16_t>(context_.comms.size() - 1);
}

}  // namespace strata
