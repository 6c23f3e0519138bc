#include "launch/tokenizer/model_check.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <optional>

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {
namespace {

static_assert(std::endian::native == std::endian::little);

// Field numbers of sentencepiece_model.proto.
constexpr uint64_t kPieces = 1, kNormalizer = 3, kDenormalizer = 5;  // ModelProto
constexpr uint64_t kPiece = 1, kScore = 2;                           // SentencePiece
constexpr uint64_t kCharsMap = 2;                                    // NormalizerSpec
constexpr int64_t kMaxPieces = 1 << 24;

absl::Status Bad(const std::string& what) { return absl::InvalidArgumentError(what); }

uint32_t LoadU32(std::string_view bytes) {
  uint32_t value;
  std::memcpy(&value, bytes.data(), sizeof(value));
  return value;
}

struct Field {
  uint64_t number = 0;
  std::string_view bytes;  // of a length-delimited or fixed field
};

// Reads one message field by field.
class WireReader {
 public:
  explicit WireReader(std::string_view message) : rest_(message) {}

  bool done() const { return rest_.empty(); }
  std::optional<Field> Next() {
    const std::optional<uint64_t> key = Varint();
    if (!key.has_value()) return std::nullopt;
    Field field{*key >> 3, {}};
    std::optional<uint64_t> size;
    switch (*key & 7) {
      case 0:
        if (!Varint().has_value()) return std::nullopt;
        size = 0;
        break;
      case 1: size = 8; break;
      case 2: size = Varint(); break;
      case 5: size = 4; break;
      default: return std::nullopt;  // groups: not in this format
    }
    if (!size.has_value() || *size > rest_.size()) return std::nullopt;
    field.bytes = rest_.substr(0, *size);
    rest_.remove_prefix(*size);
    return field;
  }

 private:
  std::optional<uint64_t> Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(rest_[0]);
      rest_.remove_prefix(1);
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return value;
    }
    return std::nullopt;
  }

  std::string_view rest_;
};

absl::Status CheckPiece(std::string_view message, int64_t index) {
  std::string_view text;
  for (WireReader reader(message); !reader.done();) {
    const std::optional<Field> field = reader.Next();
    if (!field.has_value()) return Bad(absl::StrFormat("piece %d is cut short", index));
    if (field->number == kPiece) text = field->bytes;
    if (field->number == kScore && field->bytes.size() == 4 &&
        !std::isfinite(std::bit_cast<float>(LoadU32(field->bytes)))) {
      return Bad(absl::StrFormat("piece %d has a score that is no finite number", index));
    }
  }
  if (text.empty() || text.find('\0') != std::string_view::npos) {
    return Bad(absl::StrFormat("piece %d is empty or has a NUL in it", index));
  }
  return absl::OkStatus();
}

// A unit of a double array (Darts-clone): its children lie at `index ^ Offset(unit) ^ label`, its value at label 0.
uint32_t Offset(uint32_t unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); }
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) != 0; }
bool IsLeaf(uint32_t unit) { return unit >> 31 != 0; }

absl::Status CheckCharsMap(std::string_view map) {
  if (map.empty()) return absl::OkStatus();
  const size_t trie_bytes = map.size() < 4 ? 0 : LoadU32(map);
  if (map.size() < 4 || trie_bytes % 4 != 0 || trie_bytes == 0 || trie_bytes >= map.size() - 4) {
    return Bad("the character map of the normalizer is cut short");
  }
  const std::string_view trie = map.substr(4, trie_bytes), replacements = map.substr(4 + trie_bytes);
  if (replacements.back() != '\0') return Bad("the replacements of the normalizer do not end");
  const uint32_t units = static_cast<uint32_t>(trie_bytes / 4);
  for (uint32_t i = 0; i < units; ++i) {
    const uint32_t unit = LoadU32(trie.substr(size_t{i} * 4));
    if (i > 0 && IsLeaf(unit)) continue;  // the root is walked from whatever it says
    const uint32_t children = i ^ Offset(unit);
    const bool inside = (children | 0xffu) < units;
    const uint32_t value = inside && HasLeaf(unit) ? LoadU32(trie.substr(size_t{children} * 4)) & 0x7fffffffu : 0;
    if (!inside || value >= replacements.size()) return Bad("the character map of the normalizer leads out of itself");
  }
  return absl::OkStatus();
}

absl::Status CheckNormalizer(std::string_view message) {
  for (WireReader reader(message); !reader.done();) {
    const std::optional<Field> field = reader.Next();
    if (!field.has_value()) return Bad("the normalizer is cut short");
    if (field->number == kCharsMap) RETURN_IF_ERROR(CheckCharsMap(field->bytes));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSentencePieceModel(std::string_view model) {
  int64_t pieces = 0;
  for (WireReader reader(model); !reader.done();) {
    const std::optional<Field> field = reader.Next();
    if (!field.has_value()) return Bad("the file is cut short, or is something else");
    if (field->number == kPieces) RETURN_IF_ERROR(CheckPiece(field->bytes, pieces++));
    if (field->number == kNormalizer || field->number == kDenormalizer) RETURN_IF_ERROR(CheckNormalizer(field->bytes));
  }
  if (pieces == 0 || pieces > kMaxPieces) return Bad(absl::StrFormat("%d pieces", pieces));
  return absl::OkStatus();
}

}  // namespace strata
