#pragma once
// Follows a log file that another process appends to.

#include <cstdint>
#include <string>

#include "core/base/env.h"

namespace strata {

class LogTail {
 public:
  // From the file's end as it is now.
  LogTail(Env& env, std::string path);

  const std::string& path() const { return path_; }
  std::string Next();                      // what was appended since the last call; empty where that cannot be read
  std::string LastLines(int lines) const;  // of what was appended since the beginning

 private:
  std::string ReadFrom(int64_t offset, int64_t max_bytes) const;

  Env& env_;
  const std::string path_;
  int64_t begin_ = 0, offset_ = 0;
};

}  // namespace strata
