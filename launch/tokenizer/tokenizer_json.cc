#include "launch/tokenizer/tokenizer_json.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/status.h"
#include "launch/tokenizer/byte_alphabet.h"
#include "launch/tokenizer/json_value.h"

namespace strata {
namespace {

constexpr int kMaxDepth = 32;
constexpr size_t kMaxPieces = size_t{1} << 22, kMaxMerges = size_t{1} << 22, kMaxAdded = size_t{1} << 18;
constexpr size_t kMaxHoles = size_t{1} << 16;  // ids without a piece
constexpr size_t kMaxSteps = 32;

class Parser {
 public:
  explicit Parser(std::string_view text) : document_(text, kMaxDepth) {}

  absl::StatusOr<TokenizerJson> Run() {
    if (!document_.ok()) return document_.status();
    const JsonValue root = document_.root();
    root.Only({"version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor",
               "decoder", "model"});
    if (root["version"].String("1.0") != "1.0") root["version"].Refuse("\"1.0\"");
    Model(root["model"]);
    if (document_.ok()) Added(root["added_tokens"]);
    if (document_.ok()) Texts();
    if (document_.ok()) Normalizer(root["normalizer"]);
    if (document_.ok()) PreTokenizer(root["pre_tokenizer"]);
    if (document_.ok() && !byte_level_) root["pre_tokenizer"].Refuse("ByteLevel as its last step");
    if (document_.ok()) PostProcessor(root["post_processor"]);
    if (document_.ok()) Decoder(root["decoder"]);
    if (!document_.ok()) return document_.status();
    return std::move(out_);
  }

 private:
  using Read = void (Parser::*)(const JsonValue&);
  struct Kind {
    std::string_view type;
    Read read;
  };

  // Reads `value` by its "type".
  template <size_t N>
  void ByType(const JsonValue& value, const Kind (&kinds)[N]) {
    const std::string type = value["type"].String();
    std::vector<std::string> names;
    for (const Kind& kind : kinds) {
      if (kind.type == type) return (this->*kind.read)(value);
      names.emplace_back(kind.type);
    }
    value["type"].Refuse(absl::StrJoin(names, " or "));
  }

  // ---- model

  void Model(const JsonValue& model) {
    model.Only({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                "byte_fallback", "ignore_merges", "vocab", "merges"});
    if (model["type"].String("BPE") != "BPE") model["type"].Refuse("\"BPE\"");
    if (const JsonValue dropout = model["dropout"]; !dropout.is_null() && dropout.json() != 0) dropout.Refuse("null");
    for (const char* affix : {"continuing_subword_prefix", "end_of_word_suffix"}) {
      if (!model[affix].String("").empty()) model[affix].Refuse("null or \"\"");
    }
    if (document_.ok()) Vocabulary(model["vocab"]);
    if (document_.ok()) Merges(model["merges"]);
    if (document_.ok()) Unknown(model);
    if (!document_.ok() || !model["ignore_merges"].Bool(false)) return;
    for (const auto& [piece, id] : ids_) {
      if (std::optional<std::string> bytes = BytesOfPiece(piece)) out_.model.words.emplace(*std::move(bytes), id);
    }
  }

  void Vocabulary(const JsonValue& vocab) {
    if (!vocab.json().is_object() || vocab.json().empty()) return vocab.Refuse("an object of pieces and their ids");
    if (vocab.json().size() > kMaxPieces) return vocab.Refuse(absl::StrFormat("at most %d pieces", kMaxPieces));
    ids_.reserve(vocab.json().size());
    out_.model.byte_ids.fill(-1);
    const size_t ids = vocab.json().size() + kMaxHoles;
    for (const auto& [piece, value] : vocab.json().items()) {
      const bool number = value.is_number_unsigned() && value.get<uint64_t>() < ids;
      if (!number) return Piece(vocab, piece, value).Refuse(absl::StrFormat("an id from 0 to %d", ids - 1));
      const auto id = value.get<int32_t>();
      if (!Claim(id)) return Piece(vocab, piece, value).Refuse("an id of its own");
      ids_.emplace(piece, id);
      if (const std::optional<std::string> bytes = BytesOfPiece(piece); bytes && bytes->size() == 1) {
        out_.model.byte_ids[static_cast<uint8_t>((*bytes)[0])] = id;
      }
    }
  }
  JsonValue Piece(const JsonValue& vocab, const std::string& piece, const nlohmann::json& value) {
    return {&value, absl::StrFormat("%s[\"%s\"]", vocab.path(), piece.substr(0, 60)), &document_};
  }

