#include "launch/data/jsonl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class JsonlInput : public ::testing::Test {
 protected:
  absl::StatusOr<std::vector<std::string>> Read(const std::string& text, const std::string& field = "text") {
    EXPECT_TRUE(WriteTextAtomically(Env::Posix(), path_, text).ok());
    return ReadJsonl(Env::Posix(), path_, field);
  }
  // The message without "PATH:".
  std::string Error(const std::string& text) {
    const auto texts = Read(text);
    EXPECT_EQ(texts.status().code(), absl::StatusCode::kInvalidArgument);
    const std::string message(texts.status().message());
    EXPECT_TRUE(message.starts_with(path_ + ":")) << message;
    return message.substr(std::min(message.size(), path_.size() + 1));
  }

  TempDir dir_;
  const std::string path_ = dir_.path("in.jsonl");
};

TEST_F(JsonlInput, ALineIsADocument) {
  EXPECT_THAT(
      *Read("{\"text\": \"one\\ntwo\", \"id\": 7}\n{\"text\":\"\"}\r\n{\"id\":[1,{}],\"text\":\"\\u00e9\xc3\xa9\"}"),
      ElementsAre("one\ntwo", "", "\xc3\xa9\xc3\xa9"));
  EXPECT_THAT(*Read("{\"body\":\"b\",\"text\":\"t\"}\n", "body"), ElementsAre("b"));
  EXPECT_TRUE(Read("")->empty());
}

TEST_F(JsonlInput, ErrorsNameTheLineAndWhatIsWrong) {
  const std::string good = "{\"text\":\"x\"}\n";
  EXPECT_EQ(Error(good + "{\"txt\":\"x\"}\n" + good), "2: no field \"text\"");
  EXPECT_EQ(Error(good + good + "{\"text\":3}"), "3: \"text\" is not a string: number");
  EXPECT_EQ(Error("{\"text\":null}"), "1: \"text\" is not a string: null");
  EXPECT_EQ(Error("[\"x\"]\n"), "1: not an object: array");
  EXPECT_EQ(Error(good + "\n" + good), "2: an empty line");
  EXPECT_EQ(Error(good + " \t\r\n"), "2: an empty line");
  EXPECT_EQ(Error(good + "{\"text\":\"a\xff\"}\n"), "2: column 11: invalid UTF-8");
  EXPECT_EQ(Error("{\"text\":\"\xed\xa0\x80\"}\n"), "1: column 11: invalid UTF-8");  // a surrogate
  EXPECT_THAT(Error(good + "{\"text\":\"x\""), HasSubstr("2: column 12: syntax error"));
  EXPECT_THAT(Error("{\"text\":\"x\"} {}\n"), HasSubstr("1: column 14: syntax error"));
  const std::string cut = Error("{\"text\":\"" + std::string(100000, 'x'));
  EXPECT_THAT(cut, HasSubstr("missing closing quote"));
  EXPECT_LT(cut.size(), 200u);
}

TEST_F(JsonlInput, DeepNestingIsNoProblem) {
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  EXPECT_THAT(*Read("{\"text\":\"x\",\"a\":" + deep + "}\n"), ElementsAre("x"));
  EXPECT_THAT(Error(std::string(100000, '[')), HasSubstr("1: column"));
}

TEST_F(JsonlInput, MissingFile) {
  EXPECT_EQ(ReadJsonl(Env::Posix(), dir_.path("none"), "text").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace strata
