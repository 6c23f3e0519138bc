#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "checkpoint/manifest.h"
#include "checkpoint/reader.h"
#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "tests/fuzz/memory_env.h"
#include "tests/fuzz/targets.h"

namespace strata::fuzz {
namespace {

constexpr int64_t kMaxBytes = 1 << 20;  // of a data file, and of a tensor that is read

// Opens with the CRC32C of the text in which its digits are zeros: {"crc32c":"00000000",
std::string WithChecksum(std::string text) {
  constexpr size_t kDigits = 11, kNumDigits = 8;
  if (text.size() < kDigits + kNumDigits) return text;
  text.replace(kDigits, kNumDigits, kNumDigits, '0');
  return text.replace(kDigits, kNumDigits, absl::StrFormat("%08x", Crc32c(std::as_bytes(std::span(text)))));
}

void ReadTensors(const std::string& text, const Manifest& manifest) {
  std::map<std::string, std::string> files = {{"c/manifest.json", text}};
  for (const FileRecord& file : manifest.files) {
    files.emplace("c/" + file.name, std::string(std::min(file.bytes, kMaxBytes), '\0'));
  }
  MemoryEnv env(std::move(files));
  absl::StatusOr<CheckpointReader> reader = CheckpointReader::Open(env, "c");
  STRATA_CHECK(reader.ok());
  for (const TensorRecord& tensor : reader->tensors()) {
    const int64_t bytes = tensor.global.elements() * SizeOf(tensor.dtype);
    if (bytes > kMaxBytes) continue;
    std::vector<std::byte> out(bytes, std::byte{1});
    Shape origin;
    origin.rank = tensor.global.rank;
    if (!reader->Read({tensor.name, tensor.dtype, tensor.global, origin, tensor.global}, out).ok()) continue;
    STRATA_CHECK(std::all_of(out.begin(), out.end(), [](std::byte b) { return b == std::byte{0}; }));
  }
}

}  // namespace

void ManifestText(std::string_view input) {
  ParseShardRecord(input).status().IgnoreError();
  const std::string text = WithChecksum(std::string(input));
  const absl::StatusOr<Manifest> manifest = ParseManifest(text);
  if (!manifest.ok()) return;
  STRATA_CHECK(Validate(*manifest).ok());
  const std::string printed = ToJson(*manifest);
  const absl::StatusOr<Manifest> again = ParseManifest(printed);
  STRATA_CHECK(again.ok() && ToJson(*again) == printed);
  ReadTensors(text, *manifest);
}

}  // namespace strata::fuzz
