#pragma once
// A fresh folder that is removed with the object, and all that it holds.

#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>

#include "core/base/check.h"

namespace strata {

class TempDir {
 public:
  TempDir() : path_((std::filesystem::temp_directory_path() / "strata-XXXXXX").string()) {
    STRATA_CHECK(::mkdtemp(path_.data()) != nullptr);
  }
  ~TempDir() {
    std::error_code error;  // what cannot be removed stays
    std::filesystem::remove_all(path_, error);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  std::string path(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace strata
