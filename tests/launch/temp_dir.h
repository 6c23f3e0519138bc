#pragma once
// A fresh folder that is removed with the object.

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>

namespace strata {

class TempDir {
 public:
  TempDir() : root_(::testing::TempDir() + "strata_XXXXXX") { EXPECT_NE(::mkdtemp(root_.data()), nullptr); }
  ~TempDir() { std::filesystem::remove_all(root_); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& root() const { return root_; }
  std::string path(const std::string& name) const { return root_ + "/" + name; }

 private:
  std::string root_;
};

}  // namespace strata
