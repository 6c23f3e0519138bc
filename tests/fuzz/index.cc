#include <algorithm>
#include <string>
#include <vector>

#include "core/base/check.h"
#include "launch/data/indexed_dataset.h"
#include "tests/fuzz/memory_env.h"
#include "tests/fuzz/targets.h"

namespace strata::fuzz {

void Index(std::string_view input) {
  if (input.size() < 2) return;
  const size_t bin_bytes = static_cast<uint8_t>(input[0]) | static_cast<uint8_t>(input[1]) << 8;
  MemoryEnv env({{"d.idx", std::string(input.substr(2))}, {"d.bin", std::string(bin_bytes, '\x01')}});
  const absl::StatusOr<IndexedDataset> dataset = IndexedDataset::Open(env, "d");
  if (!dataset.ok()) return;
  const IndexedDataset& d = *dataset;
  STRATA_CHECK(d.num_tokens() * d.token_bytes() == static_cast<int64_t>(bin_bytes));
  STRATA_CHECK(d.SequenceBegin(0) == 0 && d.SequenceBegin(d.num_sequences()) == d.num_tokens());
  for (int64_t i = 0; i < d.num_sequences(); ++i) STRATA_CHECK(d.SequenceBegin(i) <= d.SequenceBegin(i + 1));
  std::vector<int32_t> all(d.num_tokens());
  STRATA_CHECK(d.Read(0, all).ok());
  const int32_t token = d.token_bytes() == 2 ? 0x0101 : 0x01010101;
  STRATA_CHECK(std::all_of(all.begin(), all.end(), [&](int32_t t) { return t == token; }));
}

}  // namespace strata::fuzz
