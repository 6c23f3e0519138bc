#include "parallel/pipeline/stage_layout.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "core/base/status.h"
#include "parallel/pipeline/balance.h"

namespace strata {
namespace {

constexpr int kMaxBlock = 1 << 24;

absl::string_view View(std::string_view s) { return {s.data(), s.size()}; }

char Letter(int part) { return static_cast<char>('a' + part); }

// Where the next stage begins: "15", or "15b" in the middle of the block.
std::string BeginName(int at, int parts) {
  return at % parts == 0 ? absl::StrCat(at / parts) : absl::StrFormat("%d%c", at / parts, Letter(at % parts));
}
// What a stage ends with: "15", or "15a" where the block goes on.
std::string EndName(int end, int parts) {
  const int last = end - 1;
  return end % parts == 0 ? absl::StrCat(last / parts) : absl::StrFormat("%d%c", last / parts, Letter(last % parts));
}

std::string RangeName(const StageLayout::Parts& range, int parts) {
  const auto [first, end] = range;
  const bool one_block = first / parts == (end - 1) / parts;
  if (!one_block) return absl::StrCat(BeginName(first, parts), "-", EndName(end, parts));
  if (end - first == parts) return absl::StrCat(first / parts);
  const auto part = [&](int at) { return absl::StrFormat("%d%c", at / parts, Letter(at % parts)); };
  return end - first == 1 ? part(first) : absl::StrCat(part(first), "-", part(end - 1));
}

// "15", of all its parts, or "15a".
absl::StatusOr<StageLayout::Parts> ParseBlock(absl::string_view text, int parts) {
  const bool letter = !text.empty() && absl::ascii_islower(text.back());
  int block = 0;
  if (!absl::SimpleAtoi(text.substr(0, text.size() - (letter ? 1 : 0)), &block) || block < 0 || block > kMaxBlock) {
    return absl::InvalidArgumentError("");
  }
  if (!letter) return StageLayout::Parts{block * parts, (block + 1) * parts};
  const int part = text.back() - 'a';
  if (parts == 1) return absl::InvalidArgumentError(absl::StrFormat("block %d cannot be cut: it has one part", block));
  if (part >= parts) {
    return absl::InvalidArgumentError(
        absl::StrFormat("block %d has the parts a to %c, and no %c", block, Letter(parts - 1), text.back()));
  }
  return StageLayout::Parts{block * parts + part, block * parts + part + 1};
}

// "4-7", "4", "4a-7", ...
absl::StatusOr<StageLayout::Parts> ParseRange(absl::string_view word, int parts) {
  const std::vector<absl::string_view> ends = absl::StrSplit(word, '-');
  ASSIGN_OR_RETURN(const StageLayout::Parts first, ParseBlock(ends.front(), parts));
  ASSIGN_OR_RETURN(const StageLayout::Parts last, ParseBlock(ends.back(), parts));
  if (ends.size() > 2 || first.first >= last.end) return absl::InvalidArgumentError("");
  return StageLayout::Parts{first.first, last.end};
}

// What one stage is made of, as it is written.
struct Written {
  bool embedding = false, head = false;
  StageLayout::Parts parts;
};

absl::StatusOr<Written> ParseStage(absl::string_view text, int next, int parts) {
  Written stage{.parts = {next, next}};
  for (const absl::string_view item : absl::StrSplit(text, ',')) {
    const absl::string_view word = absl::StripAsciiWhitespace(item);
    if (word == "E" && stage.parts.end == next && !stage.head) {
      stage.embedding = true;
      continue;
    }
    if (word == "H") {
      stage.head = true;
      continue;
    }
    const absl::StatusOr<StageLayout::Parts> range = ParseRange(word, parts);
    if (stage.head || (!range.ok() && range.status().message().empty())) {
      return absl::InvalidArgumentError(
          absl::StrFormat("\"%s\" is none of E (the embedding, first), a block or range of blocks such as 4-7%s, and H "
                          "(the head, last)",
                          word, parts > 1 ? " or 4b-7a" : ""));
    }
    RETURN_IF_ERROR(range.status());
    if (range->first != stage.parts.end) {
      return absl::InvalidArgumentError(
          absl::StrFormat("block %s where block %s is next: blocks are in order and none is left out",
                          BeginName(range->first, parts), BeginName(stage.parts.end, parts)));
    }
    stage.parts.end = range->end;
  }
  return stage;
}

absl::StatusOr<StageLayout> Parse(std::string_view text, const ModelBlocks& model, int num_stages) {
  const std::vector<absl::string_view> texts = absl::StrSplit(View(text), '|');
  if (static_cast<int>(texts.size()) != num_stages) {
    return absl::InvalidArgumentError(absl::StrFormat("%d stages where the schedule has %d", texts.size(), num_stages));
  }
  StageLayout layout{.parts_per_block = model.parts};
  for (int s = 0; s < num_stages; ++s) {
    ASSIGN_OR_RETURN(const Written stage, ParseStage(texts[s], layout.num_parts(), model.parts));
    if (stage.embedding != (s == 0)) return absl::InvalidArgumentError("E must be in the first stage, and only there");
    if (stage.head != (s + 1 == num_stages)) {
      return absl::InvalidArgumentError("H must be in the last stage, and only there");
    }
    layout.stages.push_back(stage.parts);
  }
  if (layout.num_parts() != model.count * model.parts) {
    return absl::InvalidArgumentError(absl::StrFormat("it ends with block %s, the model with block %d",
                                                      EndName(layout.num_parts(), model.parts), model.count - 1));
  }
  for (int s = 1; s + 1 < num_stages; ++s) {
    if (layout.stages[s].first == layout.stages[s].end) {
      return absl::InvalidArgumentError(absl::StrFormat("stage %d is empty", s));
    }
  }
  return layout;
}

}  // namespace

int StageLayout::StageOf(int block, int part) const {
  const int at = block * parts_per_block + std::min(part, parts_per_block - 1);
  int stage = 0;
  while (stage < num_stages() && at >= stages[stage].end) ++stage;
  return stage;
}

std::string ToString(const StageLayout& layout) {
  std::vector<std::string> texts;
  for (int s = 0; s < layout.num_stages(); ++s) {
    std::vector<std::string> items;
    const StageLayout::Parts& range = layout.stages[s];
    if (s == 0) items.emplace_back("E");
    if (range.end > range.first) items.push_back(RangeName(range, layout.parts_per_block));
    if (s + 1 == layout.num_stages()) items.emplace_back("H");
    texts.push_back(absl::StrJoin(items, ","));
  }
  return absl::StrJoin(texts, " | ");
}

absl::StatusOr<StageLayout> ParseStageLayout(std::string_view text, const ModelBlocks& model, int num_stages) {
  absl::StatusOr<StageLayout> layout = Parse(text, model, num_stages);
  if (layout.ok()) return layout;
  absl::StatusOr<StageLayout> even = BalancedLayout(EvenCosts({model.count, 1}), num_stages);
  if (!even.ok()) even = BalancedLayout(EvenCosts(model), num_stages);
  return absl::InvalidArgumentError(
      absl::StrFormat("%s; %s", layout.status().message(),
                      even.ok() ? "legal would be \"" + ToString(*even) + "\"" : std::string(even.status().message())));
}

}  // namespace strata
