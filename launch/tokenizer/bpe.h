#pragma once
// Byte-pair encoding of one word (Sennrich et al. 2016): of all neighbours that can be merged, those of the lowest rank
// are, the leftmost first, until none can. O(n log n) in the bytes of the word.

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace strata {

struct BpeMerge {
  int32_t left = -1, right = -1, result = -1;  // ids
  bool operator==(const BpeMerge&) const = default;
};

// Whole words that are pieces: their bytes -> id.
struct BytesHash {
  using is_transparent = void;
  size_t operator()(std::string_view bytes) const { return std::hash<std::string_view>{}(bytes); }
};
using WordIds = std::unordered_map<std::string, int32_t, BytesHash, std::equal_to<>>;

// The words met last, each in the one slot that its hash names: at most 4 MiB. For one thread at a time.
class WordCache {
 public:
  static constexpr size_t kMaxBytes = 30, kMaxIds = 8;  // of a word that is kept

  WordCache() : slots_(kSlots) {}
  std::span<const int32_t> Find(std::string_view word) const;  // empty: not there
  void Keep(std::string_view word, std::span<const int32_t> ids);

 private:
  static constexpr size_t kSlots = size_t{1} << 16;
  struct Slot {
    uint8_t num_bytes = 0, num_ids = 0;
    char bytes[kMaxBytes] = {};
    int32_t ids[kMaxIds] = {};
  };
  static_assert(sizeof(Slot) == 64);
  static size_t SlotOf(std::string_view word) { return std::hash<std::string_view>{}(word) % kSlots; }

  std::vector<Slot> slots_;
};

// What encoding needs besides the model; for one thread at a time.
struct BpeScratch {
  struct Symbol {
    int32_t id, before, behind;  // neighbours by index, -1: none
  };
  struct Candidate {
    uint64_t order;  // rank << 32 | index of the left one
    int32_t left, right, result;
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  WordCache cache;
};

class BpeModel {
 public:
  struct Options {
    std::array<int32_t, 256> byte_ids{};  // the piece of each byte; -1: none
    std::vector<BpeMerge> merges;         // by rank; the last of equal pairs holds
    WordIds words;                        // taken whole, before any merge
    int32_t unknown_id = -1;              // of a byte without a piece; -1: it is left out
    bool fuse_unknown = false;            // one for all such bytes in a row
  };
  static constexpr size_t kMaxWordBytes = size_t{1} << 30;

  BpeModel() = default;
  explicit BpeModel(Options options);

  // Appends the ids of `word`, any bytes, of which there are at most kMaxWordBytes. Thread-safe.
  void Encode(std::string_view word, BpeScratch& scratch, std::vector<int32_t>* ids) const;

 private:
  struct Ranked {
    uint32_t rank;
    int32_t result;
  };
  void Spell(std::string_view word, BpeScratch& scratch) const;
  void Offer(BpeScratch& scratch, int32_t left) const;
  void Merge(BpeScratch& scratch) const;

  std::array<int32_t, 256> byte_ids_{};
  absl::flat_hash_map<uint64_t, Ranked> ranks_;  // left << 32 | right
  WordIds words_;
  int32_t unknown_id_ = -1;
  bool fuse_unknown_ = false;
};

}  // namespace strata
