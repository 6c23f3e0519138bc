#include "core/exec/cuda_device.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "core/exec/cuda_context.h"
#include "core/exec/device_memory.h"
#include "core/kernels/attention_cudnn.h"
#include "core/kernels/cudnn_library.h"
#include "core/kernels/gemm_cuda.h"

namespace strata {

absl::Status CudaStatus(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrFormat("%s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(message) : absl::InternalError(message);
}

namespace {

#define RETURN_IF_CUDA(call) RETURN_IF_ERROR(CudaStatus(call, #call))

// Events that say when they were reached, destroyed with it.
struct Stopwatch {
  cudaEvent_t begin = nullptr, end = nullptr;

  Stopwatch() = default;
  ~Stopwatch() {
    for (cudaEvent_t e : {begin, end}) {
      if (e != nullptr) cudaEventDestroy(e);
    }
  }
  Stopwatch(const Stopwatch&) = delete;
  Stopwatch& operator=(const Stopwatch&) = delete;
};

double GiB(double bytes) { return bytes / 1073741824.0; }

class Gpu final : public CudaDevice {
 public:
  explicit Gpu(int index) { context_.index = index; }
  ~Gpu() override {
    context_.gemms.reset();
    context_.attention.reset();
    for (cudaGraphExec_t g : graphs_) cudaGraphExecDestroy(g);
    for (cudaEvent_t e : events_) cudaEventDestroy(e);
    for (cudaStream_t s : streams_) cudaStreamDestroy(s);
    for (void* p : device_) cudaFree(p);
    for (const auto& [p, free] : given_) free(p);
    for (void* p : host_) cudaFreeHost(p);
  }
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  absl::Status Init() {
    RETURN_IF_CUDA(cudaSetDevice(context_.index));
    RETURN_IF_CUDA(cudaGetDeviceProperties(&context_.properties, context_.index));
    const cudaDeviceProp& p = context_.properties;
    if (p.major < 8) {
      return absl::FailedPreconditionError(
          absl::StrFormat("GPU %d (%s) has compute capability %d.%d; Strata needs 8.0 or later", context_.index, p.name,
                          p.major, p.minor));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<std::byte*> Reserve(Tier tier, int64_t bytes) override {
    if (tier == Tier::kDisk) return absl::UnimplementedError("a GPU has no disk tier");
    void* p = nullptr;
    const size_t size = static_cast<size_t>(bytes > 0 ? bytes : 1);
    if (tier == Tier::kHost) {
      RETURN_IF_CUDA(cudaHostAlloc(&p, size, cudaHostAllocDefault));
      host_.push_back(p);
      std::fill_n(static_cast<std::byte*>(p), size, std::byte{0});
      return static_cast<std::byte*>(p);
    }
    if (memory_.allocate != nullptr) {
      ASSIGN_OR_RETURN(p, memory_.allocate(static_cast<int64_t>(size)));
      given_.emplace_back(p, memory_.free);
      return Zeroed(p, size);
    }
    const cudaError_t error = cudaMalloc(&p, size);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // not sticky
      size_t free = 0, total = 0;
      RETURN_IF_CUDA(cudaMemGetInfo(&free, &total));
      return absl::ResourceExhaustedError(
          absl::StrFormat("the plan needs %.2f GiB of GPU %d (%s), which has %.2f GiB free of %.2f GiB: `strata plan` "
                          "shows what takes it",
                          GiB(static_cast<double>(size)), context_.index, context_.properties.name,
                          GiB(static_cast<double>(free)), GiB(static_cast<double>(total))));
    }
    RETURN_IF_ERROR(CudaStatus(error, "cudaMalloc"));
    device_.push_back(p);
    return Zeroed(p, size);
  }
  void set_memory(DeviceMemory memory) { memory_ = std::move(memory); }

  absl::StatusOr<Stream> NewStream(const std::string&, Priority priority) override {
    int low = 0, high = 0;  // low is the larger number
    RETURN_IF_CUDA(cudaDeviceGetStreamPriorityRange(&low, &high));
    const int middle = (low + high) / 2;
    const int levels[] = {low, middle, high};
    cudaStream_t s = nullptr;
    RETURN_IF_CUDA(cudaStreamCreateWithPriority(&s, cudaStreamNonBlocking, levels[static_cast<int>(priority)]));
    streams_.push_back(s);
    return Stream{static_cast<int16_t>(streams_.size() - 1), s};
  }
  absl::StatusOr<Event> NewEvent() override { return MakeEvent(cudaEventDisableTiming); }
  absl::StatusOr<Event> NewTimer() override { return MakeEvent(cudaEventDefault); }
  absl::StatusOr<double> Seconds(Event from, Event to) override {
    float ms = 0;
    RETURN_IF_CUDA(
        cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(from.native), static_cast<cudaEvent_t>(to.native)));
    return static_cast<double>(ms) * 1e-3;
  }
  absl::Status Record(Event e, Stream s) override {
    return CudaStatus(cudaEventRecord(static_cast<cudaEvent_t>(e.native), Native(s)), "cudaEventRecord");
  }
  absl::Status Wait(Stream s, Event e) override {
    return CudaStatus(cudaStreamWaitEvent(Native(s), static_cast<cudaEvent_t>(e.native)), "cudaStreamWaitEvent");
  }
  absl::Status Copy(void* dst, const void* src, int64_t bytes, Stream s) override {
    return CudaStatus(cudaMemcpyAsync(dst, src, static_cast<size_t>(bytes), cudaMemcpyDefault, Native(s)),
                      "cudaMemcpyAsync");
  }
  absl::Status Fill(void* dst, uint8_t byte, int64_t bytes, Stream s) override {
    return CudaStatus(cudaMemsetAsync(dst, byte, static_cast<size_t>(bytes), Native(s)), "cudaMemsetAsync");
  }
  absl::Status Drain() override {
    for (cudaStream_t s : streams_) RETURN_IF_CUDA(cudaStreamSynchronize(s));
    return absl::OkStatus();
  }
  absl::Status Drain(Stream s) override {
    return CudaStatus(cudaStreamSynchronize(Native(s)), "cudaStreamSynchronize");
  }
  absl::Status Close() override { return Drain(); }
  bool host_addressable() const override { return false; }

  bool can_capture() const override { return true; }
  absl::Status BeginCapture(Stream s) override {
    return CudaStatus(cudaStreamBeginCapture(Native(s), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  }
  absl::StatusOr<Captured> EndCapture(Stream s) override {
    cudaGraph_t graph = nullptr;
    RETURN_IF_CUDA(cudaStreamEndCapture(Native(s), &graph));
    cudaGraphExec_t exec = nullptr;
    const cudaError_t error = cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphDestroy(graph);
    RETURN_IF_ERROR(CudaStatus(error, "cudaGraphInstantiate"));
    graphs_.push_back(exec);
    RETURN_IF_CUDA(cudaGraphUpload(exec, Native(s)));  // it takes memory here, not at its first launch
    return Captured{exec};
  }
  absl::Status Replay(Captured captured, Stream s) override {
    return CudaStatus(cudaGraphLaunch(static_cast<cudaGraphExec_t>(captured.native), Native(s)), "cudaGraphLaunch");
  }

  std::string kernel_choices() const override {
    return absl::StrCat(context_.attention == nullptr ? "" : context_.attention->Choices(),
                        context_.gemms == nullptr ? "" : context_.gemms->Choices());
  }
  std::string description() const override {
    const cudaDeviceProp& p = context_.properties;
    int runtime = 0;
    cudaRuntimeGetVersion(&runtime);
    const absl::StatusOr<CudnnLibrary> cudnn = CudnnLibrary::Open();  // without it attention is slow
    return absl::StrFormat("%s, %d SMs, %.1f GiB, CUDA %d.%d, %s", p.name, p.multiProcessorCount,
                           GiB(static_cast<double>(p.totalGlobalMem)), runtime / 1000, runtime % 1000 / 10,
                           cudnn.ok() ? "cuDNN " + CudnnVersionName(static_cast<int64_t>(cudnn->GetVersion()))
                                      : "no cuDNN: " + std::string(cudnn.status().message()));
  }
  std::string bus_id() const override {
    char id[32] = {};
    return cudaDeviceGetPCIBusId(id, sizeof(id), context_.index) == cudaSuccess ? id : "";
  }
  int64_t total_bytes() const override { return static_cast<int64_t>(context_.properties.totalGlobalMem); }
  int64_t used_bytes() const override {
    size_t free = 0, total = 0;
    return cudaMemGetInfo(&free, &total) == cudaSuccess ? static_cast<int64_t>(total - free) : 0;
  }
  CudaContext& context() override { return context_; }

 private:
  static absl::StatusOr<std::byte*> Zeroed(void* p, size_t size) {
    RETURN_IF_CUDA(cudaMemset(p, 0, size));
    RETURN_IF_CUDA(cudaDeviceSynchronize());
    return static_cast<std::byte*>(p);
  }
  absl::StatusOr<Event> MakeEvent(unsigned flags) {
    cudaEvent_t e = nullptr;
    RETURN_IF_CUDA(cudaEventCreateWithFlags(&e, flags));
    events_.push_back(e);
    return Event{static_cast<int32_t>(events_.size() - 1), e};
  }
  static cudaStream_t Native(Stream s) { return static_cast<cudaStream_t>(s.native); }

  CudaContext context_;
  std::vector<cudaStream_t> streams_;
  std::vector<cudaEvent_t> events_;
  std::vector<cudaGraphExec_t> graphs_;
  std::vector<void*> device_, host_;
  DeviceMemory memory_;
  std::vector<std::pair<void*, std::function<void(void*)>>> given_;  // memory, and how it goes back
};

// How many GPUs there are, or why none can be used.
absl::StatusOr<int> CountDevices() {
  int n = 0;
  const cudaError_t error = cudaGetDeviceCount(&n);
  if (error == cudaSuccess && n > 0) return n;
  cudaGetLastError();
  int driver = 0, runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  if (driver == 0) return absl::FailedPreconditionError("no NVIDIA driver is loaded on this machine");
  if (driver < runtime / 1000 * 1000) {
    return absl::FailedPreconditionError(
        absl::StrFormat("the NVIDIA driver supports CUDA %d.%d, this strata needs %d.%d", driver / 1000,
                        driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10));
  }
  return absl::FailedPreconditionError(absl::StrFormat("no GPU can be used: %s", cudaGetErrorString(error)));
}

}  // namespace

absl::StatusOr<double> SecondsOnStream(cudaStream_t stream, int runs, const std::function<absl::Status()>& launch) {
  Stopwatch watch;
  for (cudaEvent_t* e : {&watch.begin, &watch.end}) RETURN_IF_CUDA(cudaEventCreate(e));
  RETURN_IF_CUDA(cudaEventRecord(watch.begin, stream));
  for (int i = 0; i < runs; ++i) RETURN_IF_ERROR(launch());
  RETURN_IF_CUDA(cudaEventRecord(watch.end, stream));
  RETURN_IF_CUDA(cudaEventSynchronize(watch.end));
  float ms = 0;
  RETURN_IF_CUDA(cudaEventElapsedTime(&ms, watch.begin, watch.end));
  return static_cast<double>(ms) * 1e-3 / runs;
}

absl::StatusOr<std::unique_ptr<CudaDevice>> CudaDevice::Open(int index) {
  // Streams that share a hardware queue wait for each other: a receive could wait for a send behind it.
  setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 0);
  ASSIGN_OR_RETURN(const int n, CountDevices());
  if (index < 0 || index >= n) return absl::NotFoundError(absl::StrFormat("GPU %d: this machine shows %d", index, n));
  auto gpu = std::make_unique<Gpu>(index);
  RETURN_IF_ERROR(gpu->Init());
  return gpu;
}

void SetMemory(CudaDevice& device, DeviceMemory memory) { static_cast<Gpu&>(device).set_memory(std::move(memory)); }

int CudaDeviceCount() { return CountDevices().value_or(0); }

std::string CudaStatusLine() {
  const absl::StatusOr<std::unique_ptr<CudaDevice>> d = CudaDevice::Open(0);
  return d.ok() ? (*d)->description() : std::string(d.status().message());
}

}  // namespace strata
