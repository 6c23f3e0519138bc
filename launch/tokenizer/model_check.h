#pragma once
// What SentencePiece takes on trust in a model file and must not, as a damaged file would end the process: checked before
// it sees the file.

#include <string_view>

#include "absl/status/status.h"

namespace strata {

// `model` is a serialized sentencepiece.ModelProto (Protocol Buffers wire format). InvalidArgument unless
// - it is a whole message, with 1 to 2^24 pieces;
// - every piece is text without a NUL, and its score a finite number;
// - the normalizer's character map (u32 bytes of trie, a Darts double array, then NUL-terminated replacements) leads
//   nowhere outside of itself.
absl::Status CheckSentencePieceModel(std::string_view model);

}  // namespace strata
