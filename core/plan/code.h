#pragma once
// The steps of a program by position of the stations, as they are emitted.

#include <vector>

#include "absl/status/statusor.h"
#include "core/plan/lower.h"
#include "core/plan/storage.h"

namespace strata {

class Code {
 public:
  // Both must outlive it.
  Code(int num_positions, StorageMap& storages, LowerContext& context)
      : storages_(storages), context_(context), steps_(num_positions) {}

  void Emit(int position, Step step);
  void EmitBetween(int position, int to, Step step);  // its outputs are of position `to`, there before its step 0
  absl::Status Launch(int position, Step step);       // NotFound: no kernel
  int16_t Comm(CommSpec spec);                        // its index; added where it is new

  const Mesh& mesh() const { return context_.mesh; }
  bool exchanges() const { return context_.exchange; }
  StorageMap& storages() { return storages_; }
  std::vector<std::vector<Step>>& steps() { return steps_; }  // by position
  int64_t workspace_bytes() const { return workspace_bytes_; }

 private:
  StorageMap& storages_;
  LowerContext& context_;
  std::vector<std::vector<Step>> steps_;
  int64_t workspace_bytes_ = 0;
};

// A collective moves whole blocks. Along a dim with others before it, it is a call for each of these where they are few;
// else blocks are swapped to the front before it and back after it. Where the code exchanges(), a sum that is scattered is an all-to-all
// and a launch. `step` has the operands of the node.
class CollectiveOp;
absl::Status LowerCollective(Code& code, int position, const CollectiveOp& op, Step step);

}  // namespace strata
