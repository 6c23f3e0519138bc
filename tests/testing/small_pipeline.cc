#include "tests/testing/small_pipeline.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <set>

#include "absl/strings/str_format.h"
#include "core/base/philox.h"
#include "core/base/status.h"
#include "core/exec/cpu_device.h"
#include "core/graph/builder.h"
#include "core/kernels/cpu_kernels.h"
#include "core/ops/collective.h"
#include "core/ops/elementwise.h"
#include "core/ops/linear.h"
#include "core/ops/move.h"
#include "parallel/comm/thread_world.h"

namespace strata::testing {
namespace {

constexpr int64_t kRows = 8, kWidth = 8;
constexpr int kDataAxis = 1;

Layout OnData(Placement p) {
  Layout layout{};
  layout[kDataAxis] = p;
  return layout;
}

// The graph of one pipeline rank: its stages one after the other, then the step.
class RankGraph {
 public:
  RankGraph(const SmallPipeline& pipeline, int rank) : pipeline_(pipeline), rank_(rank) {}

  absl::StatusOr<Graph> Build() && {
    for (int stage = 0; stage < pipeline_.stages(); ++stage) {
      if (pipeline_.rank_of[stage] == rank_) Stage(static_cast<int16_t>(stage));
    }
    Begin(Phase::kStep, 0);
    for (const auto& [param, grad] : grads_) {
      const Value step = Lay(Scale(g_, grad, -0.1), Kept());
      g_.Update(param, Lay(Add(g_, g_.Read(param), step), Kept()));
    }
    if (loss_.valid()) g_.Output("loss", loss_);
    return std::move(g_).Build();
  }

 private:
  struct Layer {
    StateId weight;
    Value gathered;  // where it is sharded
    Value x, z;
  };

  void Begin(Phase phase, int16_t stage) {
    Mark();
    g_.set_phase(phase);
    stage_ = stage;
  }
  // Nodes since the last call belong to the stage.
  void Mark() {
    auto& nodes = g_.mutable_graph().nodes;
    for (; marked_ < nodes.size(); ++marked_) nodes[marked_].stage = stage_;
  }
  Value Lay(Value v, Placement p) {
    if (v.valid()) g_.mutable_graph().nodes[v.node].outputs[v.output].layout = OnData(p);
    return v;
  }
  Value Rows(Value v) { return Lay(v, Shard(0)); }
  bool shards() const { return pipeline_.weights == SmallPipeline::Weights::kSharded; }
  Placement Kept() const {
    return shards() ? Shard(0) : Replicate();
  }  // of parameters and their gradients, once a step
  Value Input(const std::string& name) {
    const auto& inputs = g_.graph().inputs;
    if (const auto it = inputs.find(name); it != inputs.end()) return it->second;
    return g_.Input(name, {DType::kF64, {kRows, kWidth}, OnData(Shard(0))});
  }

  void Stage(int16_t stage) {
    const bool first = stage == 0, last = stage == pipeline_.stages() - 1;
    const int per_stage = pipeline_.layers / pipeline_.stages();
    const int first_layer = stage * per_stage;
    std::vector<Layer> layers;
    for (int l = first_layer; l < first_layer + per_stage; ++l) layers.push_back(Weight(stage, l));
    Begin(Phase::kForward, stage);
    Value x = Input(first ? "x" : absl::StrFormat("recv.act.0.%d", stage));
    for (Layer& layer : layers) {
      g_.Push("forward." + g_.graph().states[layer.weight].name);
      layer.x = x;
      layer.z = Rows(Linear(g_, x, Whole(layer)));
      x = Rows(Add(g_, Rows(Silu(g_, layer.z)), Input("c")));
      g_.Pop();
    }
    Value dy;
    if (last) {
      const Value t = Input("t");
      SumLoss(Lay(ReduceSumAll(g_, Rows(Mul(g_, x, t))), Partial()));
      dy = t;
    } else {
      g_.Output(absl::StrFormat("send.act.0.%d", stage), x);
      Begin(Phase::kInputGrad, stage);
      dy = Input(absl::StrFormat("recv.grad.0.%d", stage));
    }
    BackwardOf(stage, layers, dy);
  }

