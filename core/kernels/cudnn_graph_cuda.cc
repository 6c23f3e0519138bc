#include "core/kernels/cudnn_graph.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {

CudnnTensor DenseTensor(const std::array<int64_t, 4>& dim, cudnnDataType_t type) {
  return {dim, {dim[1] * dim[2] * dim[3], dim[2] * dim[3], dim[3], 1}, type};
}

CudnnGraph::~CudnnGraph() {
  std::for_each(owned_.rbegin(), owned_.rend(), [&](Node d) { library_.DestroyDescriptor(d); });
}

CudnnGraph::Node CudnnGraph::Make(cudnnBackendDescriptorType_t type) {
  if (!status_.ok()) return nullptr;
  Node d = nullptr;
  status_ = library_.Check(library_.CreateDescriptor(type, &d), "cudnnBackendCreateDescriptor");
  if (status_.ok()) owned_.push_back(d);
  return d;
}

void CudnnGraph::Set(Node d, Name name, cudnnBackendAttributeType_t type, int64_t count, const void* values) {
  if (!status_.ok()) return;
  status_ = library_.Check(library_.SetAttribute(d, name, type, count, values), "cudnnBackendSetAttribute");
}

void CudnnGraph::Link(Node d, Name name, Node to) {
  if (to != nullptr) Set(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, to);
}

void CudnnGraph::Finish(Node d, const char* what) {
  if (status_.ok()) status_ = library_.Check(library_.Finalize(d), what);
}

CudnnGraph::Node CudnnGraph::AddTensor(int64_t uid, const CudnnTensor& t) {
  const Node d = Make(CUDNN_BACKEND_TENSOR_DESCRIPTOR);
  Set(d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, t.type);
  Set(d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, t.dim.data());
  Set(d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, t.stride.data());
  Set(d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, uid);
  Set(d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, int64_t{16});
  return d;
}

CudnnGraph::Node CudnnGraph::Operand(int64_t uid, const CudnnTensor& t) {
  const Node d = AddTensor(uid, t);
  Finish(d, "a tensor");
  return d;
}

CudnnGraph::Node CudnnGraph::Scalar(int64_t uid) {
  const Node d = AddTensor(uid, DenseTensor({1, 1, 1, 1}, CUDNN_DATA_FLOAT));
  Set(d, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, true);
  Finish(d, "a scalar");
  return d;
}

CudnnGraph::Node CudnnGraph::Virtual(const CudnnTensor& t) {
  const Node d = AddTensor(next_uid_++, t);
  Set(d, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, true);
  Finish(d, "a tensor between operations");
  return d;
}

