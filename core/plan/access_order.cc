#include "core/plan/access_order.h"

namespace strata {

void AccessOrder::Read(int item, int64_t begin, int64_t end, std::vector<After>& after) {
  memory_.Cover(begin, end, [&](Uses& r) {
    if (r.writer >= 0 && r.writer != item) after.push_back({r.writer, true});
    if (r.readers.empty() || r.readers.back() != item) r.readers.push_back(item);
  });
}

void AccessOrder::Write(int item, int64_t begin, int64_t end, std::vector<After>& after) {
  memory_.Cover(begin, end, [&](Uses& r) {
    if (r.writer >= 0 && r.writer != item) after.push_back({r.writer, false});
    for (int reader : r.readers) {
      if (reader != item) after.push_back({reader, false});
    }
    r.writer = item;
    r.readers.clear();
  });
}

}  // namespace strata
