#include "launch/tokenizer/bpe.h"

#include <algorithm>
#include <cstring>

namespace strata {
namespace {

uint64_t Pair(int32_t left, int32_t right) {
  return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right);
}

constexpr int32_t kGone = -2;  // the id of a symbol that was merged into the one before it

}  // namespace

std::span<const int32_t> WordCache::Find(std::string_view word) const {
  if (word.size() > kMaxBytes) return {};
  const Slot& slot = slots_[SlotOf(word)];
  if (slot.num_bytes != word.size() || std::memcmp(slot.bytes, word.data(), word.size()) != 0) return {};
  return {slot.ids, slot.num_ids};
}

void WordCache::Keep(std::string_view word, std::span<const int32_t> ids) {
  if (word.size() > kMaxBytes || ids.empty() || ids.size() > kMaxIds) return;
  Slot& slot = slots_[SlotOf(word)];
  slot.num_bytes = static_cast<uint8_t>(word.size());
  slot.num_ids = static_cast<uint8_t>(ids.size());
  std::ranges::copy(word, slot.bytes);
  std::ranges::copy(ids, slot.ids);
}

BpeModel::BpeModel(Options options)
    : byte_ids_(options.byte_ids),
      words_(std::move(options.words)),
      unknown_id_(options.unknown_id),
      fuse_unknown_(options.fuse_unknown) {
  ranks_.reserve(options.merges.size());
  for (size_t rank = 0; rank < options.merges.size(); ++rank) {
    const BpeMerge& merge = options.merges[rank];
    ranks_[Pair(merge.left, merge.right)] = {static_cast<uint32_t>(rank), merge.result};
  }
}

void BpeModel::Encode(std::string_view word, BpeScratch& scratch, std::vector<int32_t>* ids) const {
  if (word.empty()) return;
  if (const std::span<const int32_t> kept = scratch.cache.Find(word); !kept.empty()) {
    ids->insert(ids->end(), kept.begin(), kept.end());
    return;
  }
  const size_t begin = ids->size();
  if (const auto whole = words_.find(word); whole != words_.end()) {
    ids->push_back(whole->second);
  } else {
    Spell(word, scratch);
    Merge(scratch);
    for (const BpeScratch::Symbol& symbol : scratch.symbols) {
      if (symbol.id != kGone) ids->push_back(symbol.id);
    }
  }
  scratch.cache.Keep(word, std::span(*ids).subspan(begin));
}

void BpeModel::Spell(std::string_view word, BpeScratch& scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch.symbols;
  symbols.clear();
  bool unknown = false;  // the byte before
  for (const char c : word) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(c)];
    const bool again = unknown && fuse_unknown_;
    unknown = id < 0;
    if (unknown && (unknown_id_ < 0 || again)) continue;
    const auto index = static_cast<int32_t>(symbols.size());
    symbols.push_back({unknown ? unknown_id_ : id, index - 1, index + 1});
  }
  if (!symbols.empty()) symbols.back().behind = -1;
}

void BpeModel::Offer(BpeScratch& scratch, int32_t left) const {
  const int32_t right = left < 0 ? -1 : scratch.symbols[left].behind;
  if (right < 0) return;
  const int32_t left_id = scratch.symbols[left].id, right_id = scratch.symbols[right].id;
  const auto ranked = ranks_.find(Pair(left_id, right_id));
  if (ranked == ranks_.end()) return;
  scratch.heap.push_back(
      {uint64_t{ranked->second.rank} << 32 | static_cast<uint32_t>(left), left_id, right_id, ranked->second.result});
  std::ranges::push_heap(scratch.heap, std::greater(), &BpeScratch::Candidate::order);
}

void BpeModel::Merge(BpeScratch& scratch) const {
  std::vector<BpeScratch::Symbol>& symbols = scratch.symbols;
  scratch.heap.clear();
  for (size_t i = 0; i < symbols.size(); ++i) Offer(scratch, static_cast<int32_t>(i));
  while (!scratch.heap.empty()) {
    std::ranges::pop_heap(scratch.heap, std::greater(), &BpeScratch::Candidate::order);
    const BpeScratch::Candidate best = scratch.heap.back();
    scratch.heap.pop_back();
    const auto index = static_cast<int32_t>(best.order & 0xffffffffu);
    BpeScratch::Symbol& left = symbols[index];
    if (left.id != best.left || left.behind < 0 || symbols[left.behind].id != best.right) continue;  // merged otherwise
    BpeScratch::Symbol& right = symbols[left.behind];
    left.id = best.result;
    left.behind = right.behind;
    right.id = kGone;
    if (left.behind >= 0) symbols[left.behind].before = index;
    Offer(scratch, left.before);
    Offer(scratch, index);
  }
}

}  // namespace strata