  Layer Weight(int16_t stage, int layer) {
    Begin(Phase::kUnshard, stage);
    const std::string name = absl::StrFormat("w.%d", layer);
    const StateId weight = g_.Declare({name, Role::kParam, {DType::kF64, {kWidth, kWidth}, OnData(Kept())}});
    if (!shards()) return {weight, {}, {}, {}};
    return {weight, Convert(g_, g_.Read(weight), 1 << kDataAxis, Shard(0), Replicate()), {}, {}};
  }
  Value Whole(const Layer& layer) { return shards() ? layer.gathered : g_.Read(layer.weight); }

  void SumLoss(Value loss) {
    const StateId sum = g_.Declare({"loss", Role::kBuffer, {DType::kF64, {}, OnData(Partial())}});
    g_.Update(sum, Lay(Accumulate(g_, g_.Read(sum), loss), Partial()));
    Begin(Phase::kStep, stage_);
    loss_ = Reduced(g_.Read(sum));
  }

  void BackwardOf(int16_t stage, const std::vector<Layer>& layers, Value dy) {
    for (size_t i = layers.size(); i-- > 0;) {
      const Layer& layer = layers[i];
      const std::string name = g_.graph().states[layer.weight].name;
      g_.Push("backward." + name);
      Begin(Phase::kInputGrad, stage);
      const Value dz = Rows(SiluDx(g_, dy, layer.z));
      if (stage > 0 || i > 0) dy = Rows(LinearDx(g_, dz, Whole(layer)));
      if (stage > 0 && i == 0) g_.Output(absl::StrFormat("send.grad.0.%d", stage), dy);
      Begin(Phase::kWeightGrad, stage);
      const StateId grad =
          g_.Declare({"grad." + name, Role::kGrad, {DType::kF64, {kWidth, kWidth}, OnData(Partial())}});
      const Value dw = Lay(LinearDw(g_, dz, layer.x), Partial());
      g_.Update(grad, Lay(Accumulate(g_, g_.Read(grad), dw), Partial()));
      Begin(pipeline_.reduce == SmallPipeline::Reduce::kByStage ? Phase::kReduce : Phase::kStep, stage);
      const Value sum = g_.Read(grad);
      grads_.emplace_back(layer.weight,
                          shards() ? Convert(g_, sum, 1 << kDataAxis, Partial(), Shard(0)) : Reduced(sum));
      g_.Pop();
    }
  }
  Value Reduced(Value v) {
    if (pipeline_.dp == 1) return v;
    return Convert(g_, v, 1 << kDataAxis, Partial(), Replicate(), CollectiveOp::Storage::kInPlace);
  }

  const SmallPipeline& pipeline_;
  const int rank_;
  GraphBuilder g_;
  size_t marked_ = 0;
  int16_t stage_ = 0;
  std::vector<std::pair<StateId, Value>> grads_;
  Value loss_;
};

// Adds sends, receives and copies to the compute lists, each transfer as soon as its value is there; then the reductions.
class EventOrder {
 public:
  explicit EventOrder(const SmallPipeline& p) : p_(p), next_(p.ranks), held_(p.ranks, -1), actions(p.ranks) {}

  void Run() {
    for (bool moved = true; moved;) {
      moved = false;
      for (int rank = 0; rank < p_.ranks; ++rank) {
        if (next_[rank] >= p_.compute[rank].size() || !IsReady(p_.compute[rank][next_[rank]])) continue;
        const Action& a = p_.compute[rank][next_[rank]++];
        Use(rank, a.stage);
        actions[rank].push_back(a);
        moved = true;
        if (a.kind == Action::kF && a.stage + 1 < p_.stages()) Move(Edge::kActivation, a);
        if ((a.kind == Action::kB || a.kind == Action::kI) && a.stage > 0) Move(Edge::kGradient, a);
      }
    }
    for (int rank = 0; rank < p_.ranks; ++rank) {
      Use(rank, -1);
      for (int16_t s = 0; s < p_.stages(); ++s) {
        const bool reduces = p_.reduce == SmallPipeline::Reduce::kByStage && p_.rank_of[s] == rank;
        if (reduces) actions[rank].push_back({.kind = Action::kReduce, .stage = s});
      }
      actions[rank].push_back({.kind = Action::kUpdate});
    }
  }

