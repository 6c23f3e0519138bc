#include "checkpoint/internal/hdf5_layout.h"

#include <hdf5.h>

#include <algorithm>
#include <array>
#include <mutex>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata::internal {
namespace {

class Handle {
 public:
  using Closer = herr_t (*)(hid_t);
  Handle(hid_t id, Closer closer) : id_(id), closer_(closer) {}
  Handle(Handle&& other) noexcept : id_(std::exchange(other.id_, -1)), closer_(other.closer_) {}
  ~Handle() {
    if (id_ >= 0) closer_(id_);
  }
  bool ok() const { return id_ >= 0; }
  hid_t get() const { return id_; }
  bool Close() { return closer_(std::exchange(id_, -1)) >= 0; }

 private:
  hid_t id_;
  Closer closer_;
};

// While it lives, HDF5 keeps its errors to itself.
class QuietErrors {
 public:
  QuietErrors() {
    H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
    H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
  }
  ~QuietErrors() { H5Eset_auto2(H5E_DEFAULT, function_, data_); }

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
};

// The innermost entry of HDF5's error stack: the cause.
absl::Status Hdf5Error(const std::string& path, const std::string& what) {
  std::string cause = "unknown cause";
  const auto first = [](unsigned n, const H5E_error2_t* error, void* text) -> herr_t {
    if (n == 0 && error->desc != nullptr) *static_cast<std::string*>(text) = error->desc;
    return 0;
  };
  H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, first, &cause);
  return absl::UnavailableError(absl::StrFormat("%s: HDF5: %s: %s", path, what, cause));
}

// bfloat16: sign, 8 bits of exponent with bias 127, 7 of mantissa.
hid_t MakeBF16() {
  Handle type(H5Tcopy(H5T_IEEE_F32LE), H5Tclose);
  if (!type.ok() || H5Tset_fields(type.get(), 15, 7, 8, 0, 7) < 0 || H5Tset_precision(type.get(), 16) < 0 ||
      H5Tset_size(type.get(), 2) < 0 || H5Tset_ebias(type.get(), 127) < 0) {
    return -1;
  }
  return H5Tcopy(type.get());
}

hid_t MakeType(DType dtype) {
  switch (dtype) {
    case DType::kF64: return H5Tcopy(H5T_IEEE_F64LE);
    case DType::kF32: return H5Tcopy(H5T_IEEE_F32LE);
    case DType::kBF16: return MakeBF16();
    case DType::kI64: return H5Tcopy(H5T_STD_I64LE);
    case DType::kI32: return H5Tcopy(H5T_STD_I32LE);
    case DType::kU8: return H5Tcopy(H5T_STD_U8LE);
    case DType::kLow16: return H5Tcopy(H5T_STD_U16LE);
  }
  return -1;
}

hid_t MakeSpace(const Shape& size) {
  if (size.rank == 0) return H5Screate(H5S_SCALAR);
  std::array<hsize_t, kMaxRank> dims;
  std::copy_n(size.dim, size.rank, dims.begin());
  return H5Screate_simple(size.rank, dims.data(), nullptr);
}

// Contiguous, allocated now, never filled, no time stamps.
Handle MakeDatasetProperties() {
  Handle properties(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  if (properties.ok() && (H5Pset_layout(properties.get(), H5D_CONTIGUOUS) < 0 ||
                          H5Pset_alloc_time(properties.get(), H5D_ALLOC_TIME_EARLY) < 0 ||
                          H5Pset_fill_time(properties.get(), H5D_FILL_TIME_NEVER) < 0 ||
                          H5Pset_obj_track_times(properties.get(), false) < 0)) {
    return Handle(-1, H5Pclose);
  }
  return properties;
}

absl::StatusOr<int64_t> AddDataset(const std::string& path, hid_t file, hid_t properties, const TensorBox& box) {
  const std::string name = box.name + BoxName(box.offset, box.size);
  const htri_t exists = H5Lexists(file, name.c_str(), H5P_DEFAULT);
  if (exists > 0) return absl::InvalidArgumentError(absl::StrFormat("%s is given twice", name));
  const Handle type(MakeType(box.dtype), H5Tclose), space(MakeSpace(box.size), H5Sclose);
  if (exists < 0 || !type.ok() || !space.ok()) return Hdf5Error(path, name);
  Handle dataset(H5Dcreate2(file, name.c_str(), type.get(), space.get(), H5P_DEFAULT, properties, H5P_DEFAULT),
                 H5Dclose);
  if (!dataset.ok()) return Hdf5Error(path, name);
  const haddr_t offset = H5Dget_offset(dataset.get());
  if (offset == HADDR_UNDEF || !dataset.Close()) return Hdf5Error(path, name);
  return static_cast<int64_t>(offset);
}

}  // namespace

absl::StatusOr<std::vector<int64_t>> LayOutHdf5(const std::string& path, std::span<const TensorBox* const> boxes) {
  static std::mutex mutex;  // the library's state is the process's
  const std::lock_guard lock(mutex);
  const QuietErrors quiet;
  const Handle properties = MakeDatasetProperties();
  Handle file(H5Fcreate(path.c_str(), H5F_ACC_EXCL, H5P_DEFAULT, H5P_DEFAULT), H5Fclose);
  if (!properties.ok() || !file.ok()) return Hdf5Error(path, "create");
  std::vector<int64_t> offsets;
  for (const TensorBox* box : boxes) {
    ASSIGN_OR_RETURN(const int64_t offset, AddDataset(path, file.get(), properties.get(), *box));
    offsets.push_back(offset);
  }
  if (!file.Close()) return Hdf5Error(path, "close");
  return offsets;
}

}  // namespace strata::internal
