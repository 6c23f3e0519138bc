#pragma once
// One cuDNN operation graph of 4-dimensional tensors and the plan made of it, through the backend interface. Errors are
// sticky: after one, calls do nothing and Build() returns it. Not thread-safe.

#include <array>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "core/kernels/cudnn_library.h"

namespace strata {

struct CudnnTensor {
  std::array<int64_t, 4> dim, stride;
  cudnnDataType_t type;
};
// Row-major.
CudnnTensor DenseTensor(const std::array<int64_t, 4>& dim, cudnnDataType_t type);

class CudnnGraph {
 public:
  using Node = cudnnBackendDescriptor_t;

  explicit CudnnGraph(const CudnnLibrary& library) : library_(library) {}
  ~CudnnGraph();
  CudnnGraph(const CudnnGraph&) = delete;
  CudnnGraph& operator=(const CudnnGraph&) = delete;

  Node Operand(int64_t uid, const CudnnTensor& t);  // `uid` names it in Execute()
  Node Scalar(int64_t uid);                         // a float32 in host memory, read when the plan is launched
  Node Virtual(const CudnnTensor& t);               // between operations; a kernel need not store it

  // Each returns its result y. Arithmetic in float32 (in bool for what yields one).
  Node MatMul(Node a, Node b, Node y);
  // y = mode(x, b); a select takes b where t is false. Errors: InvalidArgument for CMP_GT, with which attention on cuDNN 9.19
  // is wrong without a word: CMP_GE of shifted indices does the same.
  Node Pointwise(cudnnPointwiseMode_t mode, Node x, Node b, Node y, Node t = nullptr);
  Node Index(int64_t axis, Node like, Node y);  // y = its own index along `axis`
  Node Reduce(cudnnReduceTensorOp_t op, Node x, Node y);
  Node Reshape(Node x, Node y);  // y has x's elements under its own dims and strides

  // The plans of the engines that take the graph within `max_workspace` bytes, in the order of heuristic mode A; the first is in use.
  // `handle` must outlive this. Errors: FailedPrecondition where no engine takes it, ResourceExhausted where all need more.
  absl::Status Build(cudnnHandle_t handle, int64_t max_workspace);
  int num_plans() const { return static_cast<int>(plans_.size()); }
  void Use(int plan) { in_use_ = plan; }
  // The workspaces in bytes of the engines proposed for a GPU described as JSON: needs no GPU (but libcuda.so.1 in the process).
  absl::StatusOr<std::vector<int64_t>> EngineWorkspaces(const std::string& device_json);

  // After Build(): launches on the handle's stream.
  absl::Status Execute(std::span<const int64_t> uids, std::span<void* const> data, void* workspace) const;

 private:
  using Name = cudnnBackendAttributeName_t;
  Node Make(cudnnBackendDescriptorType_t type);
  void Set(Node d, Name name, cudnnBackendAttributeType_t type, int64_t count, const void* values);
  template <typename T>
  void Set(Node d, Name name, cudnnBackendAttributeType_t type, const T& value) {
    Set(d, name, type, 1, &value);
  }
  void Link(Node d, Name name, Node to);
  void Finish(Node d, const char* what);
  Node AddTensor(int64_t uid, const CudnnTensor& t);
  Node AddPointwise(cudnnPointwiseMode_t mode, cudnnDataType_t math, int64_t axis, Node x, Node b, Node y, Node t);
  std::vector<Node> EngineConfigs(cudnnHandle_t handle, Node device);
  absl::StatusOr<int64_t> WorkspaceOf(Node d, Name name) const;

  const CudnnLibrary library_;
  absl::Status status_;
  std::vector<Node> owned_, operations_;
  int64_t next_uid_ = 1000;  // of virtual tensors
  cudnnHandle_t handle_ = nullptr;
  std::vector<Node> plans_;
  int in_use_ = 0;
};

}  // namespace strata
