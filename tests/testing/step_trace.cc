#include "tests/testing/step_trace.h"

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/op.h"

namespace strata::testing {
namespace {

// In the place of a step's op, so that the kernel finds the step's own kernel and the trace.
class WatchedOp final : public Op {
 public:
  WatchedOp(std::shared_ptr<const Op> op, const Kernel* kernel, std::string scope, StepTrace* trace)
      : op_(std::move(op)), kernel_(kernel), scope_(std::move(scope)), trace_(trace) {}

  std::string_view name() const override { return op_->name(); }
  std::string attributes() const override { return op_->attributes(); }
  absl::StatusOr<std::vector<TensorSpec>> Infer(std::span<const TensorSpec> in) const override {
    return op_->Infer(in);
  }
  std::vector<ShardRule> ShardRules(std::span<const TensorSpec> in) const override { return op_->ShardRules(in); }
  int Aliases(int output) const override { return op_->Aliases(output); }

  static absl::Status Prepare(const KernelArgs& a) {
    const auto& self = static_cast<const WatchedOp&>(a.op);
    return self.kernel_->prepare == nullptr ? absl::OkStatus() : self.kernel_->prepare(self.OwnArgs(a));
  }
  static absl::Status Run(const KernelArgs& a) {
    const auto& self = static_cast<const WatchedOp&>(a.op);
    StepTrace::Entry e = self.Describe(a);
    ASSIGN_OR_RETURN(e.in, self.HashInputs(a));
    RETURN_IF_ERROR(self.kernel_->run(self.OwnArgs(a)));
    for (const TensorRef& t : a.out) RETURN_IF_ERROR(Add(a, t, e.out));
    self.trace_->Add(std::move(e));
    return absl::OkStatus();
  }

 private:
  KernelArgs OwnArgs(const KernelArgs& a) const {
    return {.op = *op_,
            .in = a.in,
            .out = a.out,
            .overwrite = a.overwrite,
            .workspace = a.workspace,
            .scalars = a.scalars,
            .key = a.key,
            .stream = a.stream,
            .pool = a.pool,
            .device = a.device};
  }

  StepTrace::Entry Describe(const KernelArgs& a) const {
    StepTrace::Entry e{.step = trace_->step(), .scope = scope_};
    e.name = absl::StrFormat("%s %s%s", std::string(name()), attributes(), a.overwrite ? " overwrites" : "");
    e.what = e.name;
    for (size_t i = 0; i < a.in.size() + a.out.size(); ++i) {
      const TensorRef& t = i < a.in.size() ? a.in[i] : a.out[i - a.in.size()];
      const std::string shape = absl::StrFormat("%s%s", Name(t.dtype), ToString(t.shape));
      absl::StrAppendFormat(&e.name, "%s%s", i == a.in.size() ? " -> " : " ", shape);
      absl::StrAppendFormat(&e.what, "%s%s@%d", i == a.in.size() ? " -> " : " ", shape,
                            reinterpret_cast<uintptr_t>(t.data) % 512);
      if (i >= a.in.size() || a.out.empty() || t.data != a.out[0].data) continue;
      absl::StrAppendFormat(&e.what, " (written over)");
    }
    return e;
  }

  absl::StatusOr<uint64_t> HashInputs(const KernelArgs& a) const {
    uint64_t hash = a.op.name() == "dropout" ? a.key : 0;
    std::vector<bool> ignored(a.in.size());  // what an accumulating kernel writes over
    const bool overwrites = a.overwrite && !absl::StrContains(attributes(), "always_add");
    for (size_t k = 0; overwrites && k < a.out.size(); ++k) {
      if (const int i = op_->Aliases(static_cast<int>(k)); i >= 0) ignored[i] = true;
    }
    for (size_t i = 0; i < a.in.size(); ++i) {
      if (!ignored[i]) RETURN_IF_ERROR(Add(a, a.in[i], hash));
    }
    return hash;
  }

  static absl::Status Add(const KernelArgs& a, const TensorRef& t, uint64_t& hash) {
    std::string bytes(static_cast<size_t>(t.bytes()), '\0');
    RETURN_IF_ERROR(a.device->Drain());
    RETURN_IF_ERROR(a.device->Copy(bytes.data(), t.data, t.bytes(), a.stream));
    RETURN_IF_ERROR(a.device->Drain());
    hash = hash * 0x9e3779b97f4a7c15u + std::hash<std::string_view>{}(bytes);
    return absl::OkStatus();
  }

  const std::shared_ptr<const Op> op_;
  const Kernel* const kernel_;
  const std::string scope_;
  StepTrace* const trace_;
};

}  // namespace

Plan StepTrace::Watch(Plan plan) {
  static const Kernel kWatched = {.run = WatchedOp::Run, .prepare = WatchedOp::Prepare};
  for (Program& program : plan.programs) {
    for (Segment& segment : program.segments) {
      for (Step& step : segment.steps) {
        if (step.kind != Step::kLaunch) continue;
        step.op = std::make_shared<WatchedOp>(step.op, step.kernel, step.scope, this);
        step.kernel = &kWatched;
      }
    }
  }
  return plan;
}

std::string FirstDifferences(const StepTrace& a, const StepTrace& b, size_t most) {
  using Key = std::tuple<int, std::string, uint64_t>;
  std::map<Key, const StepTrace::Entry*> known;
  std::set<std::pair<int, std::string>> names;
  for (const StepTrace::Entry& e : a.entries()) {
    known.try_emplace({e.step, e.name, e.in}, &e);
    names.insert({e.step, e.name});
  }
  std::vector<std::string> differ, fresh;
  for (size_t i = 0; i < b.entries().size(); ++i) {
    const StepTrace::Entry& e = b.entries()[i];
    const auto alike = known.find({e.step, e.name, e.in});
    const std::string line = absl::StrFormat("kernel %d of training step %d, %s: %s", i, e.step, e.scope, e.what);
    if (alike == known.end()) {
      if (names.contains({e.step, e.name})) fresh.push_back(line + " has operands of its own\n");
    } else if (alike->second->out != e.out) {
      differ.push_back(absl::StrFormat("%s\n  makes other bytes of the same operands than %s: %s\n", line,
                                       alike->second->scope, alike->second->what));
    }
  }
  std::string all;
  const std::vector<std::string>& found = differ.empty() ? fresh : differ;
  for (size_t i = 0; i < found.size() && i < most; ++i) all += found[i];
  return all;
}

}  // namespace strata::testing
