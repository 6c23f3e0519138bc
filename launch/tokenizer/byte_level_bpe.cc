#include "launch/tokenizer/byte_level_bpe.h"

#include <algorithm>

#include "core/base/status.h"
#include "launch/tokenizer/utf8.h"

namespace strata {
namespace {

constexpr size_t kMaxRun = size_t{1} << 20;  // bytes of a word that is not UTF-8

}  // namespace

struct ByteLevelBpe::Scratch {
  RegexScratch regex;
  BpeScratch bpe;
  std::string normalized[2];  // in turn, where several normalizers follow each other
};

ByteLevelBpe::ByteLevelBpe(TokenizerJson json)
    : normalizers_(std::move(json.normalizers)),
      pre_tokenizer_(std::move(json.pre_tokenizer)),
      added_(std::move(json.added)),
      texts_(std::move(json.texts)),
      prefix_(std::move(json.prefix)),
      suffix_(std::move(json.suffix)),
      model_(std::move(json.model)),
      special_(texts_.size()) {
  for (AddedToken token : added_) {
    if (token.special) special_[token.id] = true;
    if (!token.normalized) {
      in_text_.Add(std::move(token));
      continue;
    }
    for (const NormalForm form : normalizers_) {
      std::string storage;
      token.content = std::string(Normalize(form, token.content, &storage));
    }
    in_normalized_.Add(std::move(token));
  }
}

ByteLevelBpe::~ByteLevelBpe() = default;

std::unique_ptr<ByteLevelBpe::Scratch> ByteLevelBpe::TakeScratch() const {
  const std::lock_guard lock(mutex_);
  if (idle_.empty()) return std::make_unique<Scratch>();
  std::unique_ptr<Scratch> scratch = std::move(idle_.back());
  idle_.pop_back();
  return scratch;
}

std::string ByteLevelBpe::Encode(std::string_view text, std::vector<int32_t>* ids) const {
  std::unique_ptr<Scratch> scratch = TakeScratch();
  absl::Status status;
  while (!text.empty() && status.ok()) {
    const size_t valid = ValidPrefix(text);
    if (valid > 0) status = EncodeValid(text.substr(0, valid), *scratch, ids);
    size_t end = valid;
    const size_t limit = std::min(text.size(), valid + kMaxRun);
    while (end < limit && CharacterLength(text.substr(end)) == 0) ++end;
    model_.Encode(text.substr(valid, end - valid), scratch->bpe, ids);
    text.remove_prefix(end);
  }
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(scratch));
  return std::string(status.message());
}

absl::Status ByteLevelBpe::EncodeValid(std::string_view text, Scratch& scratch, std::vector<int32_t>* ids) const {
  return in_text_.Split(text, [&](std::string_view part, const AddedToken* token) -> absl::Status {
    if (token != nullptr) {
      ids->push_back(token->id);
      return absl::OkStatus();
    }
    size_t turn = 0;
    for (const NormalForm form : normalizers_) part = Normalize(form, part, &scratch.normalized[turn++ % 2]);
    return EncodeNormalized(part, scratch, ids);
  });
}

absl::Status ByteLevelBpe::EncodeNormalized(std::string_view text, Scratch& scratch, std::vector<int32_t>* ids) const {
  return in_normalized_.Split(text, [&](std::string_view part, const AddedToken* token) -> absl::Status {
    if (token != nullptr) {
      ids->push_back(token->id);
      return absl::OkStatus();
    }
    bool too_long = false;
    RETURN_IF_ERROR(pre_tokenizer_.Cut(part, scratch.regex, [&](std::string_view word) {
      too_long = too_long || word.size() > BpeModel::kMaxWordBytes;
      if (!too_long) model_.Encode(word, scratch.bpe, ids);
    }));
    return too_long ? absl::ResourceExhaustedError("a word of over 1 GiB") : absl::OkStatus();
  });
}

void ByteLevelBpe::Decode(std::span<const int32_t> ids, SpecialText special, std::string* text) const {
  for (const int32_t id : ids) {
    if (id < 0 || id >= vocab_size() || (special == SpecialText::kLeaveOut && special_[id])) continue;
    text->append(texts_[id]);
  }
}

int32_t ByteLevelBpe::FindAdded(std::string_view content) const {
  const auto it = std::ranges::find(added_, content, &AddedToken::content);
  return it == added_.end() ? -1 : it->id;
}

}  // namespace strata
