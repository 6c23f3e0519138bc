#include "parallel/comm/counting.h"

#include "absl/strings/str_format.h"
#include "core/base/status.h"

namespace strata {
namespace {

class CountingCommunicator final : public Communicator {
 public:
  CountingCommunicator(std::unique_ptr<Communicator> inner, CommCounts::mapped_type& counts)
      : inner_(std::move(inner)), counts_(counts) {}

  const CommSpec& spec() const override { return inner_->spec(); }
  absl::Status Issue(std::span<const Collective> calls, Stream stream) override {
    for (const Collective& c : calls) {
      ++counts_[c.kind].calls;
      counts_[c.kind].bytes += BytesSent(c, static_cast<int>(spec().ranks.size()));
    }
    return inner_->Issue(calls, stream);
  }
  absl::Status Poll() override { return inner_->Poll(); }
  void Abort(const absl::Status& cause) override { inner_->Abort(cause); }
  absl::Status Close() override { return inner_->Close(); }

 private:
  std::unique_ptr<Communicator> inner_;
  CommCounts::mapped_type& counts_;
};

}  // namespace

std::string ToString(const CommCounts& counts) {
  std::string s;
  for (const auto& [name, kinds] : counts) {
    for (size_t k = 0; k < kinds.size(); ++k) {
      if (kinds[k].calls == 0) continue;
      s += absl::StrFormat("%s %s: %d calls, %.0f bytes\n", name, Name(static_cast<Collective::Kind>(k)),
                           kinds[k].calls, kinds[k].bytes);
    }
  }
  return s;
}

absl::StatusOr<std::unique_ptr<Communicator>> CountingWorld::Connect(const CommSpec& group) {
  ASSIGN_OR_RETURN(std::unique_ptr<Communicator> inner, world_.Connect(group));
  if (inner == nullptr) return inner;
  return std::make_unique<CountingCommunicator>(std::move(inner), counts_[group.name]);
}

void CountingWorld::Reset() {
  for (auto& [name, kinds] : counts_) kinds = {};  // in place: communicators hold references
}

}  // namespace strata
