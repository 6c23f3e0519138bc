#pragma once
// One process's end of an MPI job: messages between ranks as non-blocking sends and receives, waits that end, and a
// control channel on which ranks tell each other why they stop, and what they wait for.
//
// MPI_COMM_WORLD is used with tags of our own; nothing here is a collective of MPI, so no call can block without end.
// Thread-safe: every MPI call is made under one lock (MPI_THREAD_SERIALIZED).

#include <mpi.h>

#include <chrono>
#include <cstddef>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "core/comm/communicator.h"
#include "core/comm/rank_ledger.h"

namespace strata::internal {

class MpiLink {
 public:
  struct Pending {  // a message under way
    MPI_Request request = MPI_REQUEST_NULL;
    int rank = 0;  // the other one
    bool receive = false;
  };

  // Tags from first_tag on are this link's. All ranks make theirs with the same first_tag.
  MpiLink(int rank, int size, int first_tag, std::chrono::milliseconds deadline);

  // Once, before anything else is done: what errors take from what the ranks say that they do.
  void set_ledger(std::shared_ptr<RankLedger> ledger) { ledger_ = std::move(ledger); }
  const std::shared_ptr<RankLedger>& ledger() const { return ledger_; }

  int rank() const { return rank_; }
  int size() const { return size_; }

  // Starts a message of any size; what is under way is added to `pending`. Messages of one pair of ranks and one tag
  // (from 0) arrive in order. Buffers are MPI's until Wait() returns, and after an error until the process ends.
  absl::Status Send(const void* data, int64_t bytes, int rank, int tag, std::vector<Pending>& pending);
  absl::Status Receive(void* data, int64_t bytes, int rank, int tag, std::vector<Pending>& pending);

  // Until all of `pending`, of `spec`, is complete; it is empty afterwards. `what` says what is waited for, in errors and to ranks that
  // ask. Errors: the cause that a rank gave; DeadlineExceeded naming those who did not come and, asked, did not answer
  // that they wait for somebody else; Unavailable for an error of MPI.
  absl::Status Wait(std::vector<Pending>& pending, const CommSpec& spec, absl::FunctionRef<std::string()> what);

  absl::Status error();  // the first cause known here; looks for messages, never waits
  // Ends the job with an error of this rank: others get Unavailable("rank 3: <error>"). Returns the first cause.
  absl::Status Fail(const absl::Status& error);
  // Ends the job with `cause` on all ranks.
  void Abort(const absl::Status& cause);

 private:
  using Clock = std::chrono::steady_clock;
  struct Outgoing {
    std::string text;
    MPI_Request request;
  };
  class Patience;  // the deadline of one Wait()

  absl::Status Post(bool receive, void* data, int64_t bytes, int rank, int tag, std::vector<Pending>& pending);
  absl::Status Test(std::vector<Pending>& pending);
  void Forget(std::vector<Pending>& pending);
  void End(const absl::Status& cause, absl::StatusCode code, const std::string& text);

  void Pump();
  void Handle(int from, const std::string& message);
  void SendControl(int rank, const std::string& message);
  std::string Waiting() const;

  const int rank_, size_, control_tag_;
  const std::chrono::milliseconds deadline_;

  std::shared_ptr<RankLedger> ledger_;

  std::mutex mutex_;  // guards all of MPI, and what follows
  absl::Status cause_;
  std::list<Outgoing> outgoing_;
  const std::vector<Pending>* pending_ = nullptr;  // of the Wait() that runs, for those who ask
  const absl::FunctionRef<std::string()>* what_ = nullptr;
  std::map<int, std::string> answers_;  // to what this rank asked, by rank
};

}  // namespace strata::internal
