#include "parallel/comm/faulty.h"

#include <thread>

#include "absl/strings/str_format.h"
#include "core/base/philox.h"
#include "core/base/status.h"

namespace strata {
namespace {

class FaultyCommunicator final : public Communicator {
 public:
  FaultyCommunicator(std::unique_ptr<Communicator> inner, std::vector<CommFault> faults, uint64_t seed, int rank)
      : inner_(std::move(inner)), faults_(std::move(faults)), seed_(seed), rank_(rank) {}

  const CommSpec& spec() const override { return inner_->spec(); }
  absl::Status Issue(std::span<const Collective> calls, Stream stream) override {
    const int64_t call = next_call_++;
    for (const CommFault& fault : faults_) {
      if (fault.call == call || fault.call < 0) RETURN_IF_ERROR(Inject(fault, call));
    }
    return inner_->Issue(calls, stream);
  }
  absl::Status Poll() override { return inner_->Poll(); }
  void Abort(const absl::Status& cause) override { inner_->Abort(cause); }
  absl::Status Close() override { return inner_->Close(); }

 private:
  absl::Status Inject(const CommFault& fault, int64_t call) {
    if (fault.kind == CommFault::kError) {
      return absl::UnavailableError(absl::StrFormat("injected fault: communicator %s, call %d", spec().name, call));
    }
    if (fault.kind == CommFault::kDelay) {
      const uint64_t stream = HashName(spec().name, HashName("delay") + static_cast<uint64_t>(rank_));
      const double part = PhiloxUniform(Philox(seed_, stream, static_cast<uint64_t>(call))[0]);
      std::this_thread::sleep_for(part * fault.max_delay);
      return absl::OkStatus();
    }
    while (inner_->Poll().ok()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return inner_->Poll();
  }

  std::unique_ptr<Communicator> inner_;
  const std::vector<CommFault> faults_;
  const uint64_t seed_;
  const int rank_;
  int64_t next_call_ = 0;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Communicator>> FaultyWorld::Connect(const CommSpec& group) {
  ASSIGN_OR_RETURN(std::unique_ptr<Communicator> inner, world_.Connect(group));
  if (inner == nullptr) return inner;
  std::vector<CommFault> faults;
  for (const CommFault& fault : faults_) {
    if (fault.comm.empty() || fault.comm == group.name) faults.push_back(fault);
  }
  return std::make_unique<FaultyCommunicator>(std::move(inner), std::move(faults), seed_, rank());
}

}  // namespace strata
