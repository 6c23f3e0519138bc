#include "core/plan/shadow_memory.h"

#include <algorithm>

namespace strata {

std::string ShadowMemory::Write(int64_t begin, int64_t end, int64_t content, int stream, const Clock& now) {
  std::string error;
  memory_.Cover(begin, end, [&](Bytes& b) {
    if (!error.empty()) return;
    if (b.write_time > now[b.writer]) error = "overwrites bytes whose writer on another stream is not waited for";
    for (size_t s = 0; error.empty() && s < b.reads.size(); ++s) {
      if (b.reads[s] > now[s]) error = "overwrites bytes whose reader on another stream is not waited for";
    }
    if (!error.empty()) return;
    b = {.written = true,
         .content = content,
         .writer = stream,
         .write_time = now[stream],
         .reads = Clock(now.size(), 0)};
  });
  return error;
}

std::string ShadowMemory::Read(int64_t begin, int64_t end, int64_t content, int stream, const Clock& now) {
  std::string error;
  memory_.Cover(begin, end, [&](Bytes& b) {
    if (!error.empty()) return;
    if (!b.written) {
      error = "reads bytes that are not written, or were freed";
    } else if (content != kAny && b.content != content) {
      error = "reads a value that was overwritten by another";
    } else if (b.write_time > now[b.writer]) {
      error = "reads bytes whose writer on another stream is not waited for";
    } else {
      b.reads.resize(now.size(), 0);
      b.reads[stream] = std::max(b.reads[stream], now[stream]);
    }
  });
  return error;
}

void ShadowMemory::Forget(int64_t begin, int64_t end) {
  memory_.Cover(begin, end, [](Bytes& b) { b.written = false; });
}

}  // namespace strata
