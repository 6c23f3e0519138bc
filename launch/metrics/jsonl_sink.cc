#include "launch/metrics/jsonl_sink.h"

#include <nlohmann/json.hpp>

#include "core/base/status.h"

namespace strata {
namespace {

using Json = nlohmann::ordered_json;

bool IsKept(std::string_view line, int64_t resumed_step) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return false;
  const auto step = json.find("step");
  return step != json.end() && step->is_number_integer() && step->get<int64_t>() <= resumed_step;
}

std::string KeptLines(std::string_view text, int64_t resumed_step) {
  std::string kept;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    if (end == std::string_view::npos) break;  // torn
    const std::string_view line = text.substr(0, end);
    if (IsKept(line, resumed_step)) kept.append(line).append("\n");
    text.remove_prefix(end + 1);
  }
  return kept;
}

}  // namespace

absl::StatusOr<std::unique_ptr<JsonlSink>> JsonlSink::Open(Env& env, const std::string& path, int64_t resumed_step) {
  std::string kept;
  if (resumed_step > 0 && env.Exists(path)) {
    ASSIGN_OR_RETURN(const std::string text, ReadText(env, path));
    kept = KeptLines(text, resumed_step);
  }
  RETURN_IF_ERROR(WriteTextAtomically(env, path, kept));
  ASSIGN_OR_RETURN(auto file, env.OpenWritable(path, Env::Open::kExisting));
  return std::unique_ptr<JsonlSink>(new JsonlSink(std::move(file), static_cast<int64_t>(kept.size())));
}

absl::Status JsonlSink::Write(std::span<const Metric> metrics) {
  Json json = Json::object();
  for (const Metric& metric : metrics) {
    std::visit([&](const auto& value) { json[std::string(metric.name)] = value; }, metric.value);
  }
  const std::string line = json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
  RETURN_IF_ERROR(file_->WriteAt(offset_, std::as_bytes(std::span(line))));
  offset_ += static_cast<int64_t>(line.size());
  return absl::OkStatus();
}

absl::Status JsonlSink::Close() { return file_->Close(); }

}  // namespace strata
