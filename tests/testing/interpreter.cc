#include "tests/testing/interpreter.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/graph/builder.h"
#include "core/kernels/cpu_util.h"
#include "core/ops/collective.h"
#include "tests/testing/gpu.h"

namespace strata::testing {
namespace {

constexpr std::byte kNaN{0xFF};  // bytes of all ones are a NaN in every floating dtype

// Copies row by row between a tensor seen as [outer, blocks, row] and blocks that lie one after another.
enum class Direction : uint8_t { kToBlocks, kFromBlocks };
void CopyBlocks(std::byte* tensor, const Shape& shape, DType dtype, int dim, int64_t blocks, std::byte* packed,
                Direction direction) {
  const OuterInner s = SplitAt(shape, dim);
  const int64_t row = s.n / blocks * s.inner * SizeOf(dtype);
  for (int64_t o = 0; o < s.outer; ++o) {
    for (int64_t b = 0; b < blocks; ++b) {
      std::byte *in_tensor = tensor + (o * blocks + b) * row, *in_block = packed + (b * s.outer + o) * row;
      if (direction == Direction::kToBlocks) {
        std::copy_n(in_tensor, row, in_block);
      } else {
        std::copy_n(in_block, row, in_tensor);
      }
    }
  }
}

class Interpreter {
 public:
  Interpreter(const Graph& graph, std::map<std::string, Tensor>& bindings, const EvalOptions& options)
      : graph_(graph),
        bindings_(bindings),
        options_(options),
        kernels_(options.kernels != nullptr ? *options.kernels : CpuKernels()),
        values_(graph.nodes.size()) {}

  absl::Status Run() {
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const Node& n = graph_.nodes[i];
      const absl::Status s = RunNode(n, values_[i]);
      if (!s.ok())
        return Annotate(s, absl::StrFormat("%s in %s (%s:%d)", n.op->name(), n.scope, n.loc.file, n.loc.line));
    }
    for (const auto& [state, v] : graph_.updates) {
      const Tensor& value = values_[v.node][v.output];
      ASSIGN_OR_RETURN(const std::span<std::byte> bytes, StateBytes(state, static_cast<int64_t>(value.data.size())));
      std::copy(value.data.begin(), value.data.end(), bytes.begin());
    }
    return absl::OkStatus();
  }

  absl::Status Close(const absl::Status& result) {
    absl::Status first;
    for (auto& [axes, comm] : comms_) {
      if (!result.ok()) comm->Abort(result);
      first.Update(comm->Close());
    }
    return result.ok() ? first : result;
  }

  std::vector<std::vector<Tensor>> TakeValues() { return std::move(values_); }

 private:
  absl::StatusOr<LocalBox> BoxOf(const TensorSpec& spec) const {
    if (options_.mesh != nullptr) return LocalBoxOf(spec.shape, spec.layout, *options_.mesh);
    LocalBox box{spec.shape, {}};
    box.origin.rank = spec.shape.rank;
    return box;
  }

  absl::StatusOr<TensorRef> RefOf(Tensor& t, const TensorSpec& spec) const {
    ASSIGN_OR_RETURN(const LocalBox box, BoxOf(spec));
    TensorRef ref = t.ref();
    ref.origin = box.origin;
    ref.global = spec.shape;
    return ref;
  }

  absl::StatusOr<Tensor*> Bound(const std::string& name) {
    const auto it = bindings_.find(name);
    if (it == bindings_.end()) return absl::InvalidArgumentError("nothing is bound to " + name);
    return &it->second;
  }

  absl::StatusOr<std::span<std::byte>> StateBytes(StateId id, int64_t bytes) {
    const State& s = graph_.states[id];
    const State& owner = s.storage < 0 ? s : graph_.states[s.storage];
    ASSIGN_OR_RETURN(Tensor * t, Bound(owner.name));
    const int64_t begin = s.storage < 0 ? 0 : s.storage_offset * SizeOf(s.spec.dtype);
    if (t->dtype != s.spec.dtype || begin + bytes > static_cast<int64_t>(t->data.size())) {
      return absl::InvalidArgumentError(absl::StrFormat("%s does not fit what is bound to %s", s.name, owner.name));
    }
    return std::span(t->data).subspan(begin, bytes);
  }

  absl::Status RunNode(const Node& n, std::vector<Tensor>& out) {
    std::vector<Tensor*> in;
    for (Value v : n.inputs) in.push_back(&values_[v.node][v.output]);
    for (const TensorSpec& spec : n.outputs) {
      ASSIGN_OR_RETURN(const LocalBox box, BoxOf(spec));
      out.push_back(Tensor::Zeros(spec.dtype, box.shape));
      std::fill(out.back().data.begin(), out.back().data.end(), kNaN);
    }
    if (const InputOp* input = AsInput(n)) {
      ASSIGN_OR_RETURN(const Tensor* t, Bound(input->input()));
      if (t->dtype != out[0].dtype || t->shape != out[0].shape) {
        return absl::InvalidArgumentError(
            absl::StrFormat("%s is bound to %s%s", input->input(), Name(t->dtype), ToString(t->shape)));
      }
      out[0] = *t;
      return absl::OkStatus();
    }
    if (const ReadOp* read = AsRead(n)) {
      ASSIGN_OR_RETURN(const std::span<std::byte> bytes,
                       StateBytes(read->state(), static_cast<int64_t>(out[0].data.size())));
      std::copy(bytes.begin(), bytes.end(), out[0].data.begin());
      return absl::OkStatus();
    }
    for (size_t i = 0; i < out.size(); ++i) {
      if (const int alias = n.op->Aliases(static_cast<int>(i)); alias >= 0) out[i].data = in[alias]->data;
    }
    if (n.op->IsView()) return absl::OkStatus();
    if (const CollectiveOp* c = AsCollective(n)) return RunCollective(*c, *in[0], out[0]);
    return RunKernel(n, in, out);
  }

