#include "core/plan/shadow_memory.h"

#include <algorithm>

namespace strata {

void ShadowMemory::SplitAt(int64_t address) {
  auto it = ranges_.upper_bound(address);
  if (it == ranges_.begin()) return;
  --it;
  if (it->first == address || it->second.end <= address) return;
  Range upper = it->second;
  it->second.end = address;
  ranges_[address] = std::move(upper);
}

std::vector<ShadowMemory::Range*> ShadowMemory::Cover(int64_t begin, int64_t end) {
  SplitAt(begin);
  SplitAt(end);
  std::vector<Range*> covered;
  int64_t at = begin;
  while (at < end) {
    auto it = ranges_.lower_bound(at);
    if (it == ranges_.end() || it->first > at) {
      const int64_t gap_end = it == ranges_.end() ? end : std::min(end, it->first);
      it = ranges_.emplace(at, Range{.end = gap_end}).first;
    }
    covered.push_back(&it->second);
    at = it->second.end;
  }
  return covered;
}

std::string ShadowMemory::Write(int64_t begin, int64_t end, int64_t content, int stream, const Clock& now) {
  for (Range* r : Cover(begin, end)) {
    if (r->write_time > now[r->writer]) return "overwrites bytes whose writer on another stream is not waited for";
    for (size_t s = 0; s < r->reads.size(); ++s) {
      if (r->reads[s] > now[s]) return "overwrites bytes whose reader on another stream is not waited for";
    }
    const int64_t e = r->end;
    *r = {.end = e,
          .written = true,
          .content = content,
          .writer = stream,
          .write_time = now[stream],
          .reads = Clock(now.size(), 0)};
  }
  return "";
}

std::string ShadowMemory::Read(int64_t begin, int64_t end, int64_t content, int stream, const Clock& now) {
  for (Range* r : Cover(begin, end)) {
    if (!r->written) return "reads bytes that are not written, or were freed";
    if (content != kAny && r->content != content) return "reads a value that was overwritten by another";
    if (r->write_time > now[r->writer]) return "reads bytes whose writer on another stream is not waited for";
    r->reads.resize(now.size(), 0);
    r->reads[stream] = std::max(r->reads[stream], now[stream]);
  }
  return "";
}

void ShadowMemory::Forget(int64_t begin, int64_t end) {
  for (Range* r : Cover(begin, end)) r->written = false;
}

}  // namespace strata