CudnnGraph::Node CudnnGraph::MatMul(Node a, Node b, Node y) {
  const Node math = Make(CUDNN_BACKEND_MATMUL_DESCRIPTOR);
  Set(math, CUDNN_ATTR_MATMUL_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  Finish(math, "matmul");
  const Node d = Make(CUDNN_BACKEND_OPERATION_MATMUL_DESCRIPTOR);
  Link(d, CUDNN_ATTR_OPERATION_MATMUL_ADESC, a);
  Link(d, CUDNN_ATTR_OPERATION_MATMUL_BDESC, b);
  Link(d, CUDNN_ATTR_OPERATION_MATMUL_CDESC, y);
  Link(d, CUDNN_ATTR_OPERATION_MATMUL_DESC, math);
  Finish(d, "a matmul operation");
  operations_.push_back(d);
  return y;
}

CudnnGraph::Node CudnnGraph::AddPointwise(cudnnPointwiseMode_t mode, cudnnDataType_t type, int64_t axis, Node x, Node b,
                                          Node y, Node t) {
  const Node math = Make(CUDNN_BACKEND_POINTWISE_DESCRIPTOR);
  Set(math, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, mode);
  Set(math, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, type);
  if (mode == CUDNN_POINTWISE_GEN_INDEX) Set(math, CUDNN_ATTR_POINTWISE_AXIS, CUDNN_TYPE_INT64, axis);
  Finish(math, "pointwise");
  const Node d = Make(CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR);
  Link(d, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, math);
  Link(d, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, x);
  Link(d, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b);
  Link(d, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, y);
  Link(d, CUDNN_ATTR_OPERATION_POINTWISE_TDESC, t);
  Finish(d, "a pointwise operation");
  operations_.push_back(d);
  return y;
}

CudnnGraph::Node CudnnGraph::Pointwise(cudnnPointwiseMode_t mode, Node x, Node b, Node y, Node t) {
  if (mode == CUDNN_POINTWISE_CMP_GT) {
    status_.Update(absl::InvalidArgumentError("CMP_GT is wrong in cuDNN's attention: use CMP_GE of shifted indices"));
  }
  const bool compares = mode >= CUDNN_POINTWISE_CMP_EQ && mode <= CUDNN_POINTWISE_CMP_LE;
  return AddPointwise(mode, compares ? CUDNN_DATA_BOOLEAN : CUDNN_DATA_FLOAT, -1, x, b, y, t);
}

CudnnGraph::Node CudnnGraph::Index(int64_t axis, Node like, Node y) {
  return AddPointwise(CUDNN_POINTWISE_GEN_INDEX, CUDNN_DATA_FLOAT, axis, like, nullptr, y, nullptr);
}

CudnnGraph::Node CudnnGraph::Reduce(cudnnReduceTensorOp_t op, Node x, Node y) {
  const Node math = Make(CUDNN_BACKEND_REDUCTION_DESCRIPTOR);
  Set(math, CUDNN_ATTR_REDUCTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, CUDNN_DATA_FLOAT);
  Set(math, CUDNN_ATTR_REDUCTION_OPERATOR, CUDNN_TYPE_REDUCTION_OPERATOR_TYPE, op);
  Finish(math, "reduction");
  const Node d = Make(CUDNN_BACKEND_OPERATION_REDUCTION_DESCRIPTOR);
  Link(d, CUDNN_ATTR_OPERATION_REDUCTION_XDESC, x);
  Link(d, CUDNN_ATTR_OPERATION_REDUCTION_YDESC, y);
  Link(d, CUDNN_ATTR_OPERATION_REDUCTION_DESC, math);
  Finish(d, "a reduction operation");
  operations_.push_back(d);
  return y;
}

CudnnGraph::Node CudnnGraph::Reshape(Node x, Node y) {
  const Node d = Make(CUDNN_BACKEND_OPERATION_RESHAPE_DESCRIPTOR);
  Link(d, CUDNN_ATTR_OPERATION_RESHAPE_XDESC, x);
  Link(d, CUDNN_ATTR_OPERATION_RESHAPE_YDESC, y);
  Finish(d, "a reshape operation");
  operations_.push_back(d);
  return y;
}

// Without the handle, though it is marked deprecated, the heuristic finds no engine for the GPU at hand.
std::vector<CudnnGraph::Node> CudnnGraph::EngineConfigs(cudnnHandle_t handle, Node device) {
  const Node graph = Make(CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR);
  if (handle != nullptr) Set(graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, handle);
  Set(graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, static_cast<int64_t>(operations_.size()),
      operations_.data());
  Finish(graph, "an operation graph");
  const Node heuristic = Make(CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR);
  Link(heuristic, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph);
  Set(heuristic, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, CUDNN_HEUR_MODE_A);
  Link(heuristic, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, device);
  Finish(heuristic, "the heuristic");
  int64_t count = 0;
  const auto get = [&](int64_t room, Node* results) {
    if (!status_.ok()) return;
    status_ = library_.Check(library_.GetAttribute(heuristic, CUDNN_ATTR_ENGINEHEUR_RESULTS,
                                                   CUDNN_TYPE_BACKEND_DESCRIPTOR, room, &count, results),
                             "the heuristic's results");
  };
  get(0, nullptr);
  std::vector<Node> configs;
  for (int64_t i = 0; i < count; ++i) configs.push_back(Make(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR));
  get(count, configs.data());
  configs.resize(status_.ok() ? std::min(static_cast<int64_t>(configs.size()), count) : 0);
  return configs;
}

absl::StatusOr<int64_t> CudnnGraph::WorkspaceOf(Node d, Name name) const {
  int64_t count = 0, bytes = 0;
  RETURN_IF_ERROR(
      library_.Check(library_.GetAttribute(d, name, CUDNN_TYPE_INT64, 1, &count, &bytes), "a workspace's size"));
  return bytes;
}

absl::Status CudnnGraph::Build(cudnnHandle_t handle, int64_t max_workspace) {
  handle_ = handle;
  const std::vector<Node> configs = EngineConfigs(handle, nullptr);
  RETURN_IF_ERROR(status_);
  absl::Status why = absl::FailedPreconditionError("the heuristic proposes none");
  for (const Node config : configs) {
    const Node plan = Make(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR);
    Link(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config);
    RETURN_IF_ERROR(status_);
    if (absl::Status s = library_.Check(library_.Finalize(plan), "a plan"); !s.ok()) {
      why = absl::FailedPreconditionError(s.message());
      continue;
    }
    ASSIGN_OR_RETURN(const int64_t bytes, WorkspaceOf(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE));
    if (bytes <= max_workspace) {
      plans_.push_back(plan);
    } else {
      why = absl::ResourceExhaustedError(
          absl::StrFormat("an engine needs a workspace of %d bytes, the plan has %d", bytes, max_workspace));
    }
  }
  if (!plans_.empty()) return absl::OkStatus();
  return absl::Status(why.code(), absl::StrFormat("cuDNN has no engine for this graph: %s", why.message()));
}

absl::StatusOr<std::vector<int64_t>> CudnnGraph::EngineWorkspaces(const std::string& device_json) {
  const Node device = Make(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR);
  Set(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, static_cast<int64_t>(device_json.size()),
      device_json.c_str());
  Finish(device, "a device's properties");
  std::vector<int64_t> bytes;
  for (const Node config : EngineConfigs(nullptr, device)) {
    ASSIGN_OR_RETURN(bytes.emplace_back(), WorkspaceOf(config, CUDNN_ATTR_ENGINECFG_WORKSPACE_SIZE));
  }
  RETURN_IF_ERROR(status_);
  return bytes;
}

absl::Status CudnnGraph::Execute(std::span<const int64_t> uids, std::span<void* const> data, void* workspace) const {
  cudnnBackendDescriptor_t pack = nullptr;
  RETURN_IF_ERROR(
      library_.Check(library_.CreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack), "a variant pack"));
  const auto set = [&](Name name, cudnnBackendAttributeType_t type, size_t count, const void* values) {
    return library_.Check(library_.SetAttribute(pack, name, type, static_cast<int64_t>(count), values),
                          "a variant pack");
  };
  absl::Status s = set(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace);
  s.Update(set(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, data.size(), data.data()));
  s.Update(set(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, uids.size(), uids.data()));
  if (s.ok()) s = library_.Check(library_.Finalize(pack), "a variant pack");
  if (s.ok()) s = library_.Check(library_.Execute(handle_, plans_[in_use_], pack), "cudnnBackendExecute");
  library_.DestroyDescriptor(pack);
  return s;
}

}  // namespace strata
