#pragma once
// Tokens that are found in a text before it is cut into words: <|endoftext|>, <think>, runs of spaces, ...

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "absl/status/status.h"

namespace strata {

struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool single_word = false;  // not where a letter, digit, mark or connector is beside it
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and that behind it
  bool normalized = false;   // looked for in the normalized text, not in the text as it is
  bool special = false;
};

// Finds a set of tokens; immutable, thread-safe. The leftmost match wins, of those that begin together the longest.
class AddedTokenMatcher {
 public:
  void Add(AddedToken token);  // an empty one is never found

  // Hands the parts of `text` (whole UTF-8 characters) to `part` in order; none is empty: `token` is the part's, or
  // nullptr. Stops at an error.
  absl::Status Split(std::string_view text,
                     absl::FunctionRef<absl::Status(std::string_view part, const AddedToken* token)> part) const;

 private:
  struct Found {
    const AddedToken* token;
    size_t begin, end;  // with what it strips
  };
  std::optional<Found> Find(std::string_view text, size_t from) const;

  std::vector<AddedToken> tokens_;
  // A trie: node << 8 | byte -> node; the root is 0. ends_[node]: the token that ends there, -1 if none.
  absl::flat_hash_map<uint64_t, uint32_t> children_;
  std::vector<int32_t> ends_{-1};
  std::array<bool, 256> first_{};  // of the tokens
};

}  // namespace strata
