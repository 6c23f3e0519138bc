#include "core/base/glob.h"

#include <gtest/gtest.h>

namespace strata {
namespace {

TEST(Glob, StarIsAnyText) {
  for (const auto& [pattern, text] :
       std::vector<std::pair<std::string, std::string>>{{"*", ""},
                                                        {"*", "a.b"},
                                                        {"a", "a"},
                                                        {"a*", "a"},
                                                        {"*norm*", "blocks.0.norm1"},
                                                        {"*.bias", "fc.bias"},
                                                        {"blocks.*.wq", "blocks.10.attn.wq"},
                                                        {"a*b*c", "axxbxbxc"},
                                                        {"*ab", "aab"},
                                                        {"", ""}}) {
    EXPECT_TRUE(GlobMatches(pattern, text)) << pattern << " " << text;
  }
  for (const auto& [pattern, text] : std::vector<std::pair<std::string, std::string>>{{"", "a"},
                                                                                      {"a", "ab"},
                                                                                      {"a", "ba"},
                                                                                      {"*norm", "norm1"},
                                                                                      {"*.bias", "bias"},
                                                                                      {"a*b*c", "axxc"},
                                                                                      {"blocks.*.wq", "blocks.wq"},
                                                                                      {"a.b", "axb"},
                                                                                      {"?", "a"}}) {
    EXPECT_FALSE(GlobMatches(pattern, text)) << pattern << " " << text;
  }
}

}  // namespace
}  // namespace strata
