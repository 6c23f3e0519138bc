#include "models/hf/hf_model.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"
#include "checkpoint/box.h"
#include "core/base/status.h"

namespace strata {
void TransposeElements(std::span<const std::byte> in, int64_t rows, int64_t columns, int64_t element_bytes,
                       std::span<std::byte> out) {
  constexpr int64_t kTile = 32;  // elements: what is read and what is written both stay in the cache
  for (int64_t r0 = 0; r0 < rows; r0 += kTile) {
    for (int64_t c0 = 0; c0 < columns; c0 += kTile) {
      for (int64_t r = r0; r < std::min(rows, r0 + kTile); ++r) {
        for (int64_t c = c0; c < std::min(columns, c0 + kTile); ++c) {
          std::memcpy(out.data() + (c * rows + r) * element_bytes, in.data() + (r * columns + c) * element_bytes,
                      static_cast<size_t>(element_bytes));
        }
      }
    }
  }
}

absl::StatusOr<HfModel> HfModel::Open(Env& env, const std::string& folder) {
  const std::string path = folder + "/" + kHfConfigName;
  ASSIGN_OR_RETURN(const std::string text, ReadText(env, path, kMaxHfConfig));
  absl::StatusOr<HfConfig> config = ParseHfConfig(text);
  if (!config.ok()) return Annotate(config.status(), path);
  ASSIGN_OR_RETURN(SafetensorsFolder tensors, SafetensorsFolder::Open(env, folder));
  absl::StatusOr<HfNames> names =
      HfNames::Make(config->model, [&](const std::string& name) { return tensors.Find(name) != nullptr; });
  if (!names.ok()) return Annotate(names.status(), folder);
  HfModel model(*std::move(config), *std::move(names), std::move(tensors));
  RETURN_IF_ERROR(Annotate(model.CheckTensors(), folder));
  RETURN_IF_ERROR(Annotate(model.CheckCopies(), folder));
  return model;
}

absl::Status HfModel::CheckTensors() {
  for (const StoredTensor* t : tensors_.tensors()) {
    const HfTensor* known = names_.Find(t->name);
    if (known == nullptr && HfNames::IsUnused(config().arch, t->name)) {
      unused_.push_back(t);
    } else if (known == nullptr) {
      return absl::InvalidArgumentError(absl::StrFormat("tensor \"%s\" is not one of model.arch = \"%s\"", t->name,
                                                        kModelArchNames[static_cast<size_t>(config().arch)]));
    } else if (known->shape != t->shape) {
      return absl::InvalidArgumentError(absl::StrFormat("tensor \"%s\" has shape %s, config.json says %s", t->name,
                                                        ToString(t->shape), ToString(known->shape)));
    } else if (!IsFloating(t->type)) {
      return absl::InvalidArgumentError(
          absl::StrFormat("tensor \"%s\" is of %s; F64, F32, BF16 and F16 are read", t->name, Name(t->type)));
    }
  }
  return absl::OkStatus();
}

// A tied tensor that the file holds twice must be the same twice.
absl::Status HfModel::CheckCopies() const {
  constexpr int64_t kPiece = int64_t{8} << 20;  // bytes at a time
  std::vector<std::byte> a, b;
  for (const HfTensor& copy : names_.tensors()) {
    if (!copy.copy) continue;
    const std::string& other = names_.PlaceOf(copy.parameters[0])->tensor;
    const StoredTensor &mine = *tensors_.Find(copy.name), &tied = *tensors_.Find(other);
    const auto differ = [&] {
      return absl::InvalidArgumentError(
          absl::StrFormat("tensor \"%s\" differs from \"%s\", to which config.json ties it", copy.name, other));
    };
    if (mine.type != tied.type) return differ();
    const int64_t row = mine.bytes() / mine.shape[0], rows = std::max<int64_t>(1, kPiece / row);
    for (int64_t r = 0; r < mine.shape[0]; r += rows) {
      Shape offset = OriginOf(mine.shape), size = mine.shape;
      offset[0] = r;
      size[0] = std::min(rows, mine.shape[0] - r);
      a.resize(static_cast<size_t>(size[0] * row));
      b.resize(a.size());
      RETURN_IF_ERROR(tensors_.Read(mine, offset, size, a));
      RETURN_IF_ERROR(tensors_.Read(tied, offset, size, b));
      if (a != b) return differ();
    }
  }
  return absl::OkStatus();
}

StoredType HfModel::TypeOf(std::string_view parameter) const {
  return tensors_.Find(names_.PlaceOf(parameter)->tensor)->type;
}

absl::Status HfModel::Read(std::string_view parameter, const Shape& offset, const Shape& size, StoredType to,
                           std::span<std::byte> out) const {
  const HfPlace* place = names_.PlaceOf(parameter);
  if (place == nullptr) return absl::NotFoundError(absl::StrFormat("no parameter \"%s\"", parameter));
  const StoredTensor& tensor = *tensors_.Find(place->tensor);
  Shape ours = tensor.shape;
  if (place->transposed) std::swap(ours[0], ours[1]);
  ours[0] /= place->parts;
  RETURN_IF_ERROR(Annotate(CheckBox(ours, offset, size), parameter));
  Shape from = offset, extent = size;
  from[0] += place->part * ours[0];
  if (place->transposed) {
    std::swap(from[0], from[1]);
    std::swap(extent[0], extent[1]);
  }
  std::vector<std::byte> bytes(static_cast<size_t>(size.elements() * SizeOf(tensor.type)));
  RETURN_IF_ERROR(tensors_.Read(tensor, from, extent, bytes));
  if (place->transposed) {
    std::vector<std::byte> turned(bytes.size());
    TransposeElements(bytes, extent[0], extent[1], SizeOf(tensor.type), turned);
    bytes = std::move(turned);
  }
  ConvertFloats(tensor.type, bytes, to, out);
  return absl::OkStatus();
}

}  // namespace strata
