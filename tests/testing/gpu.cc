#include "tests/testing/gpu.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/base/thread_pool.h"
#include "core/graph/builder.h"
#include "core/graph/op.h"
#include "core/plan/memory.h"

namespace strata::testing {
namespace {

constexpr int64_t kGuard = 256;
constexpr uint8_t kNaN = 0xFF, kFence = 0xA5;

class Staging {
 public:
  Staging(Device& device, Stream stream) : device_(device), stream_(stream) {}

  // A fenced range of `bytes`.
  absl::StatusOr<std::byte*> Make(int64_t bytes, uint8_t fill) {
    ASSIGN_OR_RETURN(std::byte* const p, device_.Reserve(Tier::kDevice, bytes + kGuard));
    RETURN_IF_ERROR(device_.Fill(p, fill, bytes, stream_));
    RETURN_IF_ERROR(device_.Fill(p + bytes, kFence, kGuard, stream_));
    fences_.push_back(p + bytes);
    return p;
  }

  absl::Status CheckFences() {
    std::vector<uint8_t> seen(kGuard);
    for (size_t i = 0; i < fences_.size(); ++i) {
      RETURN_IF_ERROR(device_.Copy(seen.data(), fences_[i], kGuard, stream_));
      RETURN_IF_ERROR(device_.Drain());
      for (uint8_t b : seen) {
        if (b != kFence) return absl::InternalError(absl::StrFormat("the kernel wrote past operand %d", i));
      }
    }
    return absl::OkStatus();
  }