 private:
  using Key = std::tuple<Edge::Kind, int, int32_t>;  // receiver's stage, micro-batch
  bool IsReady(const Action& a) const {
    if (a.kind == Action::kF) return a.stage == 0 || arrived_.contains({Edge::kActivation, a.stage, a.micro_batch});
    return a.kind == Action::kW || a.stage + 1 == p_.stages() ||
           arrived_.contains({Edge::kGradient, a.stage, a.micro_batch});
  }
  // Of sharded weights a rank holds one stage at a time.
  void Use(int rank, int16_t stage) {
    int16_t& held = held_[rank];
    if (p_.weights == SmallPipeline::Weights::kWhole || held == stage) return;
    if (held >= 0) actions[rank].push_back({.kind = Action::kReshard, .stage = held});
    if (stage >= 0) actions[rank].push_back({.kind = Action::kUnshard, .stage = stage});
    held = stage;
  }
  void Move(Edge::Kind kind, const Action& a) {
    Edge e{.kind = kind, .stage = a.stage};
    e.from = p_.rank_of[e.stage];
    e.to = p_.rank_of[e.receiver()];
    const auto known =
        std::find_if(edges.begin(), edges.end(), [&](const Edge& o) { return o.kind == e.kind && o.stage == e.stage; });
    const auto edge = static_cast<int16_t>(known - edges.begin());
    if (known == edges.end()) edges.push_back(e);
    const auto add = [&](int rank, Action::Kind k, int stage) {
      actions[rank].push_back(
          {.kind = k, .stage = static_cast<int16_t>(stage), .micro_batch = a.micro_batch, .edge = edge});
    };
    if (e.from == e.to) {
      add(e.from, Action::kCopyLocal, e.stage);
    } else {
      add(e.from, Action::kSend, e.stage);
      add(e.to, Action::kRecv, e.receiver());
    }
    arrived_.insert({kind, e.receiver(), a.micro_batch});
  }

  const SmallPipeline& p_;
  std::vector<size_t> next_;
  std::vector<int16_t> held_;
  std::set<Key> arrived_;

