#include "launch/rendezvous/log_tail.h"

#include <algorithm>

namespace strata {
namespace {

constexpr int64_t kMaxRead = 1 << 20;       // of one call
constexpr int64_t kMaxLastBytes = 1 << 14;  // in which last lines are looked for

int64_t SizeOfFile(Env& env, const std::string& path) {
  const auto file = env.OpenReadable(path);
  return file.ok() ? (*file)->size() : 0;
}

}  // namespace

LogTail::LogTail(Env& env, std::string path) : env_(env), path_(std::move(path)) {
  begin_ = offset_ = SizeOfFile(env_, path_);
}

std::string LogTail::ReadFrom(int64_t offset, int64_t max_bytes) const {
  const auto file = env_.OpenReadable(path_);
  if (!file.ok() || (*file)->size() <= offset) return "";
  std::string text(static_cast<size_t>(std::min(max_bytes, (*file)->size() - offset)), '\0');
  if (!(*file)->ReadAt(offset, std::as_writable_bytes(std::span(text))).ok()) return "";
  return text;
}

std::string LogTail::Next() {
  std::string text = ReadFrom(offset_, kMaxRead);
  offset_ += static_cast<int64_t>(text.size());
  return text;
}

std::string LogTail::LastLines(int lines) const {
  const int64_t from = std::max(begin_, SizeOfFile(env_, path_) - kMaxLastBytes);
  std::string text = ReadFrom(from, kMaxLastBytes);
  while (!text.empty() && text.back() == '\n') text.pop_back();
  size_t at = text.size();
  for (int i = 0; i < lines && at != std::string::npos && at > 0; ++i) at = text.rfind('\n', at - 1);
  return at == std::string::npos || at == 0 ? text : text.substr(at + 1);
}

}  // namespace strata