 private:
  Device& device_;
  const Stream stream_;
  std::vector<std::byte*> fences_;
};

double Error(const Tensor& got, const Tensor& want) {
  double difference = 0, norm = 0;
  for (int64_t i = 0; i < want.size(); ++i) {
    const double a = got.at(i), b = want.at(i);
    if (!std::isfinite(a) || !std::isfinite(b)) {
      if (std::isnan(a) != std::isnan(b) || (!std::isnan(a) && a != b)) return INFINITY;
      continue;
    }
    difference += (a - b) * (a - b);
    norm += b * b;
  }
  return std::sqrt(norm > 0 ? difference / norm : difference);
}

}  // namespace

absl::Status RunOnDevice(Device& device, const Kernel& kernel, const KernelArgs& host) {
  ASSIGN_OR_RETURN(const Stream stream, device.NewStream("test", Priority::kNormal));
  Staging staging(device, stream);
  std::vector<TensorRef> in(host.in.begin(), host.in.end()), out(host.out.begin(), host.out.end());
  const auto upload = [&]() -> absl::Status {
    for (size_t i = 0; i < in.size(); ++i) {
      RETURN_IF_ERROR(device.Copy(in[i].data, host.in[i].data, in[i].bytes(), stream));
    }
    for (size_t i = 0; i < out.size(); ++i) {
      bool aliases = false;
      for (const TensorRef& t : in) aliases |= t.data == out[i].data;
      if (!aliases) RETURN_IF_ERROR(device.Fill(out[i].data, kNaN, out[i].bytes(), stream));
    }
    return absl::OkStatus();
  };
  int64_t in_bytes = 0;  // back to back, so that packed weights are adjacent
  for (const TensorRef& t : in) in_bytes += AlignUp(t.bytes());
  ASSIGN_OR_RETURN(std::byte * at, staging.Make(in_bytes, kNaN));
  for (TensorRef& t : in) {
    t.data = at;
    at += AlignUp(t.bytes());
  }
  for (TensorRef& t : out) {
    std::byte* data = nullptr;
    for (size_t i = 0; i < in.size(); ++i) {
      if (host.in[i].data == t.data) data = in[i].as<std::byte>();
    }
    if (data == nullptr) {
      ASSIGN_OR_RETURN(data, staging.Make(t.bytes(), kNaN));
    }
    t.data = data;
  }
  const int64_t workspace_bytes = static_cast<int64_t>(host.workspace.size());
  ASSIGN_OR_RETURN(std::byte* const workspace, staging.Make(workspace_bytes, kNaN));
  ASSIGN_OR_RETURN(std::byte* const scalars, staging.Make(sizeof(StepScalars), 0));
  RETURN_IF_ERROR(device.Copy(scalars, host.scalars, sizeof(StepScalars), stream));
  const KernelArgs args{host.op,
                        in,
                        out,
                        host.overwrite,
                        {workspace, static_cast<size_t>(workspace_bytes)},
                        reinterpret_cast<const StepScalars*>(scalars),
                        host.key,
                        stream,
                        nullptr,
                        &device};
  if (kernel.prepare != nullptr) RETURN_IF_ERROR(kernel.prepare(args));
  RETURN_IF_ERROR(upload());
  RETURN_IF_ERROR(kernel.run(args));
  for (size_t i = 0; i < out.size(); ++i) {
    RETURN_IF_ERROR(device.Copy(host.out[i].data, out[i].data, out[i].bytes(), stream));
  }
  RETURN_IF_ERROR(device.Drain());
  return staging.CheckFences();
}

absl::StatusOr<std::vector<double>> GpuErrors(const GraphFn& fn, const std::vector<Tensor>& inputs, DType dtype,
                                              const GpuOptions& options) {
  std::vector<Tensor> rounded, wide;
  for (const Tensor& x : inputs) {
    rounded.push_back(Converted(x, dtype));
    wide.push_back(Converted(rounded.back(), DType::kF64));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<CudaDevice> device, CudaDevice::Open(0));
  const KernelTable kernels = CudaKernels(options.determinism);
  ThreadPool pool(AvailableCores());  // time on a GPU is dear
  EvalOptions on_cpu{.overwrite = options.overwrite, .scalars = options.scalars, .pool = &pool}, on_gpu = on_cpu;
  on_gpu.in_place = options.in_place;
  on_gpu.kernels = &kernels;
  on_gpu.device = device.get();
  ASSIGN_OR_RETURN(const std::vector<Tensor> got, Call(fn, rounded, on_gpu));
  ASSIGN_OR_RETURN(const std::vector<Tensor> want, Call(fn, wide, on_cpu));
  std::vector<double> errors;
  for (size_t i = 0; i < got.size(); ++i) errors.push_back(Error(got[i], want[i]));
  return errors;
}

absl::StatusOr<std::vector<double>> GpuKernelErrors(const GraphFn& fn, const std::vector<Tensor>& inputs,
                                                    const EditOperands& edit, const GpuOptions& options) {
  GraphBuilder g;
  std::vector<Value> args;
  for (size_t i = 0; i < inputs.size(); ++i) {
    args.push_back(g.Input(absl::StrFormat("in%d", i), {inputs[i].dtype, inputs[i].shape, {}}));
  }
  fn(g, args);
  ASSIGN_OR_RETURN(const Graph graph, std::move(g).Build());
  const Node& node = graph.nodes.back();
  ASSIGN_OR_RETURN(const std::unique_ptr<CudaDevice> device, CudaDevice::Open(0));
  ThreadPool pool(AvailableCores());
  std::vector<std::vector<Tensor>> results;  // of the GPU, of the CPU
  for (const KernelTable& kernels : {CudaKernels(options.determinism), CpuKernels()}) {
    std::vector<Tensor> in = inputs, out;
    std::vector<TensorRef> in_refs, out_refs;
    for (Tensor& t : in) in_refs.push_back(t.ref());
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const int alias = node.op->Aliases(static_cast<int>(i));
      out.push_back(alias >= 0 ? in[alias] : Tensor::Zeros(node.outputs[i].dtype, node.outputs[i].shape));
    }
    for (size_t i = 0; i < out.size(); ++i) {
      out_refs.push_back(out[i].ref());
      if (const int alias = node.op->Aliases(static_cast<int>(i)); alias >= 0) in_refs[alias].data = out_refs[i].data;
    }
    if (edit) edit(in_refs, out_refs);
    ASSIGN_OR_RETURN(const Kernel* kernel, kernels.Find(node.op->name(), KernelDType(in_refs, out[0].dtype)));
    std::vector<std::byte> workspace(kernel->workspace == nullptr ? 0 : kernel->workspace(*node.op, in_refs));
    const KernelArgs call{*node.op, in_refs,  out_refs, options.overwrite, workspace, &options.scalars,
                          node.key, Stream{}, &pool};
    RETURN_IF_ERROR(results.empty() ? RunOnDevice(*device, *kernel, call) : kernel->run(call));
    results.push_back(std::move(out));
  }
  std::vector<double> errors;
  for (size_t i = 0; i < results[0].size(); ++i) errors.push_back(Error(results[0][i], results[1][i]));
  return errors;
}

void ExpectGpuClose(const GraphFn& fn, const std::vector<Tensor>& inputs, const GpuOptions& options, double slack) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    const auto errors = GpuErrors(fn, inputs, dtype, options);
    ASSERT_TRUE(errors.ok()) << Name(dtype) << " " << errors.status();
    for (size_t i = 0; i < errors->size(); ++i) {
      EXPECT_LE((*errors)[i], slack * GpuTolerance(dtype)) << Name(dtype) << ", output " << i;
    }
  }
}

}  // namespace strata::testing
