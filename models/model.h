#pragma once
// What everything outside of models/ needs to know of an architecture, as a row of a table.

#include <string_view>
#include <vector>

#include "core/graph/builder.h"
#include "core/mesh/mesh.h"
#include "core/ops/attention.h"
#include "models/model_config.h"
#include "models/packing.h"
#include "parallel/shard/pins.h"

namespace strata {

struct LossSpec {
  int64_t batch = 1;          // sequences of one micro-batch over all data-parallel ranks
  DType dtype = DType::kF32;  // of parameters and activations
  int chunks = 1;             // pieces of the sequence whose logits exist at a time
  double dropout = 0;         // 0 for evaluation
  Packing packing = Packing::kConcat;
};

// Graph inputs: tokens, targets i32 [B,S]; weights [B,S] (loss mask), positions i32 [S], loss_scale [] (cotangent of loss);
// with dropout also samples i32 [B] (index of each sequence in the run, modulo 2^31); with kIsolate, which needs causal
// attention, also document_starts i32 [B,S] (the position at which each token's document begins in its row).
struct ModelLoss {
  Value loss;  // [] sum over tokens of weight * negative log-likelihood, nats
  Value loss_scale;
  std::vector<Value> params;  // reads, in order of declaration; one a state
  std::vector<StateId> states;
};

struct ModelSize {
  int64_t parameters = 0;
  int64_t matmul_weights = 0;  // weights that each token is multiplied with: a tied head counts, a look-up does not
};

struct InitSpec {  // normal(mean, std)
  double mean = 0, std = 0;
};

// How the tensors of a model are laid out on the axis tp.
struct TensorParallel {
  int size = 1;
  bool sequence = false;  // the residual stream is sharded along the sequence, not replicated
};

// What the rows of data are made to teach.
enum class Objective : uint8_t { kNextToken, kMaskedToken };

struct Model {
  Objective objective = Objective::kNextToken;
  AttentionMask attention = AttentionMask::kCausal;
  ModelLoss (*loss)(GraphBuilder& g, const ModelConfig& config, const LossSpec& spec) = nullptr;
  // Graph inputs tokens, positions; output "logits" [B,S,V]. Null: the model generates no text.
  Value (*logits)(GraphBuilder& g, const ModelConfig& config, int64_t batch, DType dtype) = nullptr;
  // Mesh axes, outermost first, without those of size 1; and the placement table on them.
  std::vector<MeshAxis> (*axes)(const ModelConfig& config, int dp, int tp) = nullptr;
  std::vector<Pin> (*pins)(const ModelConfig& config, const TensorParallel& tp) = nullptr;
  InitSpec (*init)(const ModelConfig& config, std::string_view parameter) = nullptr;
  ModelSize (*size)(const ModelConfig& config) = nullptr;
};
const Model& ModelOf(ModelArch arch);

// Floating-point operations of one trained token: 6 a matmul weight and 12 L E S of attention, of which causality needs
// half (PaLM, Chowdhery et al. 2022, appendix B).
double FlopsPerToken(const ModelConfig& config);

// Chunks of the loss, a power of two that divides seq. On caches: as many as keep a chunk at 128 positions or more. Where one
// kernel reads the logits once, as few as keep those of `rows` sequences in bf16 within `bytes`: each chunk adds to the head's
// gradient.
int LossChunks(const ModelConfig& config);
int LossChunksWithin(const ModelConfig& config, int64_t rows, int64_t bytes);

}  // namespace strata
