#include "core/base/bytes.h"

#include <gtest/gtest.h>

namespace strata {
namespace {

TEST(Bytes, UnitsOfBothKinds) {
  EXPECT_EQ(*ParseBytes("16GiB"), int64_t{16} << 30);
  EXPECT_EQ(*ParseBytes("1.5 KiB"), 1536);
  EXPECT_EQ(*ParseBytes("80GB"), 80'000'000'000);
  EXPECT_EQ(*ParseBytes("2MB"), 2'000'000);
  EXPECT_EQ(*ParseBytes("7B"), 7);
  EXPECT_EQ(*ParseBytes("0.3B"), 0);
  EXPECT_EQ(*ParseBytes("4TiB"), int64_t{4} << 40);
}

TEST(Bytes, OthersAreRefused) {
  for (const char* text :
       {"", "GiB", "16", "16 gib", "-1GiB", "nanB", "1e3B", "16GiB ", "1e30TiB", "99999999TiB", "x"}) {
    EXPECT_EQ(ParseBytes(text).status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace strata
