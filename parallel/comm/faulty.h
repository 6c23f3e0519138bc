#pragma once
// A decorator that injects faults into a rank's communication, for tests. The same faults and seed do the same again.

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "core/comm/communicator.h"

namespace strata {

struct CommFault {
  enum Kind : uint8_t {
    kDelay,  // sleeps a random part of max_delay, then issues
    kError,  // returns Unavailable without issuing
    kHang,   // never arrives: returns only when the communicator is aborted, with the cause
  } kind = kDelay;
  std::string comm;   // name of the communicator; "" = each
  int64_t call = -1;  // which Issue() of the communicator, from 0; -1 = each
  std::chrono::microseconds max_delay{0};
};

// One rank's. Delays are drawn from (seed, rank, call).
class FaultyWorld final : public World {
 public:
  FaultyWorld(World& world, std::vector<CommFault> faults, uint64_t seed)
      : world_(world), faults_(std::move(faults)), seed_(seed) {}
  int rank() const override { return world_.rank(); }
  int size() const override { return world_.size(); }
  absl::StatusOr<std::unique_ptr<Communicator>> Connect(const CommSpec& group) override;
  RankLedger* ledger() override { return world_.ledger(); }

 private:
  World& world_;
  std::vector<CommFault> faults_;
  uint64_t seed_;
};

}  // namespace strata
