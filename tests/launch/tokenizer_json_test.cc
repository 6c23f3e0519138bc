#include "launch/tokenizer/tokenizer_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "launch/data/build.h"
#include "launch/data/indexed_dataset.h"
#include "launch/data/inspect.h"
#include "launch/tokenizer/pieces.h"
#include "launch/tokenizer/verify.h"
#include "tests/launch/tiny_tokenizer.h"

namespace strata {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int32_t kTh = 256, kThe = 257, kSpaceThe = 258;

json Tiny() { return TinyTokenizerJson({{"t", "h"}, {"th", "e"}, {" ", "the"}}); }

json AddedToken(int id, const std::string& content, json more = json::object()) {
  more.update({{"id", id}, {"content", content}});
  return more;
}

std::vector<int32_t> Encode(const json& j, std::string_view text) {
  const absl::StatusOr<Tokenizer> tokenizer = LoadTiny(j);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *tokenizer->Encode(text) : std::vector<int32_t>{};
}

std::string Error(const json& j) { return std::string(LoadTiny(j).status().message()); }

TEST(TokenizerJsonTest, EncodesAndDecodes) {
  const absl::StatusOr<Tokenizer> tokenizer = LoadTiny(Tiny());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->file_name(), "tokenizer.json");
  EXPECT_EQ(tokenizer->vocab_size(), kTinyEos + 1);
  EXPECT_EQ(tokenizer->eos_id(), kTinyEos);
  EXPECT_THAT(*tokenizer->Encode("the the<|endoftext|>"), ElementsAre(kThe, kSpaceThe, kTinyEos));
  const std::vector<int32_t> ids = {kSpaceThe, 999, -1, 5000, kTinyEos, kTh};
  EXPECT_EQ(tokenizer->Decode(ids), " theth");
  EXPECT_EQ(tokenizer->Decode(ids, SpecialText::kWrite), " the<|endoftext|>th");
}

TEST(TokenizerJsonTest, AnyBytesSurvive) {
  const absl::StatusOr<Tokenizer> tokenizer = LoadTiny(Tiny());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  for (const std::string& text : {all, std::string("the \xff\xfe the \xe2\x96"), std::string("\xed\xa0\x80\xc0\xaf")}) {
    EXPECT_EQ(tokenizer->Decode(*tokenizer->Encode(text)), text);
  }
  EXPECT_THAT(*tokenizer->Encode("the\xff"), ElementsAre(kThe, 0xff));  // ids of bytes are the bytes here
}

TEST(TokenizerJsonTest, BothFormsOfMerges) {
  json strings = Tiny();
  for (json& merge : strings["model"]["merges"]) {
    merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  }
  EXPECT_EQ(Encode(strings, "the the th"), Encode(Tiny(), "the the th"));
}

TEST(TokenizerJsonTest, IgnoreMerges) {
  json j = Tiny();
  j["model"]["vocab"]["abc"] = 300;
  EXPECT_THAT(Encode(j, "abc"), ElementsAre('a', 'b', 'c'));
  j["model"]["ignore_merges"] = true;
  EXPECT_THAT(Encode(j, "abc"), ElementsAre(300));
}

TEST(TokenizerJsonTest, PrefixSpace) {
  json j = Tiny();
  j["pre_tokenizer"]["add_prefix_space"] = true;
  EXPECT_THAT(Encode(j, "the<|endoftext|>the the"), ElementsAre(kSpaceThe, kTinyEos, kSpaceThe, kSpaceThe));
}

TEST(TokenizerJsonTest, NormalizesBetweenTokens) {
  json j = Tiny();
  j["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFD"}}, {{"type", "NFC"}}}}};
  j["added_tokens"].push_back(AddedToken(1001, "e\u0301", {{"normalized", false}}));
  j["added_tokens"].push_back(AddedToken(1002, "n\u0303", {{"normalized", true}}));
  EXPECT_THAT(Encode(j, "e\u0301"), ElementsAre(1001));
  EXPECT_THAT(Encode(j, "\u00e9"), ElementsAre(0xc3, 0xa9));
  EXPECT_THAT(Encode(j, "a\u0301"), ElementsAre(0xc3, 0xa1));
  EXPECT_THAT(Encode(j, "\u00f1"), ElementsAre(1002));  // found in its normalized form, whatever the text has
  EXPECT_THAT(Encode(j, "n\u0303"), ElementsAre(1002));
}

