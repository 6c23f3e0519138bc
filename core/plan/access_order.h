#pragma once
// Which of a sequence of accesses to memory must stay behind which: those to the same bytes, one of them writing.

#include <cstdint>
#include <vector>

#include "core/plan/byte_ranges.h"

namespace strata {

class AccessOrder {
 public:
  struct After {
    int item;
    bool reads_it = false;  // takes what `item` wrote; else it only writes over bytes that `item` used
  };
  // Accesses in their order; each appends what `item` comes after, repeats included. Empty ranges touch nothing.
  void Read(int item, int64_t begin, int64_t end, std::vector<After>& after);
  void Write(int item, int64_t begin, int64_t end, std::vector<After>& after);

 private:
  struct Uses {  // of bytes
    int writer = -1;
    std::vector<int> readers;  // since then
  };
  ByteRanges<Uses> memory_;
};

}  // namespace strata
