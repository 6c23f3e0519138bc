#pragma once
// A Llama written directly with ops, with backward and gradient accumulators, for tests of the shard pass; and its
// layouts.

#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/graph/graph.h"
#include "parallel/shard/pins.h"
#include "tests/testing/interpreter.h"

namespace strata::testing {

struct TinyLlama {
  int64_t B = 4, S = 8, E = 16, H = 4, Hk = 2, D = 4, F = 24, V = 32;
  int layers = 2;
  DType dtype = DType::kF64;
  int head_chunks = 0;  // 0: logits whole, and an output; else HeadLoss, decomposed
};

// Inputs tokens, targets, weights [B, S], positions [S], loss_scale []; outputs "loss" and, without chunks, "logits".
// Parameters "embed", "blocks.0.attn.q", ..., "norm", "head"; residual boundaries "embed.residual",
// "blocks.0.mid.residual", "blocks.0.residual". The running sum "loss_sum" is a buffer.
absl::StatusOr<Graph> BuildTinyLlama(const TinyLlama& config);

// Whole tensors for all of its inputs and states.
std::map<std::string, Tensor> TinyLlamaBindings(const Graph& graph, const TinyLlama& config);

enum class Residual : uint8_t { kReplicated, kSequenceParallel };
// The layout on any of the axes dp, cp, tp (or tp.o, tp.i) that the mesh has. kv heads that a tp axis does not divide
// are replicated on it.
std::vector<Pin> TinyLlamaPins(const std::vector<MeshAxis>& mesh, Residual residual, const TinyLlama& config);

}  // namespace strata::testing