TEST(TokenizerJsonTest, AddedTokens) {
  json j = Tiny();
  j["added_tokens"].push_back(AddedToken(1001, "<a>", {{"lstrip", true}, {"rstrip", true}}));
  j["added_tokens"].push_back(AddedToken(1002, "<a><b>"));
  j["added_tokens"].push_back(AddedToken(1003, "tha", {{"single_word", true}, {"special", true}}));
  EXPECT_THAT(Encode(j, "x \u3000<a>\n y"), ElementsAre('x', 1001, 'y'));
  EXPECT_THAT(Encode(j, "<a><b><a><c"), ElementsAre(1002, 1001, '<', 'c'));  // the longest
  EXPECT_THAT(Encode(j, "tha-tha"), ElementsAre(1003, '-', 1003));
  EXPECT_THAT(Encode(j, "batha tha\u00e9"), ElementsAre('b', 'a', kTh, 'a', ' ', kTh, 'a', 0xc3, 0xa9));
}

TEST(TokenizerJsonTest, TemplateIsPutAroundOnce) {
  json j = Tiny();
  j["added_tokens"].push_back(AddedToken(1001, "<bos>", {{"special", true}}));
  j["post_processor"] = json::parse(R"({"type": "Sequence", "processors": [{"type": "ByteLevel"}, {
      "type": "TemplateProcessing", "pair": [], "special_tokens": {"<bos>": {"id": "<bos>", "ids": [1001], "tokens": ["<bos>"]}},
      "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]}]})");
  const absl::StatusOr<Tokenizer> tokenizer = LoadTiny(j);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(*tokenizer->Encode("the"), ElementsAre(kThe));
  EXPECT_THAT(*tokenizer->EncodePrompt("the"), ElementsAre(1001, kThe));
  EXPECT_THAT(*tokenizer->EncodePrompt("<bos>the"), ElementsAre(1001, kThe));
  EXPECT_THAT(*tokenizer->EncodeDocument("the"), ElementsAre(1001, kThe, kTinyEos));
  EXPECT_THAT(*tokenizer->EncodeDocument("the<|endoftext|>"), ElementsAre(1001, kThe, kTinyEos));

  j["post_processor"] = {{"type", "RobertaProcessing"}, {"cls", {"<bos>", 1001}}, {"sep", {"<|endoftext|>", kTinyEos}}};
  EXPECT_THAT(*LoadTiny(j)->EncodeDocument("the"), ElementsAre(1001, kThe, kTinyEos));
}

TEST(TokenizerJsonTest, LlamaLikePreTokenizer) {
  json j = Tiny();
  j["pre_tokenizer"] = json::parse(R"({"type": "Sequence", "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}|\\s+(?!\\S)|\\s?\\p{L}+"}, "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "use_regex": false}]})");
  EXPECT_THAT(Encode(j, "the the"), ElementsAre(kThe, kSpaceThe));
  j["pre_tokenizer"]["pretokenizers"][0] = {{"type", "Digits"}, {"individual_digits", true}};
  EXPECT_THAT(Encode(j, "the the"), ElementsAre(kThe, kSpaceThe));
}

