#pragma once
// Collectives: the interface. The thread, mpi and nccl back ends are in parallel/comm.

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/exec/device.h"
#include "core/mesh/mesh.h"
#include "core/tensor/tensor.h"

namespace strata {

// A collective is data and one virtual call issues any of them: the plan's step IS the call, and the byte counter, fault
// injector and hang ledger are each one decorator.
struct Collective {
  enum Kind : uint8_t {
    kAllReduce,
    kReduceScatter,
    kAllGather,
    kAllToAll,
    kBroadcast,
    kSend,
    kRecv,
    kBarrier
  } kind = kBarrier;
  ReduceOp reduce = ReduceOp::kSum;
  DType dtype = DType::kF32;
  int64_t count = 0;  // elements in `in`; out holds count * size (all-gather) or count / size (reduce-scatter)
  int peer = -1;      // group rank: root of a broadcast, partner of send and recv
  const void* in = nullptr;
  void* out = nullptr;  // in place where NCCL allows it: the shard is its own slice of the whole
  // All-to-all: nobody reads what a member would give itself, so a transport need not copy it.
  bool own_unread = false;
};
const char* Name(Collective::Kind kind);  // "all-reduce", ...
// Bytes that one of n ranks sends by the usual ring: all-reduce 2(n-1)/n of the input, all-gather (n-1) inputs, ...
double BytesSent(const Collective& c, int n);

struct CommSpec {
  std::string name;
  std::vector<int> ranks;
  bool operator==(const CommSpec&) const = default;
};

// A group of ranks that all issue the same sequence. Issue() from one thread; Poll() and Abort() from any.
class Communicator {
 public:
  virtual ~Communicator() = default;         // does nothing that can block or fail: call Close()
  virtual const CommSpec& spec() const = 0;  // name ("dp", "edge 2->3 activation"), ranks
  // Ordered on `stream`; the calls of one span start together (ncclGroup), so a send and a receive cannot deadlock.
  // Errors: Unavailable (peer lost, with the first cause), DeadlineExceeded.
  virtual absl::Status Issue(std::span<const Collective> calls, Stream stream) = 0;
  virtual absl::Status Poll() = 0;                    // asynchronous errors; never blocks
  virtual void Abort(const absl::Status& cause) = 0;  // wakes all members; later calls return `cause`
  virtual absl::Status Close() = 0;                   // collective
};

class RankLedger;  // core/comm/rank_ledger.h

class World {  // a rank's place in the job
 public:
  virtual ~World() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Collective over the whole world, in one order, before step 1; null for ranks outside the group, as for CommSpec{}.
  virtual absl::StatusOr<std::unique_ptr<Communicator>> Connect(const CommSpec& group) = 0;
  // Where this rank says what it does, for reports about hangs; null where nobody would read it. Lives as long as the world.
  virtual RankLedger* ledger() { return nullptr; }
};

}  // namespace strata