  // Whether nothing else has the id.
  bool Claim(int32_t id) {
    if (static_cast<size_t>(id) >= claimed_.size()) claimed_.resize(static_cast<size_t>(id) + 1);
    const bool free = !claimed_[id];
    claimed_[id] = true;
    return free;
  }

  void Merges(const JsonValue& merges) {
    if (!merges.is_array()) return merges.Refuse("an array of merges");
    if (merges.json().size() > kMaxMerges) return merges.Refuse(absl::StrFormat("at most %d merges", kMaxMerges));
    out_.model.merges.reserve(merges.json().size());
    for (const nlohmann::json& json : merges.json()) {
      const auto at = [&] {
        return JsonValue(&json, absl::StrFormat("%s[%d]", merges.path(), out_.model.merges.size()), &document_);
      };
      std::string_view left, right;
      if (!Sides(json, &left, &right)) return at().Refuse("\"left right\" or [\"left\", \"right\"]");
      const BpeMerge merge{IdOf(left), IdOf(right), IdOf(std::string(left) + std::string(right))};
      if (merge.left < 0 || merge.right < 0 || merge.result < 0) return at().Refuse("pieces of model.vocab");
      out_.model.merges.push_back(merge);
    }
  }
  static bool Sides(const nlohmann::json& json, std::string_view* left, std::string_view* right) {
    if (json.is_array()) {
      if (json.size() != 2 || !json[0].is_string() || !json[1].is_string()) return false;
      *left = json[0].get_ref<const std::string&>();
      *right = json[1].get_ref<const std::string&>();
      return true;
    }
    if (!json.is_string()) return false;
    const std::string_view both = json.get_ref<const std::string&>();
    const size_t space = both.find(' ');
    if (space == std::string_view::npos || both.find(' ', space + 1) != std::string_view::npos) return false;
    *left = both.substr(0, space);
    *right = both.substr(space + 1);
    return true;
  }
  int32_t IdOf(std::string_view piece) const {
    const auto it = ids_.find(piece);
    return it == ids_.end() ? -1 : it->second;
  }

  void Unknown(const JsonValue& model) {
    const bool complete = std::ranges::count(out_.model.byte_ids, -1) == 0;
    if (model["byte_fallback"].Bool(false) && !complete) {
      model["byte_fallback"].Refuse("false, as model.vocab lacks pieces of single bytes");
    }
    out_.model.fuse_unknown = model["fuse_unk"].Bool(false);
    if (model["unk_token"].is_null()) return;
    out_.model.unknown_id = IdOf(model["unk_token"].String());
    if (out_.model.unknown_id < 0) model["unk_token"].Refuse("a piece of model.vocab");
  }

  // ---- added tokens, and what ids stand for

  void Added(const JsonValue& added) {
    if (added.json().size() > kMaxAdded) return added.Refuse(absl::StrFormat("at most %d tokens", kMaxAdded));
    const auto max_id = static_cast<int64_t>(ids_.size() + added.json().size() + kMaxHoles) - 1;
    WordIds contents;
    for (const JsonValue& value : added.Elements()) {
      value.Only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
      AddedToken token{.id = static_cast<int32_t>(value["id"].Int(0, max_id)), .content = value["content"].String()};
      token.single_word = value["single_word"].Bool(false);
      token.lstrip = value["lstrip"].Bool(false);
      token.rstrip = value["rstrip"].Bool(false);
      token.special = value["special"].Bool(false);
      token.normalized = value["normalized"].Bool(!token.special);
      if (!document_.ok()) return;
      const int32_t piece = IdOf(token.content);
      if (piece >= 0 ? piece != token.id : !Claim(token.id))
        return value["id"].Refuse("the id of its piece, or a free one");
      if (!contents.emplace(token.content, token.id).second) return value["content"].Refuse("each token once");
      out_.added.push_back(std::move(token));
    }
  }

  void Texts() {
    out_.texts.resize(claimed_.size());
    for (const auto& [piece, id] : ids_) out_.texts[id] = BytesOfPiece(piece).value_or(piece);
    for (const AddedToken& token : out_.added) out_.texts[token.id] = token.content;
  }