TEST(TokenizerJsonTest, UnsupportedIsRefusedWithItsPlace) {
  const auto with = [](const std::string& pointer, const json& value) {
    json j = Tiny();
    j[json::json_pointer(pointer)] = value;
    return Error(j);
  };
  EXPECT_THAT(with("/model/type", "Unigram"), HasSubstr("tokenizer.json: model.type = \"Unigram\": expected \"BPE\""));
  EXPECT_THAT(with("/model/dropout", 0.1), HasSubstr("model.dropout = 0.1: expected null"));
  EXPECT_THAT(with("/model/end_of_word_suffix", "</w>"), HasSubstr("model.end_of_word_suffix = \"</w>\""));
  EXPECT_THAT(with("/model/continuing_subword_prefix", "##"), HasSubstr("model.continuing_subword_prefix = \"##\""));
  EXPECT_THAT(with("/model/unk_token", "<unk>"), HasSubstr("model.unk_token = \"<unk>\": expected a piece"));
  EXPECT_THAT(with("/model/surprise", 1), HasSubstr("unknown key model.surprise = 1"));
  EXPECT_THAT(with("/surprise", json::object()), HasSubstr("unknown key surprise = an object of 0 keys"));
  EXPECT_THAT(with("/version", "2.0"), HasSubstr("version = \"2.0\": expected \"1.0\""));
  EXPECT_THAT(with("/model/vocab", json::array()), HasSubstr("model.vocab = an array of 0: expected an object"));
  EXPECT_THAT(with("/model/vocab/a", 66), HasSubstr(": expected an id of its own"));
  EXPECT_THAT(with("/model/vocab/a", -1), HasSubstr("model.vocab[\"a\"] = -1: expected an id from 0 to"));
  EXPECT_THAT(with("/model/vocab/a", 1 << 23), HasSubstr("model.vocab[\"a\"] = 8388608: expected an id from 0 to"));
  EXPECT_THAT(with("/model/merges/1", "t"), HasSubstr("model.merges[1] = \"t\": expected \"left right\""));
  EXPECT_THAT(with("/model/merges/1", json::array({"t", "x"})),
              HasSubstr("model.merges[1] = an array of 2: expected pieces"));
  EXPECT_THAT(with("/added_tokens/0/id", 3),
              HasSubstr("added_tokens[0].id = 3: expected the id of its piece, or a free"));
  EXPECT_THAT(with("/added_tokens/0/special", "yes"),
              HasSubstr("added_tokens[0].special = \"yes\": expected true or false"));
  EXPECT_THAT(with("/normalizer", {{"type", "Lowercase"}}),
              HasSubstr("normalizer.type = \"Lowercase\": expected NFC or"));
  EXPECT_THAT(with("/pre_tokenizer/type", "Metaspace"),
              HasSubstr("pre_tokenizer.type = \"Metaspace\": expected ByteLevel"));
  EXPECT_THAT(with("/pre_tokenizer", {{"type", "Digits"}}), HasSubstr("expected ByteLevel as its last step"));
  EXPECT_THAT(with("/pre_tokenizer",
                   {{"type", "Sequence"}, {"pretokenizers", {Tiny()["pre_tokenizer"], {{"type", "Digits"}}}}}),
              HasSubstr("pre_tokenizer.pretokenizers[1] = an object of 1 keys: expected nothing behind ByteLevel"));
  EXPECT_THAT(with("/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"Regex", "(a"}}}, {"behavior", "Isolated"}}),
              HasSubstr("pre_tokenizer.pattern.Regex: byte 2 of \"(a\": missing closing parenthesis"));
  EXPECT_THAT(with("/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"String", "a"}}}, {"behavior", "Shuffled"}}),
              HasSubstr("pre_tokenizer.behavior = \"Shuffled\": expected Removed, Isolated"));
  EXPECT_THAT(with("/post_processor", {{"type", "BertProcessing"}}),
              HasSubstr("post_processor.type = \"BertProcessing\""));
  EXPECT_THAT(with("/decoder", {{"type", "WordPiece"}}), HasSubstr("decoder.type = \"WordPiece\": expected ByteLevel"));
  EXPECT_THAT(with("/decoder", nullptr), HasSubstr("decoder.type = null: expected a string"));
  json incomplete = Tiny();
  incomplete["model"]["vocab"].erase("a");
  incomplete["model"]["byte_fallback"] = true;
  EXPECT_THAT(Error(incomplete), HasSubstr("model.byte_fallback = true: expected false"));
}

TEST(TokenizerJsonTest, DamagedFilesAreRefused) {
  EXPECT_THAT(std::string(ParseTokenizerJson("{\"version\": ").status().message()), HasSubstr("parse error at line 1"));
  EXPECT_THAT(std::string(ParseTokenizerJson(std::string(100, '[')).status().message()), HasSubstr("nested 100 deep"));
  EXPECT_FALSE(ParseTokenizerJson("").ok());
  EXPECT_FALSE(ParseTokenizerJson("[]").ok());
  EXPECT_FALSE(ParseTokenizerJson("{}").ok());
  EXPECT_FALSE(ParseTokenizerJson("{\"model\": 5}").ok());
}

class TokenizerFilesTest : public ::testing::Test {
 protected:
  void Put(const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteTextAtomically(env_, dir_.path(name), text).ok());
  }
  absl::StatusOr<Tokenizer> Load() { return Tokenizer::Load(env_, dir_.path()); }
  std::string LoadError() { return std::string(Load().status().message()); }

  Env& env_ = Env::Posix();
  TempDir dir_;
};

TEST_F(TokenizerFilesTest, WhatEndsATextIsReadBesideIt) {
  json j = Tiny();
  j["added_tokens"].push_back(AddedToken(1001, "<end>", {{"special", true}}));
  Put("tokenizer.json", j.dump());
  EXPECT_EQ(Load()->eos_id(), kTinyEos);  // by its usual name
  Put("generation_config.json", R"({"eos_token_id": [1001, 7], "temperature": 1})");
  EXPECT_EQ(Load()->eos_id(), 1001);
  EXPECT_TRUE(Load()->Stops(7) && Load()->Stops(1001) && !Load()->Stops(kTinyEos) && !Load()->Stops(-1));
  Put("tokenizer_config.json", R"({"eos_token": {"content": "<|endoftext|>"}, "bos_token": "<end>"})");
  EXPECT_EQ(Load()->eos_id(), kTinyEos);
  EXPECT_EQ(Load()->bos_id(), 1001);
  EXPECT_TRUE(Load()->Stops(7) && Load()->Stops(1001) && Load()->Stops(kTinyEos));

  Put("tokenizer_config.json", R"({"eos_token": "<none>"})");
  EXPECT_THAT(LoadError(), HasSubstr("tokenizer_config.json: eos_token = \"<none>\" is none of"));
  Put("tokenizer_config.json", R"({"eos_token": 5})");
  EXPECT_THAT(LoadError(), HasSubstr("tokenizer_config.json: eos_token = 5: expected a string"));
  Put("tokenizer_config.json", "{");
  EXPECT_THAT(LoadError(), HasSubstr("tokenizer_config.json: parse error"));
  Put("tokenizer_config.json", "{}");
  Put("generation_config.json", R"({"eos_token_id": 5000})");
  EXPECT_THAT(LoadError(), HasSubstr("generation_config.json: eos_token_id = 5000"));
}

TEST_F(TokenizerFilesTest, NoEosIsAnErrorOnlyWhereItIsNeeded) {
  json j = Tiny();
  j["added_tokens"] = json::array();
  Put("tokenizer.json", j.dump());
  const absl::StatusOr<Tokenizer> tokenizer = Load();
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ(tokenizer->eos_id(), -1);
  EXPECT_FALSE(tokenizer->Stops(-1));
  EXPECT_TRUE(tokenizer->EncodePrompt("the").ok());
  EXPECT_EQ(tokenizer->EncodeDocument("the").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(TokenizerFilesTest, DatasetHasItsTokenizer) {
  Put("tokenizer.json", Tiny().dump());
  Put("tokenizer_config.json", R"({"eos_token": "<|endoftext|>"})");
  Put("text.txt", "the first the\n\nthe last the\n");
  BuildOptions options{
      .inputs = {dir_.path("text.txt")}, .out = dir_.path("out"), .tokenizer = dir_.path(), .valid_fraction = 0.5};
  const absl::StatusOr<BuildReport> report = BuildDataset(env_, options);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_THAT(*env_.List(dir_.path("out")),
              ElementsAre("tokenizer.json", "tokenizer_config.json", "train.bin", "train.idx", "train.sum", "valid.bin",
                          "valid.idx", "valid.sum"));
  EXPECT_EQ(report->tokenizer_path, dir_.path("out/tokenizer.json"));
  const absl::StatusOr<IndexedDataset> valid = IndexedDataset::Open(env_, report->valid_prefix);
  ASSERT_TRUE(valid.ok()) << valid.status();
  std::vector<int32_t> ids(valid->num_tokens());
  ASSERT_TRUE(valid->Read(0, ids).ok());
  EXPECT_THAT(ids, ElementsAre(kThe, ' ', 'l', 'a', 's', 't', kSpaceThe, '\n', kTinyEos));
  EXPECT_TRUE(VerifyDataset(env_, report->valid_prefix).ok());
  const std::string beside = TokenizerBeside(env_, report->valid_prefix);
  EXPECT_EQ(beside, report->tokenizer_path);
  EXPECT_EQ(*DocumentTexts(env_, report->valid_prefix, beside, 0, 1), "== document 0: 9 tokens\nthe last the\n\n");
  EXPECT_THAT(*DocumentTexts(env_, report->valid_prefix, beside, 0, 1, ShowAs::kPieces),
              HasSubstr("== document 0: 9 tokens\n    257  \"the\"\n     32  \" \"\n"));

  options.tokenizer = "";  // a new tokenizer of the other kind: nothing of the old one stays
  options.vocab_size = 275;
  options.overwrite = true;
  const absl::Status other = BuildDataset(env_, options).status();
  ASSERT_TRUE(other.ok()) << other;
  EXPECT_THAT(*env_.List(dir_.path("out")), ElementsAre("tokenizer.model", "train.bin", "train.idx", "train.sum",
                                                        "valid.bin", "valid.idx", "valid.sum"));
}

TEST(TokenizerVerifyTest, RoundTripAndReference) {
  json j = Tiny();
  const Tokenizer tokenizer = *LoadTiny(j);
  EXPECT_THAT(DescribeTokenizer(tokenizer), HasSubstr("EOS 1000 \"<|endoftext|>\"\nevery byte has a piece\n"));
  EXPECT_THAT(*VerifyRoundTrip(tokenizer, "t", "the the"), HasSubstr("t: 7 bytes in 2 tokens (3.50 bytes a token)"));
  EXPECT_THAT(*VerifyReference(tokenizer, "r", "{\"text\": \"the\", \"ids\": [257]}\n"),
              HasSubstr("r: 1 texts, 1 ids"));
  const absl::Status differs =
      VerifyReference(tokenizer, "r", "{\"text\": \"\", \"ids\": []}\n{\"text\": \"the\", \"ids\": [256, 101]}")
          .status();
  EXPECT_EQ(differs.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(differs.message(), "r:2: token 0 is 257 \"the\", expected 256 \"th\"");
  EXPECT_EQ(VerifyReference(tokenizer, "r", "{\"text\": 1}").status().message(), "r:1: text = 1: expected a string");

  j["normalizer"] = {{"type", "NFC"}};
  EXPECT_THAT(*VerifyRoundTrip(*LoadTiny(j), "t", "a e\u0301"), HasSubstr("comes back normalized, first at byte 2"));
  j["model"]["vocab"].erase("a");
  EXPECT_THAT(DescribeTokenizer(*LoadTiny(j)), HasSubstr("1 of 256 bytes have no piece"));
}

TEST(PiecesTest, Quoted) { EXPECT_EQ(Quoted("a \"\\\n\t\xff\u00e9"), "\"a \\\"\\\\\\n\\x09\\xff\u00e9\""); }

}  // namespace
}  // namespace strata
