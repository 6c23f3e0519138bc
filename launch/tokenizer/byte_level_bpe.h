#pragma once
// The tokenizer of a tokenizer.json: added tokens are found, the text between them is normalized and cut into words, and
// each word is byte-pair encoded. Bytes that are not UTF-8 are words of their own, so no text loses anything that the
// normalizer keeps.

#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "launch/tokenizer/codec.h"
#include "launch/tokenizer/tokenizer_json.h"

namespace strata {

class ByteLevelBpe final : public Codec {
 public:
  explicit ByteLevelBpe(TokenizerJson json);
  ~ByteLevelBpe() override;

  std::string Encode(std::string_view text, std::vector<int32_t>* ids) const override;
  void Decode(std::span<const int32_t> ids, SpecialText special, std::string* text) const override;
  int vocab_size() const override { return static_cast<int>(texts_.size()); }

  const std::vector<int32_t>& prefix() const { return prefix_; }
  const std::vector<int32_t>& suffix() const { return suffix_; }
  const std::vector<AddedToken>& added() const { return added_; }
  int32_t FindAdded(std::string_view content) const;  // its id; -1: none

 private:
  struct Scratch;

  std::unique_ptr<Scratch> TakeScratch() const;
  absl::Status EncodeValid(std::string_view text, Scratch& scratch, std::vector<int32_t>* ids) const;
  absl::Status EncodeNormalized(std::string_view text, Scratch& scratch, std::vector<int32_t>* ids) const;

  const std::vector<NormalForm> normalizers_;
  const PreTokenizer pre_tokenizer_;
  const std::vector<AddedToken> added_;
  const std::vector<std::string> texts_;
  const std::vector<int32_t> prefix_, suffix_;
  const BpeModel model_;
  AddedTokenMatcher in_text_, in_normalized_;  // added tokens, by where they are looked for
  std::vector<bool> special_;                  // by id

  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> idle_;  // guarded by mutex_; with the words met last
};

}  // namespace strata