  // ---- normalizer

  void Normalizer(const JsonValue& value) {
    static constexpr Kind kKinds[] = {{"NFC", &Parser::Form},
                                      {"NFD", &Parser::Form},
                                      {"NFKC", &Parser::Form},
                                      {"NFKD", &Parser::Form},
                                      {"Sequence", &Parser::Normalizers}};
    if (!value.is_null()) ByType(value, kKinds);
  }
  void Form(const JsonValue& value) {
    constexpr std::pair<std::string_view, NormalForm> kForms[] = {
        {"NFC", NormalForm::kNfc}, {"NFD", NormalForm::kNfd}, {"NFKC", NormalForm::kNfkc}, {"NFKD", NormalForm::kNfkd}};
    const std::string type = value.Only({"type"})["type"].String();
    for (const auto& [name, form] : kForms) {
      if (name == type) out_.normalizers.push_back(form);
    }
    if (out_.normalizers.size() > kMaxSteps) value.Refuse(absl::StrFormat("at most %d normalizers", kMaxSteps));
  }
  void Normalizers(const JsonValue& value) {
    for (const JsonValue& each : value.Only({"type", "normalizers"})["normalizers"].Elements()) Normalizer(each);
  }

  // ---- pre-tokenizer

  void PreTokenizer(const JsonValue& value) {
    static constexpr Kind kKinds[] = {{"ByteLevel", &Parser::ByteLevelCut},
                                      {"Split", &Parser::Split},
                                      {"Digits", &Parser::Digits},
                                      {"Sequence", &Parser::PreTokenizers}};
    if (byte_level_) return value.Refuse("nothing behind ByteLevel");
    ByType(value, kKinds);
    if (out_.pre_tokenizer.num_steps() > kMaxSteps) value.Refuse(absl::StrFormat("at most %d steps", kMaxSteps));
  }
  void PreTokenizers(const JsonValue& value) {
    for (const JsonValue& each : value.Only({"type", "pretokenizers"})["pretokenizers"].Elements()) {
      if (document_.ok()) PreTokenizer(each);
    }
  }
  void ByteLevelCut(const JsonValue& value) {
    value.Only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    if (value["add_prefix_space"].Bool(false)) out_.pre_tokenizer.Add(PrefixSpaceStep{});
    if (value["use_regex"].Bool(true)) AddSplit(value, Regex::Compile(kGpt2Pattern), SplitBehavior::kIsolated, false);
    byte_level_ = true;
  }
  void Digits(const JsonValue& value) {
    const bool each = value.Only({"type", "individual_digits"})["individual_digits"].Bool(false);
    AddSplit(value, Regex::Compile("\\p{N}"), each ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, false);
  }
  void Split(const JsonValue& value) {
    constexpr std::pair<std::string_view, SplitBehavior> kBehaviors[] = {
        {"Removed", SplitBehavior::kRemoved},
        {"Isolated", SplitBehavior::kIsolated},
        {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
        {"MergedWithNext", SplitBehavior::kMergedWithNext},
        {"Contiguous", SplitBehavior::kContiguous},
    };
    value.Only({"type", "pattern", "behavior", "invert"});
    const std::string name = value["behavior"].String();
    const auto* behavior = std::ranges::find(kBehaviors, name, [](const auto& b) { return b.first; });
    if (behavior == std::end(kBehaviors)) {
      return value["behavior"].Refuse("Removed, Isolated, MergedWithPrevious, MergedWithNext or Contiguous");
    }
    const JsonValue pattern = value["pattern"].Only({"Regex", "String"});
    const bool regex = !pattern["Regex"].is_null();
    if (regex && !pattern["String"].is_null()) return pattern.Refuse("a Regex or a String");
    const JsonValue text = pattern[regex ? "Regex" : "String"];
    AddSplit(text, regex ? Regex::Compile(text.String()) : Regex::Literal(text.String()), behavior->second,
             value["invert"].Bool(false));
  }
  void AddSplit(const JsonValue& value, absl::StatusOr<Regex> pattern, SplitBehavior behavior, bool invert) {
    if (!document_.ok()) return;
    if (!pattern.ok()) {
      return document_.Refuse(absl::StrFormat("%s: %s", value.path(), std::string(pattern.status().message())));
    }
    out_.pre_tokenizer.Add(SplitStep{*std::move(pattern), behavior, invert});
  }

  // ---- post-processor

  void PostProcessor(const JsonValue& value) {
    static constexpr Kind kKinds[] = {{"ByteLevel", &Parser::Nothing},
                                      {"TemplateProcessing", &Parser::Template},
                                      {"RobertaProcessing", &Parser::Roberta},
                                      {"Sequence", &Parser::PostProcessors}};
    if (!value.is_null() && document_.ok()) ByType(value, kKinds);
  }
  void PostProcessors(const JsonValue& value) {
    for (const JsonValue& each : value.Only({"type", "processors"})["processors"].Elements()) PostProcessor(each);
  }
  void Nothing(const JsonValue& value) { value.Only({"type", "add_prefix_space", "trim_offsets", "use_regex"}); }

  void Template(const JsonValue& value) {
    value.Only({"type", "single", "pair", "special_tokens"});
    std::vector<int32_t> before, behind;
    int sequences = 0;
    for (const JsonValue& part : value["single"].Elements()) {
      part.Only({"SpecialToken", "Sequence"});
      if (const JsonValue sequence = part["Sequence"]; !sequence.is_null()) {
        if (sequence.Only({"id", "type_id"})["id"].String() != "A") sequence["id"].Refuse("\"A\"");
        ++sequences;
        continue;
      }
      const std::string name = part["SpecialToken"].Only({"id", "type_id"})["id"].String();
      const JsonValue special = value["special_tokens"][name].Only({"id", "ids", "tokens"});
      for (const JsonValue& id : special["ids"].Elements()) (sequences == 0 ? before : behind).push_back(KnownId(id));
    }
    if (sequences != 1) value["single"].Refuse("the sequence A, once");
    Around(before, behind, value);
  }
  void Roberta(const JsonValue& value) {
    value.Only({"type", "sep", "cls", "trim_offsets", "add_prefix_space"});
    const auto id = [&](const char* name) {
      const std::vector<JsonValue> pair = value[name].Elements();
      if (pair.size() == 2) return KnownId(pair[1]);
      value[name].Refuse("[token, id]");
      return 0;
    };
    const int32_t cls = id("cls");
    Around({cls}, {id("sep")}, value);
  }
  void Around(std::vector<int32_t> before, const std::vector<int32_t>& behind, const JsonValue& value) {
    before.insert(before.end(), out_.prefix.begin(), out_.prefix.end());
    out_.prefix = std::move(before);
    out_.suffix.insert(out_.suffix.end(), behind.begin(), behind.end());
    if (out_.prefix.size() + out_.suffix.size() > kMaxHoles) value.Refuse("fewer tokens around a text");
  }
  int32_t KnownId(const JsonValue& value) {
    const auto id = static_cast<int32_t>(value.Int(0, static_cast<int64_t>(claimed_.size()) - 1));
    if (document_.ok() && !claimed_[id]) value.Refuse("the id of a token");
    return id;
  }

  // ---- decoder

  void Decoder(const JsonValue& value) {
    static constexpr Kind kKinds[] = {{"ByteLevel", &Parser::Nothing}, {"Sequence", &Parser::Decoders}};
    ByType(value, kKinds);
  }
  void Decoders(const JsonValue& value) {
    static constexpr Kind kKinds[] = {{"ByteLevel", &Parser::Nothing}, {"Fuse", &Parser::Nothing}};
    const std::vector<JsonValue> decoders = value.Only({"type", "decoders"})["decoders"].Elements();
    for (const JsonValue& each : decoders) ByType(each, kKinds);
    const auto bytes = [](const JsonValue& each) { return each["type"].json() == "ByteLevel"; };
    if (std::ranges::count_if(decoders, bytes) != 1) value.Refuse("ByteLevel, once");
  }

  JsonDocument document_;
  TokenizerJson out_;
  WordIds ids_;                // of pieces as the file spells them
  std::vector<bool> claimed_;  // by id
  bool byte_level_ = false;    // the pre-tokenizer has ended in bytes
};

}  // namespace

absl::StatusOr<TokenizerJson> ParseTokenizerJson(std::string_view text) {
  if (static_cast<int64_t>(text.size()) > kMaxTokenizerJsonBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d bytes; the limit is %d", text.size(), kMaxTokenizerJsonBytes));
  }
  return Parser(text).Run();
}

}  // namespace strata
