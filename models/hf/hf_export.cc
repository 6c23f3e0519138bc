#include "models/hf/hf_export.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "checkpoint/safetensors_folder.h"
#include "core/base/status.h"
#include "models/hf/hf_model.h"

namespace strata {

absl::Status FillHfTensor(const HfTensor& tensor, StoredType type, ReadParameter read, std::span<std::byte> out) {
  const size_t parts = tensor.parameters.size(), part_bytes = out.size() / parts;
  if (!tensor.transposed) {  // parts lie one behind the other
    for (size_t i = 0; i < parts; ++i) {
      RETURN_IF_ERROR(read(tensor.parameters[i], type, out.subspan(i * part_bytes, part_bytes)));
    }
    return absl::OkStatus();
  }
  std::vector<std::byte> ours(out.size());  // [parts * rows, columns], as one matrix
  for (size_t i = 0; i < parts; ++i) {
    RETURN_IF_ERROR(read(tensor.parameters[i], type, std::span(ours).subspan(i * part_bytes, part_bytes)));
  }
  TransposeElements(ours, tensor.shape[1], tensor.shape[0], SizeOf(type), out);
  return absl::OkStatus();
}

HfLayout LayOutHf(const HfNames& names, const std::function<StoredType(const HfTensor&)>& type,
                  int64_t max_file_bytes) {
  std::vector<std::vector<StoredTensor>> files(1);
  int64_t bytes = 0, total = 0, elements = 0;
  for (const HfTensor& t : names.tensors()) {
    const StoredTensor stored{t.name, type(t), t.shape, 0};
    if (!files.back().empty() && bytes + stored.bytes() > max_file_bytes) {
      files.emplace_back();
      bytes = 0;
    }
    files.back().push_back(stored);
    bytes += stored.bytes();
    total += stored.bytes();
    elements += stored.shape.elements();
  }
  HfLayout layout;
  nlohmann::json map = nlohmann::json::object();
  for (size_t i = 0; i < files.size(); ++i) {
    HfLayout::File file{ShardName(static_cast<int>(i) + 1, static_cast<int>(files.size())), {}};
    for (const StoredTensor& t : files[i]) map[t.name] = file.name;
    LayOutSafetensors(files[i]);
    file.header = {std::move(files[i]), {{"format", "pt"}}};
    layout.files.push_back(std::move(file));
  }
  if (layout.files.size() > 1) {
    const nlohmann::json index = {{"metadata", {{"total_parameters", elements}, {"total_size", total}}},
                                  {"weight_map", std::move(map)}};
    layout.index = index.dump(2) + "\n";
  }
  return layout;
}

}  // namespace strata
