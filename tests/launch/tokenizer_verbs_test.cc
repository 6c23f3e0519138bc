// The program itself with a tokenizer.json: data, a model with more rows than pieces, text from it.

#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/launch/tiny_tokenizer.h"
#include "tests/testing/strata_program.h"

namespace strata {
namespace {

constexpr char kConfig[] = R"([run]
out = "out"
[model]
vocab = 1024
layers = 1
dim = 16
heads = 2
kv_heads = 2
ffn = 24
seq = 16
[tokenizer]
path = "data"
[data]
train = "data/train"
valid = "data/valid"
[batch]
tokens = 128
micro = 2
[schedule]
steps = 4
warmup = 1
[eval]
every = 4
)";

class TokenizerVerbs : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string text;
    for (int i = 0; i < 300; ++i) absl::StrAppend(&text, "the other ", i % 37, i % 5 == 0 ? "\n\n" : " the\n");
    Write("text.txt", text);
    Write("hub/tokenizer.json", TinyTokenizerJson({{"t", "h"}, {"th", "e"}, {" ", "the"}}).dump());
    Write("hub/generation_config.json", R"({"eos_token_id": [1000, 10]})");
    Write("job.toml", kConfig);
  }

  std::string Path(const std::string& name) const { return dir_.path(name); }
  void Write(const std::string& name, const std::string& text) {
    ASSERT_TRUE(Env::Posix().MakeDirs(Path("hub")).ok());
    ASSERT_TRUE(WriteTextAtomically(Env::Posix(), Path(name), text).ok());
  }
  // What the program prints, with the exit code that is expected.
  static std::string Output(const std::string& arguments, int expected) {
    const testing::Ended e = testing::Strata(arguments);
    EXPECT_EQ(e.code, expected) << arguments << "\n" << e.out;
    return e.out;
  }
  static std::string Good(const std::string& arguments) { return Output(arguments, 0); }

  const TempDir dir_;
};

TEST_F(TokenizerVerbs, FromTextToText) {
  const std::string built =
      Good(absl::StrCat("data build --text ", Path("text.txt"), " --out ", Path("data"), " --tokenizer ", Path("hub")));
  EXPECT_NE(built.find("data/tokenizer.json: 1001 pieces"), std::string::npos) << built;
  EXPECT_NE(Good("data baselines --data " + Path("data")).find("unigram"), std::string::npos);
  Good("train " + Path("job.toml"));
  EXPECT_NE(Good("eval " + Path("job.toml")).find("perplexity"), std::string::npos);
  const std::string text = Good("generate " + Path("job.toml") + " --prompt the --tokens 20 --seed 3");
  EXPECT_TRUE(text.starts_with("the"));
  EXPECT_GT(text.size(), 5u);
  EXPECT_EQ(text.find('\n'), text.size() - 1) << text;  // 10, the newline, ends it

  const std::string small = Output("train " + Path("job.toml") + " --set model.vocab=512", 64);
  EXPECT_NE(small.find("1001 pieces"), std::string::npos) << small;
}

TEST_F(TokenizerVerbs, EncodeDecodeVerify) {
  const std::string with = " --tokenizer " + Path("hub");
  EXPECT_EQ(Good("tokenizer encode" + with + " 'the the'"), "257 258\n");
  EXPECT_EQ(Good("tokenizer encode --pieces" + with + " 'the the'"), "    257  \"the\"\n    258  \" the\"\n");
  EXPECT_EQ(Good("tokenizer decode" + with + " 257 1000"), "the<|endoftext|>\n");
  Write("ids.jsonl", "{\"text\": \"the\", \"ids\": [257]}\n{\"text\": \"th\", \"ids\": [1]}\n");
  const std::string verify = "tokenizer verify" + with + " --text " + Path("text.txt");
  EXPECT_NE(Good(verify).find("comes back byte for byte"), std::string::npos);
  const std::string differs = Output(verify + " --reference " + Path("ids.jsonl"), 1);
  EXPECT_NE(differs.find("ids.jsonl:2: token 0 is 256 \"th\", expected 1 \"\\x01\""), std::string::npos) << differs;
  Write("hub/tokenizer.json", absl::StrReplaceAll(TinyTokenizerJson({}).dump(), {{"\"BPE\"", "\"WordPiece\""}}));
  EXPECT_NE(Output("tokenizer encode" + with + " the", 64).find("model.type = \"WordPiece\""), std::string::npos);
}

}  // namespace
}  // namespace strata
