#pragma once
// How documents share the rows of a batch.

#include <cstdint>
#include <string_view>

namespace strata {

// kConcat: a row is one stretch of text, end-of-document tokens and all. kIsolate: documents that share a row do not see
// each other, each counts its positions from 0, and none is taught the first token of the next.
enum class Packing : uint8_t { kConcat, kIsolate };
inline constexpr std::string_view kPackingNames[] = {"concat", "isolate"};

}  // namespace strata
