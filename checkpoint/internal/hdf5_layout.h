#pragma once
// Lays out one HDF5 file; the only user of libhdf5. Thread-safe: Debian's library is not, so calls take turns.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/box.h"

namespace strata::internal {

// Creates `path` with one contiguous, early-allocated, unfilled dataset a box, called "name[0:4, 8:16]" (a scalar's is
// "name[]"), and returns the byte offset of each one's data. bf16 becomes a 16-bit float type of HDF5. The same boxes give
// the same bytes: no times are recorded. The file exists afterwards, closed, not synced; its data is whatever the file
// system gives. Errors: InvalidArgument for two boxes of one name and place, else Unavailable with HDF5's own text; so for a
// file that exists already.
absl::StatusOr<std::vector<int64_t>> LayOutHdf5(const std::string& path, std::span<const TensorBox* const> boxes);

}  // namespace strata::internal
