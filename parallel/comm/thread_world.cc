#include "parallel/comm/thread_world.h"

#include <algorithm>
#include <thread>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/check.h"
#include "core/base/status.h"
#include "core/comm/rank_ledger.h"
#include "parallel/comm/internal/groups.h"
#include "parallel/comm/internal/held_record.h"
#include "parallel/comm/internal/thread_group.h"
#include "parallel/comm/internal/wait_ledger.h"

namespace strata {
namespace {

constexpr std::chrono::milliseconds kPatience{10'000};  // with ranks that do not end after the first error

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<internal::ThreadGroup> group, int me, std::shared_ptr<RankLedger> ledger)
      : group_(std::move(group)), me_(me), record_(std::move(ledger), spec().ranks[me], spec()) {}

  const CommSpec& spec() const override { return group_->spec(); }
  absl::Status Issue(std::span<const Collective> calls, Stream) override {
    if (closed_) return absl::FailedPreconditionError(absl::StrFormat("communicator %s is closed", spec().name));
    return record_.Around([&] { return group_->Issue(me_, calls); });
  }
  absl::Status Poll() override { return group_->error(); }
  void Abort(const absl::Status& cause) override { group_->Abort(cause); }
  absl::Status Close() override {
    if (closed_) return absl::OkStatus();
    closed_ = true;
    const Collective barrier;
    return record_.Around([&] { return group_->Issue(me_, {&barrier, 1}); });
  }

 private:
  std::shared_ptr<internal::ThreadGroup> group_;
  int me_;
  internal::HeldRecord record_;
  bool closed_ = false;
};

}  // namespace

class ThreadWorld final : public World {
 public:
  ThreadWorld(std::shared_ptr<ThreadJob> job, int rank) : job_(std::move(job)), rank_(rank) {}

  int rank() const override { return rank_; }
  int size() const override { return job_->size(); }
  absl::StatusOr<std::unique_ptr<Communicator>> Connect(const CommSpec& spec) override {
    ASSIGN_OR_RETURN(std::shared_ptr<internal::ThreadGroup> group, job_->Connect(rank_, round_++, spec));
    const auto me = std::find(spec.ranks.begin(), spec.ranks.end(), rank_);
    if (me == spec.ranks.end()) return std::unique_ptr<Communicator>();
    return std::make_unique<ThreadCommunicator>(std::move(group), static_cast<int>(me - spec.ranks.begin()),
                                                job_->activities_);
  }
  RankLedger* ledger() override { return job_->activities_.get(); }

 private:
  std::shared_ptr<ThreadJob> job_;
  int rank_;
  size_t round_ = 0;
};

ThreadJob::ThreadJob(int size, const ThreadWorldOptions& options)
    : size_(size),
      options_(options),
      activities_(RankLedger::Make(size)),
      ledger_(std::make_shared<internal::WaitLedger>(size, activities_)) {}

std::shared_ptr<ThreadJob> ThreadJob::Create(int size, const ThreadWorldOptions& options) {
  STRATA_CHECK(size >= 1);
  return std::shared_ptr<ThreadJob>(new ThreadJob(size, options));
}

std::unique_ptr<World> ThreadJob::Join(int rank) {
  STRATA_CHECK(rank >= 0 && rank < size_);
  activities_->Enter(rank);
  return std::make_unique<ThreadWorld>(shared_from_this(), rank);
}

void ThreadJob::Abort(const absl::Status& cause) {
  std::lock_guard lock(mutex_);
  if (cause_.ok()) cause_ = cause;
  for (const Round& round : rounds_) {
    for (const Group& group : round.groups) group->Abort(cause_);
  }
  wake_.notify_all();
}

// Under mutex_. Equal specs share a group; different ones must not share a rank; a group needs all its ranks.
void ThreadJob::Enter(Round& round, int rank, const CommSpec& spec) {
  round.error.Update(internal::CheckSpec(spec, size_));
  Group& mine = round.named[rank];
  for (const Group& group : round.groups) {
    round.error.Update(internal::CheckTogether(group->spec(), spec));
    if (group->spec() == spec) mine = group;
  }
  if (mine == nullptr) {
    mine = std::make_shared<internal::ThreadGroup>(spec, options_.deadline, ledger_);
    round.groups.push_back(mine);
  }
  if (++round.arrived < size_) return;
  std::vector<CommSpec> named;
  for (const Group& group : round.named) named.push_back(group->spec());
  round.error.Update(internal::CheckRound(named));
}

absl::StatusOr<ThreadJob::Group> ThreadJob::Connect(int rank, size_t index, const CommSpec& spec) {
  std::unique_lock lock(mutex_);
  if (!cause_.ok()) return cause_;
  if (rounds_.size() <= index) rounds_.emplace_back().named.resize(size_);
  Round& round = rounds_[index];
  Enter(round, rank, spec);
  wake_.notify_all();
  const auto ready = [&] { return round.arrived == size_ || !round.error.ok() || !cause_.ok(); };
  if (!wake_.wait_for(lock, options_.deadline, ready)) {
    std::vector<int> late;
    for (int r = 0; r < size_; ++r) {
      if (round.named[r] == nullptr) late.push_back(r);
    }
    round.error = absl::DeadlineExceededError(absl::StrFormat("connect %s: rank %s did not arrive within %d ms",
                                                              internal::ToString(spec), absl::StrJoin(late, ", "),
                                                              options_.deadline.count()));
  }
  if (!cause_.ok()) return cause_;
  if (!round.error.ok()) return round.error;
  return round.named[rank];
}

absl::Status RunRanks(int size, const std::function<absl::Status(World&)>& body, const ThreadWorldOptions& options) {
  const std::shared_ptr<ThreadJob> job = ThreadJob::Create(size, options);
  std::mutex mutex;
  std::condition_variable ended;
  int running = size;
  absl::Status first;  // Unavailable is the word of a victim: a later error of another kind is the cause
  const auto note = [&](const absl::Status& status) {
    std::lock_guard lock(mutex);
    if (first.ok() || (absl::IsUnavailable(first) && !absl::IsUnavailable(status))) first = status;
    ended.notify_all();
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) {
    threads.emplace_back([&, rank] {
      const std::unique_ptr<World> world = job->Join(rank);
      const absl::Status status = Annotate(body(*world), absl::StrFormat("rank %d", rank));
      if (!status.ok()) {
        note(status);
        job->Abort(absl::UnavailableError(status.message()));
      }
      std::lock_guard lock(mutex);
      --running;
      ended.notify_all();
    });
  }
  {
    std::unique_lock lock(mutex);
    ended.wait(lock, [&] { return running == 0 || !first.ok(); });
    const bool all = ended.wait_for(lock, std::min(options.deadline, kPatience), [&] { return running == 0; });
    if (!all && options.on_stuck != nullptr) options.on_stuck(first);
  }
  for (std::thread& t : threads) t.join();
  return first;
}

}  // namespace strata