  absl::Status RunKernel(const Node& n, const std::vector<Tensor*>& in, std::vector<Tensor>& out) {
    std::vector<TensorRef> in_refs, out_refs;
    for (size_t i = 0; i < in.size(); ++i) {
      ASSIGN_OR_RETURN(in_refs.emplace_back(), RefOf(*in[i], graph_.spec(n.inputs[i])));
    }
    for (size_t i = 0; i < out.size(); ++i) {
      ASSIGN_OR_RETURN(out_refs.emplace_back(), RefOf(out[i], n.outputs[i]));
      const int alias = n.op->Aliases(static_cast<int>(i));
      if (alias >= 0) in_refs[alias].data = out_refs[i].data;
    }
    if (options_.in_place) ShareStorage(*n.op, in, in_refs, out, out_refs);
    ASSIGN_OR_RETURN(const Kernel* kernel, kernels_.Find(n.op->name(), KernelDType(in_refs, out[0].dtype)));
    std::vector<std::byte> workspace(kernel->workspace == nullptr ? 0 : kernel->workspace(*n.op, in_refs), kNaN);
    const KernelArgs args{*n.op, in_refs,  out_refs,     options_.overwrite, workspace, &options_.scalars,
                          n.key, Stream{}, options_.pool};
    return options_.device != nullptr ? RunOnDevice(*options_.device, *kernel, args) : kernel->run(args);
  }

  static void ShareStorage(const Op& op, const std::vector<Tensor*>& in, std::vector<TensorRef>& in_refs,
                           std::vector<Tensor>& out, std::vector<TensorRef>& out_refs) {
    if (op.Aliases(0) >= 0) return;
    for (size_t i = 0; i < in.size(); ++i) {
      if (!op.MayOverwrite(static_cast<int>(i)) || in[i]->data.size() != out[0].data.size()) continue;
      out[0].data = in[i]->data;
      out_refs[0].data = in_refs[i].data = out[0].data.data();
      return;
    }
  }

  // The communicator of an axis set; all ranks run the same graph, so they connect in the same order.
  absl::StatusOr<Communicator*> CommOf(AxisSet axes) {
    if (options_.world == nullptr) return absl::InvalidArgumentError("a collective needs a world");
    std::unique_ptr<Communicator>& comm = comms_[axes];
    if (comm == nullptr) {
      ASSIGN_OR_RETURN(comm, options_.world->Connect({options_.mesh->Name(axes), options_.mesh->Group(axes)}));
    }
    return comm.get();
  }

  // Data travel as whole blocks, one a member: packed before a scatter along a dim, unpacked after a gather.
  absl::Status RunCollective(const CollectiveOp& op, Tensor& in, Tensor& out) {
    using Kind = CollectiveOp::Kind;
    if (options_.mesh == nullptr) return absl::InvalidArgumentError("a collective needs a mesh");
    const std::vector<int> group = options_.mesh->Group(op.axes());
    const int64_t n = static_cast<int64_t>(group.size());
    const bool scatters = op.to().is_shard(), gathers = op.from().is_shard();
    std::vector<std::byte> send = in.data;
    if (scatters) CopyBlocks(in.data.data(), in.shape, in.dtype, op.to().dim, n, send.data(), Direction::kToBlocks);
    if (op.kind() == Kind::kSlice) {
      const int64_t me = std::find(group.begin(), group.end(), options_.mesh->rank()) - group.begin();
      const int64_t bytes = static_cast<int64_t>(out.data.size());
      std::copy_n(send.begin() + me * bytes, bytes, out.data.begin());
      return absl::OkStatus();
    }
    constexpr Collective::Kind kKind[] = {Collective::kAllReduce, Collective::kAllGather, Collective::kReduceScatter,
                                          Collective::kAllToAll};
    Collective call;
    call.kind = kKind[static_cast<int>(op.kind())];
    call.reduce = op.from().reduce;
    call.dtype = in.dtype;
    call.count = in.size();
    call.in = send.data();
    std::vector<std::byte> received(out.data.size(), kNaN);
    call.out = received.data();
    ASSIGN_OR_RETURN(Communicator * comm, CommOf(op.axes()));
    RETURN_IF_ERROR(comm->Issue({&call, 1}, Stream{}));
    if (gathers) {
      CopyBlocks(out.data.data(), out.shape, out.dtype, op.from().dim, n, received.data(), Direction::kFromBlocks);
    } else {
      out.data = std::move(received);
    }
    return absl::OkStatus();
  }

  const Graph& graph_;
  std::map<std::string, Tensor>& bindings_;
  const EvalOptions& options_;
  const KernelTable kernels_;
  std::vector<std::vector<Tensor>> values_;
  std::map<AxisSet, std::unique_ptr<Communicator>> comms_;
};

}  // namespace

absl::StatusOr<std::vector<std::vector<Tensor>>> Evaluate(const Graph& graph, std::map<std::string, Tensor>& bindings,
                                                          const EvalOptions& options) {
  Interpreter interpreter(graph, bindings, options);
  RETURN_IF_ERROR(interpreter.Close(interpreter.Run()));
  return interpreter.TakeValues();
}

}  // namespace strata::testing
