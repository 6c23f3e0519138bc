#include "launch/data/token_sums.h"

#include <string>

#include "absl/strings/str_format.h"
#include "core/base/check.h"
#include "core/base/crc32c.h"
#include "tests/fuzz/targets.h"

namespace strata::fuzz {

void TokenSumsText(std::string_view input) {
  ParseTokenSums(input).status().IgnoreError();
  const std::string text =
      absl::StrFormat("%scrc32c %08x\n", input, Crc32c(std::as_bytes(std::span(input.data(), input.size()))));
  const absl::StatusOr<TokenSums> sums = ParseTokenSums(text);
  if (!sums.ok()) return;
  const absl::StatusOr<TokenSums> again = ParseTokenSums(ToText(*sums));
  STRATA_CHECK(again.ok() && *again == *sums);
}

}  // namespace strata::fuzz
