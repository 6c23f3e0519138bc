#include "checkpoint/catalog.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <tuple>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "checkpoint/internal/block_file.h"
#include "checkpoint/reader.h"
#include "core/base/status.h"

namespace strata {
namespace {

std::optional<CheckpointEntry> ParseEntry(const std::string& name) {
  constexpr std::string_view kPrefix = "step-";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  CheckpointEntry entry{0, name, false};
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + kPrefix.size(), end, entry.step);
  if (error != std::errc() || entry.step < 0) return std::nullopt;
  entry.committed = rest == end;
  if (!entry.committed && !std::string_view(rest, end).starts_with(".tmp-")) return std::nullopt;
  return entry;
}

// "; in it: a, b, c and 4 more"
std::string TensorsIn(const Manifest& manifest, int file, int64_t block) {
  std::vector<std::string> names;
  for (const TensorRecord& tensor : manifest.tensors) {
    const bool inside = std::any_of(tensor.boxes.begin(), tensor.boxes.end(), [&](const StoredBox& box) {
      return box.file == file && box.byte_offset < (block + 1) * kBlockBytes &&
             box.byte_offset + BytesOf(box, tensor.dtype) > block * kBlockBytes;
    });
    if (inside) names.push_back(tensor.name);
  }
  constexpr size_t kShown = 3;
  const size_t more = names.size() - std::min(names.size(), kShown);
  names.resize(names.size() - more);
  if (names.empty()) return "";
  return "; in it: " + absl::StrJoin(names, ", ") + (more > 0 ? absl::StrFormat(" and %d more", more) : "");
}

void VerifyFile(Env& env, const std::string& dir, const Manifest& manifest, int file,
                std::vector<std::string>& problems) {
  const auto blocks = internal::BlockFile::Open(env, dir, manifest.files[file]);
  if (!blocks.ok()) {
    problems.emplace_back(blocks.status().message());
    return;
  }
  std::vector<std::byte> block;
  for (int64_t i = 0; i < NumBlocks(manifest.files[file].bytes); ++i) {
    const absl::Status status = blocks->ReadBlock(i, block);
    if (!status.ok()) problems.push_back(std::string(status.message()) + TensorsIn(manifest, file, i));
  }
}

}  // namespace

std::string StepDirName(int64_t step) { return absl::StrFormat("step-%010d", step); }

absl::StatusOr<std::vector<CheckpointEntry>> ListCheckpoints(Env& env, const std::string& root) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, env.List(root));
  std::vector<CheckpointEntry> entries;
  for (const std::string& name : names) {
    if (auto entry = ParseEntry(name)) entries.push_back(*std::move(entry));
  }
  std::sort(entries.begin(), entries.end(), [](const CheckpointEntry& a, const CheckpointEntry& b) {
    return std::tie(b.step, b.committed, a.name) < std::tie(a.step, a.committed, b.name);
  });
  return entries;
}

std::vector<std::string> VerifyCheckpoint(Env& env, const std::string& dir) {
  const auto reader = CheckpointReader::Open(env, dir);
  if (!reader.ok()) return {std::string(reader.status().message())};
  std::vector<std::string> problems;
  for (size_t i = 0; i < reader->manifest().files.size(); ++i) {
    VerifyFile(env, dir, reader->manifest(), static_cast<int>(i), problems);
  }
  return problems;
}

absl::StatusOr<NewestValid> FindNewestValid(Env& env, const std::string& root) {
  ASSIGN_OR_RETURN(const std::vector<CheckpointEntry> entries, ListCheckpoints(env, root));
  NewestValid found;
  for (const CheckpointEntry& entry : entries) {
    found.path = root + "/" + entry.name;
    const std::vector<std::string> problems = VerifyCheckpoint(env, found.path);
    if (problems.empty()) return found;
    found.skipped.push_back(problems.size() == 1
                                ? problems.front()
                                : absl::StrFormat("%s (and %d more problems)", problems.front(), problems.size() - 1));
  }
  return absl::NotFoundError(absl::StrFormat("%s: no valid checkpoint%s%s", root, found.skipped.empty() ? "" : "; ",
                                             absl::StrJoin(found.skipped, "; ")));
}

}  // namespace strata
