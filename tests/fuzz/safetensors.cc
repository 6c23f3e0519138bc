#include <algorithm>
#include <string>
#include <vector>

#include "checkpoint/box.h"
#include "checkpoint/safetensors_folder.h"
#include "core/base/check.h"
#include "tests/fuzz/memory_env.h"
#include "tests/fuzz/targets.h"

namespace strata::fuzz {
namespace {

constexpr int64_t kMaxBytes = 1 << 20;  // of a file's tensors that are made up

std::string FileOf(std::string_view header, int64_t data_bytes) {
  std::string file;
  for (int i = 0; i < 8; ++i) file.push_back(static_cast<char>(header.size() >> (8 * i)));
  return file.append(header).append(static_cast<size_t>(data_bytes), '\0');
}

// Opens a model of one file; every tensor can be read whole, and its last element alone.
bool ReadAll(const std::string& file) {
  MemoryEnv env({{"m/model.safetensors", file}});
  const absl::StatusOr<SafetensorsFolder> folder = SafetensorsFolder::Open(env, "m");
  if (!folder.ok()) return false;
  for (const StoredTensor* t : folder->tensors()) {
    std::vector<std::byte> whole(static_cast<size_t>(t->bytes())), last(static_cast<size_t>(SizeOf(t->type)));
    STRATA_CHECK(folder->Read(*t, OriginOf(t->shape), t->shape, whole).ok());
    Shape offset = t->shape, one = t->shape;
    for (int d = 0; d < t->shape.rank; ++d) offset[d] -= 1, one[d] = 1;
    STRATA_CHECK(folder->Read(*t, offset, one, last).ok());
    STRATA_CHECK(std::equal(last.begin(), last.end(), whole.end() - std::ssize(last)));
  }
  return true;
}

}  // namespace

void SafetensorsBytes(std::string_view input) {
  ReadAll(std::string(input));
  ParseSafetensorsIndex(input).status().IgnoreError();
  const absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(input);
  if (!header.ok()) return;
  const std::string printed = PrintSafetensorsHeader(*header);
  const absl::StatusOr<SafetensorsHeader> again = ParseSafetensorsHeader(printed);
  STRATA_CHECK(again.ok() && PrintSafetensorsHeader(*again) == printed);
  STRATA_CHECK(again->data_bytes() == header->data_bytes() && again->tensors.size() == header->tensors.size());
  if (header->data_bytes() <= kMaxBytes) STRATA_CHECK(ReadAll(FileOf(input, header->data_bytes())));
}

}  // namespace strata::fuzz
