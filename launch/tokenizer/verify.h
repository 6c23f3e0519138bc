#pragma once
// Whether a tokenizer does what it should: on single bytes, on texts of the user's, against ids that another program made.

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "launch/tokenizer/tokenizer.h"

namespace strata {

// Lines about the tokenizer: its kind, its pieces, EOS, what is put around a text, bytes that it cannot say.
std::string DescribeTokenizer(const Tokenizer& tokenizer);

// Encodes and decodes `text`, and says in a line how many tokens, how fast, and whether it came back: byte for byte, or
// normalized, which another pass leaves as it is. DataLoss: it came back changed and does not stay so.
absl::StatusOr<std::string> VerifyRoundTrip(const Tokenizer& tokenizer, const std::string& name, std::string_view text);

// `lines`: JSON lines, each an object with a "text" and the "ids" that it must have, with no special tokens around.
// One line for how many there were. DataLoss: the first few differences. InvalidArgument: a line of another form.
absl::StatusOr<std::string> VerifyReference(const Tokenizer& tokenizer, const std::string& name,
                                            std::string_view lines);

}  // namespace strata
