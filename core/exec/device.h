#pragma once
// A device and its kernels. A back end is a Device and a KernelTable, both passed as values: no registry, no static
// constructors, no #ifdef.

#include <limits>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "core/tensor/tensor.h"

namespace strata {

class Op;
class ThreadPool;

enum class Tier : uint8_t { kDevice, kHost, kDisk };  // kDevice of a CPU rank is host memory
inline constexpr int kNumTiers = 3;
enum class Priority : uint8_t { kLow, kNormal, kHigh };  // whose work goes first where several streams have some
struct Stream {
  int16_t id = 0;
  void* native = nullptr;  // cudaStream_t
};
struct Event {
  int32_t id = 0;
  void* native = nullptr;
};
struct Captured {  // launches recorded once, to be replayed by one call: a CUDA graph
  void* native = nullptr;
};

// One per rank, called by that rank's issuing thread. cpu: one stream, calls complete before they return. cuda: the
// device is current on that thread, capture mode is thread-local, modules are loaded eagerly before the first collective.
class Device {
 public:
  virtual ~Device() = default;
  virtual absl::StatusOr<std::byte*> Reserve(Tier tier, int64_t bytes) = 0;  // before step 1 only; ResourceExhausted
  virtual absl::StatusOr<Stream> NewStream(const std::string& name, Priority priority) = 0;
  virtual absl::StatusOr<Event> NewEvent() = 0;
  virtual absl::Status Record(Event e, Stream s) = 0;
  virtual absl::Status Wait(Stream s, Event e) = 0;
  virtual absl::Status Copy(void* dst, const void* src, int64_t bytes, Stream s) = 0;  // 0 bytes: null will do
  virtual absl::Status Fill(void* dst, uint8_t byte, int64_t bytes, Stream s) = 0;     // poisoning, zeroing
  virtual absl::Status Drain() = 0;          // every stream idle; returns the first asynchronous error
  virtual absl::Status Drain(Stream s) = 0;  // this one idle
  virtual absl::Status Close() = 0;
  virtual bool host_addressable() const = 0;  // whether the host may read and write Tier::kDevice by address

  // An event that says when it was reached, and the seconds between two such, after Drain().
  virtual absl::StatusOr<Event> NewTimer() = 0;
  virtual absl::StatusOr<double> Seconds(Event from, Event to) = 0;

  // What is launched on the stream between Begin and End is recorded instead of run. All launches of a capture are on
  // `stream`, or ordered with it by events. Unimplemented where can_capture() is false.
  virtual bool can_capture() const { return false; }
  virtual absl::Status BeginCapture(Stream stream);
  virtual absl::StatusOr<Captured> EndCapture(Stream stream);
  virtual absl::Status Replay(Captured captured, Stream stream);
};

// What changes from step to step; its address does not, so it may be read inside a CUDA graph.
struct StepScalars {
  uint64_t seed = 0;
  uint64_t step = 1;  // 1 for the first update: AdamW's t
  double loss_scale = 1, lr = 0, clip_scale = 1;
  double loss_limit = std::numeric_limits<double>::infinity();  // of the summed loss: above it the update is skipped
  uint32_t skip_update = 0;
};

struct KernelArgs {  // nothing here outlives the call
  const Op& op;
  std::span<const TensorRef> in, out;  // an aliased output has its input's address
  bool overwrite;                      // first micro-batch: an accumulating kernel writes instead of adding
  std::span<std::byte> workspace;      // 256-byte aligned; contents undefined
  const StepScalars* scalars;          // on the kernel's own device
  uint64_t key;  // Node::key. Random number = Philox(seed, step, key; sample id, position, feature)
  Stream stream;
  ThreadPool* pool;  // CPU: fixed tiles, so a result never depends on the number of threads; may be null
  Device* device = nullptr;
};
struct Cost {
  double flops = 0, bytes = 0;
};
struct Kernel {
  absl::Status (*run)(const KernelArgs&) = nullptr;
  int64_t (*workspace)(const Op&,
                       std::span<const TensorRef> in) = nullptr;  // upper bound; null = none; data pointers are null
  Cost (*cost)(const Op&, std::span<const TensorRef> in, std::span<const TensorRef> out) = nullptr;
  bool deterministic = true;
  // Once for every step of a plan, before step 1, while the arena holds nothing: chooses algorithms, builds library plans.
  // May write all over `in`, `out` and `workspace`. Null: nothing to prepare.
  absl::Status (*prepare)(const KernelArgs&) = nullptr;
};

// By which an op's kernel is found: of the first input that holds floating-point numbers, be it halves of them; else of the first
// output.
inline DType KernelDType(std::span<const TensorRef> in, DType out) {
  for (const TensorRef& t : in) {
    if (IsFloating(t.dtype) || t.dtype == DType::kLow16) return t.dtype;
  }
  return out;
}

class KernelTable {
 public:
  void Add(std::string op, DType dtype, Kernel kernel);  // of KernelDType()
  bool Has(std::string_view op) const;  // in any dtype; ops without kernels are decomposed before sharding
  // Whether kernels run behind the thread that launches them, so that work on several streams overlaps.
  bool asynchronous() const { return asynchronous_; }
  void set_asynchronous() { asynchronous_ = true; }
  // With `deterministic` only of kernels that are. Errors: NotFound names op and dtype.
  absl::StatusOr<const Kernel*> Find(std::string_view op, DType dtype, bool deterministic = false) const;

 private:
  std::map<std::pair<std::string, DType>, std::vector<Kernel>> table_;
  bool asynchronous_ = false;
};
KernelTable CpuKernels();  // core/kernels/cpu_kernels.cc: one Add line an op
// core/kernels/table_cuda.cc; empty where Strata is built without CUDA. Needs no GPU: workspaces are known without one.
enum class Determinism : uint8_t { kFast, kBitExact };
KernelTable CudaKernels(Determinism determinism);

}  // namespace strata
