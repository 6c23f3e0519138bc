#include "checkpoint/describe.h"

#include <vector>

#include "absl/strings/str_format.h"
#include "checkpoint/catalog.h"
#include "checkpoint/reader.h"
#include "core/base/status.h"

namespace strata {
namespace {

int64_t TotalBytes(const Manifest& manifest) {
  int64_t bytes = 0;
  for (const FileRecord& file : manifest.files) bytes += file.bytes;
  return bytes;
}

std::string DescribeEntry(Env& env, const std::string& root, const CheckpointEntry& entry, const std::string& latest) {
  if (!entry.committed) return absl::StrFormat("%-24s unfinished save\n", entry.name);
  const auto reader = CheckpointReader::Open(env, root + "/" + entry.name);
  if (!reader.ok()) return absl::StrFormat("%-24s DAMAGED: %s\n", entry.name, std::string(reader.status().message()));
  return absl::StrFormat("%-24s %9.1f MiB  %5d tensors  %4d files  %-16s next sample %d%s\n", entry.name,
                         TotalBytes(reader->manifest()) / 1048576.0, reader->tensors().size(),
                         reader->manifest().files.size(), reader->meta().mesh, reader->meta().next_sample,
                         entry.name + "\n" == latest ? "  (latest)" : "");
}

// Appends the findings on one checkpoint; false if there is a problem.
bool VerifyInto(Env& env, const std::string& dir, std::string& text) {
  const std::vector<std::string> problems = VerifyCheckpoint(env, dir);
  text += absl::StrFormat("%s: %s\n", dir, problems.empty() ? "ok" : absl::StrFormat("%d problems", problems.size()));
  for (const std::string& problem : problems) text += "  " + problem + "\n";
  return problems.empty();
}

}  // namespace

absl::StatusOr<std::string> DescribeCheckpoints(Env& env, const std::string& root) {
  ASSIGN_OR_RETURN(const std::vector<CheckpointEntry> entries, ListCheckpoints(env, root));
  if (entries.empty()) return absl::StrFormat("%s: no checkpoints\n", root);
  const std::string latest = ReadText(env, root + "/latest", 256).value_or("");
  std::string text;
  for (const CheckpointEntry& entry : entries) text += DescribeEntry(env, root, entry, latest);
  return text;
}

VerifyReport DescribeVerify(Env& env, const std::string& path) {
  VerifyReport report;
  const auto entries = ListCheckpoints(env, path);
  if (!entries.ok() || entries->empty()) {
    report.ok = VerifyInto(env, path, report.text);
    return report;
  }
  report.ok = true;
  int verified = 0;
  for (const CheckpointEntry& entry : *entries) {
    if (!entry.committed) continue;
    report.ok &= VerifyInto(env, path + "/" + entry.name, report.text);
    ++verified;
  }
  if (verified == 0) {
    report.ok = false;
    report.text = absl::StrFormat("%s: no committed checkpoint\n", path);
  }
  return report;
}

}  // namespace strata
