#include "launch/tokenizer/sentencepiece_model.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <unordered_map>

#include "launch/tokenizer/utf8.h"

namespace strata {
namespace {

constexpr std::string_view kSpace = "\xe2\x96\x81";  // U+2581: how pieces spell a space

// The lines of `texts`, without their newlines.
class LineIterator : public sentencepiece::SentenceIterator {
 public:
  explicit LineIterator(std::span<const std::string_view> texts) : texts_(texts) { Next(); }

  bool done() const override { return done_; }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }

  void Next() override {
    while (!texts_.empty() && begin_ >= texts_.front().size()) {
      texts_ = texts_.subspan(1);
      begin_ = 0;
    }
    done_ = texts_.empty();
    if (done_) return;
    const std::string_view text = texts_.front();
    const size_t end = std::min(text.find('\n', begin_), text.size());
    line_.assign(text.substr(begin_, end - begin_));
    begin_ = end + 1;
  }

 private:
  std::span<const std::string_view> texts_;
  size_t begin_ = 0;
  std::string line_;
  bool done_ = false;
};

size_t LongestLine(std::span<const std::string_view> texts) {
  size_t longest = 0;
  for (LineIterator line(texts); !line.done(); line.Next()) longest = std::max(longest, line.value().size());
  return longest;
}

std::string ReplaceAll(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
  return text;
}

// "Internal: ./src/file.cc(660) [condition] What is wrong." -> "What is wrong."
std::string Reason(const sentencepiece::util::Status& status) {
  const std::string text = status.ToString();
  const size_t end = text.rfind("] ");
  return end == std::string::npos || end + 2 == text.size() ? text : text.substr(end + 2);
}

}  // namespace

SentencePieceModel::SentencePieceModel() = default;
SentencePieceModel::~SentencePieceModel() = default;
SentencePieceModel::SentencePieceModel(SentencePieceModel&&) noexcept = default;
SentencePieceModel& SentencePieceModel::operator=(SentencePieceModel&&) noexcept = default;

std::string SentencePieceModel::Train(std::span<const std::string_view> texts, int vocab_size, std::string* model) {
  const std::unordered_map<std::string, std::string> options = {
      {"model_type", "bpe"},
      {"vocab_size", std::to_string(vocab_size)},
      {"byte_fallback", "true"},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"add_dummy_prefix", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"split_digits", "true"},
      {"user_defined_symbols", "\n"},
      {"unk_id", "0"},
      {"eos_id", "1"},
      {"bos_id", "-1"},
      {"pad_id", "-1"},
      {"max_sentence_length", std::to_string(std::max<size_t>(LongestLine(texts) + 1, 10))},
      {"num_threads", "1"},  // more would change nothing in the result today; one is a promise
      {"minloglevel", "2"},
  };
  LineIterator lines(texts);
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &lines, model);
  return status.ok() ? "" : Reason(status);
}

std::string SentencePieceModel::Load(const std::string& model) {
  processor_ = std::make_unique<sentencepiece::SentencePieceProcessor>();
  try {  // the double arrays that it builds report so
    const auto status = processor_->LoadFromSerializedProto(model);
    if (!status.ok()) return Reason(status);
  } catch (const std::exception& error) {
    return error.what();
  }
  eos_id_ = processor_->eos_id();
  text_of_.clear();
  special_.clear();
  id_of_byte_.fill(-1);
  for (int id = 0; id < processor_->GetPieceSize(); ++id) {
    const std::string& piece = processor_->IdToPiece(id);
    special_.push_back(processor_->IsControl(id) || processor_->IsUnknown(id));
    if (processor_->IsByte(id)) {  // "<0x0A>"
      const auto byte = static_cast<uint8_t>(std::strtoul(piece.c_str() + 1, nullptr, 16));
      text_of_.emplace_back(1, static_cast<char>(byte));
      id_of_byte_[byte] = id;
    } else {
      text_of_.push_back(ReplaceAll(piece, kSpace, " "));
    }
  }
  const int32_t newline = processor_->PieceToId("\n");
  newline_id_ = processor_->IsUnknown(newline) ? -1 : newline;
  std::vector<int> probe;
  const bool encodes = processor_->Encode("a", &probe).ok();
  const bool dummy_prefix = !probe.empty() && text_of_[probe[0]].starts_with(' ');
  exact_ = encodes && !dummy_prefix && newline_id_ >= 0 && std::ranges::count(id_of_byte_, -1) == 0;
  return encodes ? "" : "the model cannot encode";
}

std::string SentencePieceModel::EncodeRun(std::string_view run, std::vector<int32_t>* ids) const {
  if (run.empty()) return "";
  std::vector<int> pieces;
  const auto status = processor_->Encode(run, &pieces);
  if (!status.ok()) return Reason(status);
  ids->insert(ids->end(), pieces.begin(), pieces.end());
  return "";
}

std::string SentencePieceModel::Encode(std::string_view text, std::vector<int32_t>* ids) const {
  if (!exact_) return EncodeRun(text, ids);
  size_t begin = 0;  // of the run that SentencePiece will encode
  for (size_t i = 0; i < text.size();) {
    const size_t length = CharacterLength(text.substr(i));
    const bool newline = text[i] == '\n';
    const bool bytes = length == 0 || text[i] == '\0' || text.substr(i, length) == kSpace;
    const size_t next = i + std::max<size_t>(length, 1);
    if (newline || bytes) {
      if (const std::string error = EncodeRun(text.substr(begin, i - begin), ids); !error.empty()) return error;
      if (newline) ids->push_back(newline_id_);
      for (; bytes && i < next; ++i) ids->push_back(id_of_byte_[static_cast<uint8_t>(text[i])]);
      begin = next;
    }
    i = next;
  }
  return EncodeRun(text.substr(begin), ids);
}

void SentencePieceModel::Decode(std::span<const int32_t> ids, SpecialText special, std::string* text) const {
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size() || (special == SpecialText::kLeaveOut && special_[id])) continue;
    text->append(text_of_[id]);
  }
}

}  // namespace strata
