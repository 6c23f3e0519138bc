#pragma once
// A decorator that counts what a rank sends: golden tests compare these counts with the known ones of each layout.

#include <array>
#include <map>
#include <memory>
#include <string>

#include "core/comm/communicator.h"

namespace strata {

struct CommCount {
  int64_t calls = 0;
  double bytes = 0;  // BytesSent
  bool operator==(const CommCount&) const = default;
};
using CommCounts = std::map<std::string, std::array<CommCount, Collective::kBarrier + 1>>;  // by communicator, kind
// One line each, without those that are zero: "dp all-reduce: 2 calls, 4096 bytes".
std::string ToString(const CommCounts& counts);

// One rank's; like the World inside, used by one thread. Outlives its communicators.
class CountingWorld final : public World {
 public:
  explicit CountingWorld(World& world) : world_(world) {}
  int rank() const override { return world_.rank(); }
  int size() const override { return world_.size(); }
  absl::StatusOr<std::unique_ptr<Communicator>> Connect(const CommSpec& group) override;
  RankLedger* ledger() override { return world_.ledger(); }

  const CommCounts& counts() const { return counts_; }
  void Reset();  // to zero

 private:
  World& world_;
  CommCounts counts_;
};

}  // namespace strata
