#include "launch/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>

#include "core/base/check.h"

namespace strata {
namespace {

constexpr int kOptions[] = {
    UTF8PROC_STABLE | UTF8PROC_COMPOSE,
    UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
    UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
    UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
};

// Code points below U+0300 are in NFC, whatever is beside them (their lead bytes are below 0xCC); of the other forms
// only ASCII is.
bool HasForm(NormalForm form, std::string_view text) {
  const uint8_t limit = form == NormalForm::kNfc ? 0xCC : 0x80;
  return std::ranges::all_of(text, [&](char c) { return static_cast<uint8_t>(c) < limit; });
}

void AppendNormalized(NormalForm form, std::string_view text, std::string* out) {
  utf8proc_uint8_t* bytes = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &bytes, static_cast<utf8proc_option_t>(kOptions[static_cast<int>(form)]));
  STRATA_CHECK(size >= 0);  // the text is valid: only memory can be short
  out->append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(size));
  std::free(bytes);
}

}  // namespace

std::string_view Normalize(NormalForm form, std::string_view text, std::string* storage) {
  if (HasForm(form, text)) return text;
  storage->clear();
  while (!text.empty()) {  // line by line: nothing composes with a newline, and utf8proc needs 4 bytes a character
    const size_t newline = text.find('\n');
    const std::string_view line = text.substr(0, newline == std::string_view::npos ? text.size() : newline + 1);
    if (HasForm(form, line)) {
      storage->append(line);
    } else {
      AppendNormalized(form, line, storage);
    }
    text.remove_prefix(line.size());
  }
  return *storage;
}

}  // namespace strata