 public:
  std::vector<std::vector<Action>> actions;
  std::vector<Edge> edges;
};

double Number(const std::string& name, int64_t stream, int64_t index) {
  const PhiloxBlock r = Philox(17, HashName(name) + static_cast<uint64_t>(stream), static_cast<uint64_t>(index));
  return PhiloxUniform(r[0]) - 0.5;
}

// The elements of the part of a matrix that a rank holds.
template <typename Fn>
void ForEach(const LocalBox& box, const Shape& global, Fn fn) {
  for (int64_t i = 0; i < box.shape[0]; ++i) {
    for (int64_t j = 0; j < box.shape[1]; ++j) fn((box.origin[0] + i) * global[1] + box.origin[1] + j);
  }
}
void Fill(const std::string& name, int64_t stream, const LocalBox& box, const Shape& global, double* out) {
  ForEach(box, global, [&](int64_t at) { *out++ = Number(name, stream, at); });
}

Action Compute(Action::Kind kind, int stage, int micro_batch) {
  return {.kind = kind, .stage = static_cast<int16_t>(stage), .micro_batch = micro_batch};
}

}  // namespace

SmallPipeline OneRank(int micro_batches, int layers) {
  SmallPipeline p{.layers = layers, .micro_batches = micro_batches, .rank_of = {0}, .compute = {{}}};
  for (int m = 0; m < micro_batches; ++m) {
    p.compute[0].push_back(Compute(Action::kF, 0, m));
    p.compute[0].push_back(Compute(Action::kB, 0, m));
  }
  p.reduce = SmallPipeline::Reduce::kInUpdate;
  return p;
}

SmallPipeline OneForwardOneBackward(int ranks, int micro_batches, Backward backward) {
  SmallPipeline p{.ranks = ranks, .micro_batches = micro_batches, .compute = {}};
  for (int r = 0; r < ranks; ++r) {
    p.rank_of.push_back(r);
    std::vector<Action>& list = p.compute.emplace_back();
    const int warmup = std::min(ranks - 1 - r, micro_batches);
    int f = 0;
    for (; f < warmup; ++f) list.push_back(Compute(Action::kF, r, f));
    for (int b = 0; b < micro_batches; ++b) {
      if (f < micro_batches) list.push_back(Compute(Action::kF, r, f++));
      list.push_back(Compute(backward == Backward::kSplit ? Action::kI : Action::kB, r, b));
      if (backward == Backward::kSplit && b > 0) list.push_back(Compute(Action::kW, r, b - 1));
    }
    if (backward == Backward::kSplit) list.push_back(Compute(Action::kW, r, micro_batches - 1));
  }
  return p;
}

SmallPipeline GPipe(int ranks, int micro_batches) {
  SmallPipeline p{.ranks = ranks, .micro_batches = micro_batches, .compute = {}};
  for (int r = 0; r < ranks; ++r) {
    p.rank_of.push_back(r);
    std::vector<Action>& list = p.compute.emplace_back();
    for (const Action::Kind kind : {Action::kF, Action::kB}) {
      for (int m = 0; m < micro_batches; ++m) list.push_back(Compute(kind, r, m));
    }
  }
  return p;
}

SmallPipeline TwoChunks(int ranks, int micro_batches, Shape2 shape) {
  SmallPipeline p{.ranks = ranks, .micro_batches = micro_batches, .compute = {}};
  p.compute.resize(ranks);
  for (int s = 0; s < 2 * ranks; ++s) {
    p.rank_of.push_back(s < ranks ? s : shape == Shape2::kLoop ? s - ranks : 2 * ranks - 1 - s);
  }
  for (int r = 0; r < ranks; ++r) {
    const int second = shape == Shape2::kLoop ? r + ranks : 2 * ranks - 1 - r;
    for (const auto& [kind, stage] : {std::pair(Action::kF, r), std::pair(Action::kF, second),
                                      std::pair(Action::kB, second), std::pair(Action::kB, r)}) {
      for (int m = 0; m < micro_batches; ++m) p.compute[r].push_back(Compute(kind, stage, m));
    }
  }
  return p;
}

absl::StatusOr<std::vector<Plan>> PlanPipeline(const SmallPipeline& pipeline) {
  static const KernelTable kKernels = CpuKernels();
  EventOrder order(pipeline);
  if (pipeline.actions.empty()) {
    order.Run();
  } else {
    order.actions = pipeline.actions;
    order.edges = pipeline.edges;
  }
  std::vector<Plan> plans;
  const int ranks = pipeline.ranks * pipeline.dp;
  for (int rank = 0; rank < ranks; ++rank) {
    const int stage_rank = rank / pipeline.dp, data_rank = rank % pipeline.dp;
    ASSIGN_OR_RETURN(const Mesh mesh, Mesh::Make({{"pp", pipeline.ranks}, {"dp", pipeline.dp}}, ranks, rank));
    ProgramSpec spec{.name = "train", .actions = order.actions[stage_rank], .edges = order.edges};
    for (Edge& e : spec.edges) {
      e.from = e.from * pipeline.dp + data_rank;
      e.to = e.to * pipeline.dp + data_rank;
    }
    ASSIGN_OR_RETURN(spec.graph, RankGraph(pipeline, stage_rank).Build());
    ASSIGN_OR_RETURN(plans.emplace_back(), BuildPlan({&spec, 1}, mesh, kKernels));
  }
  AlignCommunicators(plans);
  RETURN_IF_ERROR(VerifyPlans(plans));
  return plans;
}

absl::StatusOr<PipelineRun> RunPipelineRank(const Plan& plan, const SmallPipeline& pipeline, World& world,
                                            Executor::Freed freed) {
  CpuDevice device;
  ASSIGN_OR_RETURN(auto executor, Executor::Create(std::make_shared<const Plan>(plan),
                                                   {.device = device, .world = world, .freed = freed}));
  for (const PlannedState& s : plan.states) {
    if (s.role != Role::kParam) continue;
    Fill(s.name, 0, s.box, s.spec.shape, reinterpret_cast<double*>(executor->StateBytes(s).data()));
  }
  std::vector<double> host;
  for (int step = 0; step < 2; ++step) {
    const auto feed = [&](const Port& port, int m) -> absl::StatusOr<std::span<const std::byte>> {
      const TensorRef& view = port.operand.view;
      host.resize(view.shape.elements());
      Fill(port.name, 1 + step * pipeline.micro_batches + m, {view.shape, view.origin}, view.global, host.data());
      return std::as_bytes(std::span<const double>(host));
    };
    RETURN_IF_ERROR(executor->Run("train", {}, feed));
  }
  PipelineRun run;
  for (const PlannedState& s : plan.states) {
    if (s.role != Role::kParam) continue;
    const auto* data = reinterpret_cast<const double*>(executor->StateBytes(s).data());
    std::vector<double>& whole = run.parameters[s.name];
    whole.resize(s.spec.shape.elements(), std::nan(""));
    ForEach(s.box, s.spec.shape, [&](int64_t at) { whole[at] = *data++; });
  }
  if (const auto loss = executor->Output("train", "loss"); loss.ok()) run.loss = *loss->as<const double>();
  const auto peaks = executor->PeakSlots("train");
  run.peak_slots.emplace_back(peaks.begin(), peaks.end());
  const auto times = executor->Timeline("train");
  run.times.emplace_back(times.begin(), times.end());
  RETURN_IF_ERROR(executor->Close());
  return run;
}

std::string Bits(const PipelineRun& run) {
  const auto hash = [](std::span<const double> values) {
    return HashName({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  };
  std::string text;
  for (const auto& [name, values] : run.parameters) absl::StrAppendFormat(&text, "%s %016x; ", name, hash(values));
  absl::StrAppendFormat(&text, "loss %016x", hash({&run.loss, 1}));
  return text;
}

absl::StatusOr<PipelineRun> RunPipeline(const SmallPipeline& pipeline) {
  ASSIGN_OR_RETURN(const std::vector<Plan> plans, PlanPipeline(pipeline));
  PipelineRun all;
  all.peak_slots.resize(plans.size());
  all.times.resize(plans.size());
  std::mutex mutex;
  RETURN_IF_ERROR(RunRanks(static_cast<int>(plans.size()), [&](World& world) -> absl::Status {
    ASSIGN_OR_RETURN(PipelineRun mine, RunPipelineRank(plans[world.rank()], pipeline, world));
    const std::lock_guard lock(mutex);
    all.peak_slots[world.rank()] = mine.peak_slots[0];
    all.times[world.rank()] = mine.times[0];
    if (mine.loss != 0) all.loss = mine.loss;
    for (auto& [name, values] : mine.parameters) {
      std::vector<double>& whole = all.parameters.emplace(name, values).first->second;
      for (size_t i = 0; i < values.size(); ++i) {
        if (std::isnan(values[i])) continue;  // another rank's
        if (std::isnan(whole[i])) whole[i] = values[i];
        if (whole[i] != values[i]) return absl::InternalError(name + " differs between data-parallel ranks");
      }
    }
    return absl::OkStatus();
  }));
  return all;
}

}  // namespace strata::testing
