#pragma once
// Who wrote and read every byte of an arena: what VerifyPlans replays a plan on.

#include <cstdint>
#include <string>
#include <vector>

#include "core/plan/byte_ranges.h"

namespace strata {

// Logical time of a stream's last step, per stream (a vector clock).
using Clock = std::vector<int64_t>;

class ShadowMemory {
 public:
  // Each returns an empty string, or what is wrong. `now` is the clock of the accessing stream, `stream` its index.
  std::string Write(int64_t begin, int64_t end, int64_t content, int stream, const Clock& now);
  // content kAny: any value that was written.
  std::string Read(int64_t begin, int64_t end, int64_t content, int stream, const Clock& now);
  void Forget(int64_t begin, int64_t end);  // freed: must be written before it is read again; order is still checked

  static constexpr int64_t kAny = -1;

 private:
  struct Bytes {
    bool written = false;
    int64_t content = kAny;
    int writer = 0;  // stream
    int64_t write_time = 0;
    Clock reads;  // by stream
  };
  ByteRanges<Bytes> memory_;
};

}  // namespace strata
