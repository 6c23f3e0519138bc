#include "optim/optimizer_pass.h"

#include <gtest/gtest.h>

#include <cmath>

#include "absl/strings/str_format.h"
#include "core/base/philox.h"
#include "core/base/status.h"
#include "core/graph/builder.h"
#include "core/graph/op.h"
#include "parallel/comm/counting.h"
#include "parallel/comm/thread_world.h"
#include "parallel/zero/bucket_pass.h"
#include "tests/testing/interpreter.h"

namespace strata {
namespace {

using testing::Tensor;
using Vector = std::vector<double>;

struct Param {
  std::string name;
  Shape shape;
  Placement on_axis0;  // on mesh axis 0
};
const std::vector<Param> kParams = {{"blocks.0.w", {6, 10}, Shard(0)},
                                    {"blocks.0.norm", {10}, Replicate()},
                                    {"embed", {8, 33}, Shard(0)},
                                    {"head", {4, 5}, Replicate()}};

OptimConfig Config(double clip) {
  OptimConfig c;
  c.eps = 1e-6;
  c.weight_decay = 0.3;
  c.clip = clip;
  return c;
}

Vector Gradient(const Param& p, int step) {
  Vector g(static_cast<size_t>(p.shape.elements()));
  const double scale = step % 3 == 0 ? 0.01 : 1;  // clipped in two steps of three
  for (size_t i = 0; i < g.size(); ++i) g[i] = scale * PhiloxNormal(Philox(5, HashName(p.name), i + 1000 * step));
  return g;
}
Vector InitialWeights(const Param& p) { return Gradient(p, 1'000'000); }

// A training step without a model: parameters that are read, and their gradients as states. Buckets and optimizer on top.
class Training {
 public:
  static absl::StatusOr<Training> Make(DType dtype, const OptimConfig& config, const Mesh& mesh, bool sharded) {
    GraphBuilder g;
    for (const Param& p : kParams) {
      Layout layout{};
      if (sharded) layout[0] = p.on_axis0;
      g.Read(g.Declare({p.name, Role::kParam, {dtype, p.shape, layout}}));
      g.Declare({"grad." + p.name, Role::kGrad, {AccumulatorOf(dtype), p.shape, layout}});
    }
    ASSIGN_OR_RETURN(Graph graph, std::move(g).Build());
    ASSIGN_OR_RETURN(Bucketed bucketed, BucketPass(std::move(graph), mesh));
    Training t(mesh);
    ASSIGN_OR_RETURN(t.graph_, ApplyOptimizer(std::move(bucketed), mesh, config));
    for (const State& s : t.graph_.states) {
      if (s.storage < 0) t.states_[s.name] = Tensor::Zeros(s.spec.dtype, s.spec.shape);
    }
    for (const Param& p : kParams) {
      t.Set(p.name, InitialWeights(p));
      if (dtype == DType::kBF16) t.Set(p.name + ".master", t.Get(p.name));
    }
    return t;
  }

  absl::Status Step(int step, StepScalars scalars, World* world = nullptr) {
    for (const Param& p : kParams) Set("grad." + p.name, Gradient(p, step));
    scalars.step = static_cast<uint64_t>(step);
    testing::EvalOptions options;
    options.scalars = scalars;
    options.mesh = &mesh_;
    options.world = world;
    ASSIGN_OR_RETURN(const auto values, testing::Evaluate(graph_, states_, options));
    const Value norm = graph_.outputs.at("grad_norm");
    grad_norm_ = values[norm.node][norm.output].at(0);
    return absl::OkStatus();
  }

  // This rank's part of a state that is a view; all are sharded on dim 0 or not at all.
  Vector Get(const std::string& name) {
    const auto [flat, at, count, from] = Find(name);
    Vector x(static_cast<size_t>(count));
    for (int64_t i = 0; i < count; ++i) x[i] = flat->at(at + i);
    return x;
  }
  // From the whole tensor.
  void Set(const std::string& name, const Vector& whole) {
    const auto [flat, at, count, from] = Find(name);
    for (int64_t i = 0; i < count; ++i) flat->set(at + i, whole[from + i]);
  }

  double grad_norm() const { return grad_norm_; }
  const Graph& graph() const { return graph_; }
  std::map<std::string, Tensor>& states() { return states_; }

 private:
  struct View {
    Tensor* flat;
    int64_t at, count, from;  // elements: in the flat state; and first one of this rank's part in the whole tensor
  };
  explicit Training(const Mesh& mesh) : mesh_(mesh) {}
  View Find(const std::string& name) {
    for (const State& s : graph_.states) {
      if (s.name != name || s.storage < 0) continue;
      const LocalBox box = *LocalBoxOf(s.spec.shape, s.spec.layout, mesh_);
      return {&states_.at(graph_.states[s.storage].name), s.storage_offset, box.shape.elements(),
              box.origin[0] * s.spec.shape.elements() / s.spec.shape[0]};
    }
    ADD_FAILURE() << "no view " << name;
    return {};
  }

  Mesh mesh_;
  Graph graph_;
  std::map<std::string, Tensor> states_;
  double grad_norm_ = 0;
};

// The same in a plain loop.
class PlainAdamW {
 public:
  explicit PlainAdamW(const OptimConfig& config) : c_(config) {
    for (const Param& p : kParams) {
      const Vector w = InitialWeights(p);
      params_[p.name] = {w, Vector(w.size()), Vector(w.size())};
    }
  }
  void Round(double (*round)(double)) {
    for (auto& [name, p] : params_) {
      for (double& w : p.w) w = round(w);
    }
  }
  void Step(int t, double lr) {
    double squares = 0;
    for (const Param& p : kParams) {
      for (double g : Gradient(p, t)) squares += g * g;
    }
    grad_norm = std::sqrt(squares);
    const double clip = c_.clip > 0 && grad_norm > c_.clip ? c_.clip / (grad_norm + 1e-6) : 1;
    for (const Param& p : kParams) {
      auto& [w, m, v] = params_[p.name];
      const Vector grad = Gradient(p, t);
      const double decay = p.name == "blocks.0.norm" ? 0 : c_.weight_decay;
      for (size_t i = 0; i < w.size(); ++i) {
        const double g = grad[i] * clip;
        m[i] = c_.beta1 * m[i] + (1 - c_.beta1) * g;
        v[i] = c_.beta2 * v[i] + (1 - c_.beta2) * g * g;
        const double m_hat = m[i] / (1 - std::pow(c_.beta1, t)), v_hat = v[i] / (1 - std::pow(c_.beta2, t));
        w[i] = w[i] - lr * (m_hat / (std::sqrt(v_hat) + c_.eps) + decay * w[i]);
      }
    }
  }
  struct State {
    Vector w, m, v;
  };
  const State& at(const std::string& name) const { return params_.at(name); }
  double grad_norm = 0;

 private:
  OptimConfig c_;
  std::map<std::string, State> params_;
};

double MaxDiff(const Vector& a, const Vector& b) {
  double d = a.size() == b.size() ? 0 : 1e9;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) d = std::max(d, std::abs(a[i] - b[i]));
  return d;
}
Vector Rounded(Vector x) {
  for (double& v : x) v = static_cast<float>(BF16(static_cast<float>(v)));
  return x;
}

class AdamWTest : public ::testing::TestWithParam<std::pair<DType, double>> {};
INSTANTIATE_TEST_SUITE_P(DTypes, AdamWTest,
                         ::testing::Values(std::pair(DType::kF64, 1e-12), std::pair(DType::kF32, 1e-5),
                                           std::pair(DType::kBF16, 1e-5)));

TEST_P(AdamWTest, EqualsThePlainLoopOverTwentySteps) {
  const auto [dtype, tolerance] = GetParam();
  const bool mixed = dtype == DType::kBF16;
  const OptimConfig config = Config(2);
  Training training = *Training::Make(dtype, config, Mesh(), false);
  PlainAdamW plain(config);
  if (mixed) plain.Round([](double w) -> double { return static_cast<float>(BF16(static_cast<float>(w))); });
  int clipped = 0;
  for (int t = 1; t <= 20; ++t) {
    const double lr = 0.1 / t;
    ASSERT_EQ(training.Step(t, {.lr = lr}), absl::OkStatus());
    plain.Step(t, lr);
    EXPECT_NEAR(training.grad_norm(), plain.grad_norm, tolerance * 100);
    clipped += plain.grad_norm > config.clip;
  }
  EXPECT_EQ(clipped, 14);
  for (const Param& p : kParams) {
    const PlainAdamW::State& want = plain.at(p.name);
    EXPECT_LE(MaxDiff(training.Get(p.name + ".exp_avg"), want.m), tolerance) << p.name;
    EXPECT_LE(MaxDiff(training.Get(p.name + ".exp_avg_sq"), want.v), tolerance) << p.name;
    EXPECT_LE(MaxDiff(training.Get(mixed ? p.name + ".master" : p.name), want.w), tolerance) << p.name;
    const Vector live = training.Get(p.name);
    EXPECT_EQ(live, mixed ? Rounded(training.Get(p.name + ".master")) : live) << p.name;
  }
}

TEST_P(AdamWTest, PaddingStaysZero) {
  Training training = *Training::Make(GetParam().first, Config(2), Mesh(), false);
  for (int t = 1; t <= 2; ++t) ASSERT_EQ(training.Step(t, {.lr = 0.1}), absl::OkStatus());
  for (const Param& p : kParams) {  // what is left is padding
    for (const State& s : training.graph().states) {
      if (s.name.find(p.name) == 0 || s.name == "grad." + p.name) training.Set(s.name, Vector(p.shape.elements()));
    }
  }
  for (const auto& [name, tensor] : training.states()) EXPECT_EQ(testing::MaxAbs(tensor), 0) << name;
}

TEST_P(AdamWTest, SkippingAnUpdateChangesNothing) {
  Training training = *Training::Make(GetParam().first, Config(2), Mesh(), false);
  ASSERT_EQ(training.Step(1, {.lr = 0.1}), absl::OkStatus());
  const std::map<std::string, Tensor> before = training.states();
  ASSERT_EQ(training.Step(1, {.lr = 0.1, .skip_update = 1}), absl::OkStatus());
  for (const auto& [name, tensor] : before) EXPECT_EQ(tensor.data, training.states().at(name).data) << name;
  ASSERT_EQ(training.Step(1, {.lr = 0.1}), absl::OkStatus());
  EXPECT_NE(before.at("bucket.embed.params").data, training.states().at("bucket.embed.params").data);
}

// Weights of SGD with momentum in a plain loop; clipped in some steps, decayed but for the norm.
std::map<std::string, Vector> PlainSgd(const OptimConfig& c, int steps, double lr) {
  std::map<std::string, Vector> w, u;
  for (const Param& p : kParams) {
    w[p.name] = InitialWeights(p);
    u[p.name] = Vector(w[p.name].size());
  }
  for (int t = 1; t <= steps; ++t) {
    double squares = 0;
    for (const Param& p : kParams) {
      for (double g : Gradient(p, t)) squares += g * g;
    }
    const double norm = std::sqrt(squares), clip = c.clip > 0 && norm > c.clip ? c.clip / (norm + 1e-6) : 1;
    for (const Param& p : kParams) {
      const Vector grad = Gradient(p, t);
      const double decay = p.name == "blocks.0.norm" ? 0 : c.weight_decay;
      for (size_t i = 0; i < grad.size(); ++i) {
        double &wi = w[p.name][i], &ui = u[p.name][i];
        const double g = grad[i] * clip + decay * wi;
        ui = c.momentum * ui + g;
        wi -= lr * (c.nesterov ? g + c.momentum * ui : ui);
      }
    }
  }
  return w;
}

TEST(SgdTest, EqualsThePlainLoop) {
  for (bool nesterov : {false, true}) {
    OptimConfig config = Config(2);
    config.type = OptimizerType::kSgd;
    config.momentum = 0.8;
    config.nesterov = nesterov;
    for (const auto& [dtype, tolerance] :
         {std::pair(DType::kF64, 1e-12), std::pair(DType::kF32, 1e-5), std::pair(DType::kBF16, 0.05)}) {
      Training training = *Training::Make(dtype, config, Mesh(), false);
      for (int t = 1; t <= 10; ++t) ASSERT_EQ(training.Step(t, {.lr = 0.1}), absl::OkStatus());
      ASSERT_EQ(training.Step(11, {.lr = 0.1, .skip_update = 1}), absl::OkStatus());
      const std::map<std::string, Vector> want = PlainSgd(config, 10, 0.1);
      for (const Param& p : kParams) {
        EXPECT_LE(MaxDiff(training.Get(p.name), want.at(p.name)), tolerance) << p.name << " " << Name(dtype);
        if (dtype == DType::kBF16) {
          EXPECT_EQ(training.Get(p.name), Rounded(training.Get(p.name + ".master")));
        }
      }
    }
  }
}

// After one step from zero, m = (1 - beta1) g * min(1, clip / (norm + 1e-6)).
TEST(ClipTest, ScalesByTheNormOnlyWhereItIsAbove) {
  PlainAdamW plain(Config(0));
  plain.Step(1, 0);
  const double norm = plain.grad_norm;
  for (const auto& [clip, factor] : std::map<double, double>{
           {0, 1}, {norm * 2, 1}, {norm / 2, norm / 2 / (norm + 1e-6)}, {1e-3, 1e-3 / (norm + 1e-6)}}) {
    Training training = *Training::Make(DType::kF64, Config(clip), Mesh(), false);
    ASSERT_EQ(training.Step(1, {.lr = 0.1}), absl::OkStatus());
    EXPECT_NEAR(training.grad_norm(), norm, 1e-13);
    for (const Param& p : kParams) {
      const Vector m = training.Get(p.name + ".exp_avg"), grad = Gradient(p, 1);
      for (size_t i = 0; i < m.size(); ++i) {
        if (factor == 1) {
          ASSERT_EQ(m[i], (1 - 0.9) * grad[i]);
        } else {
          ASSERT_NEAR(m[i] / ((1 - 0.9) * grad[i] * factor), 1, 1e-14);
        }
      }
    }
  }
}

TEST(GradNormTest, ShardedAndReplicatedEntriesAddUpToTheOneRankNorm) {
  const OptimConfig config = Config(2);
  Training whole = *Training::Make(DType::kF64, config, Mesh(), false);
  ASSERT_EQ(whole.Step(1, {.lr = 0.1}), absl::OkStatus());
  EXPECT_EQ(RunRanks(2,
                     [&](World& inner) -> absl::Status {
                       CountingWorld world(inner);
                       ASSIGN_OR_RETURN(const Mesh mesh, Mesh::Make({{"tp", 2}, {"single", 1}}, 2, world.rank()));
                       ASSIGN_OR_RETURN(Training part, Training::Make(DType::kF64, config, mesh, true));
                       RETURN_IF_ERROR(part.Step(1, {.lr = 0.1}, &world));
                       if (std::abs(part.grad_norm() - whole.grad_norm()) > 1e-13) {
                         return absl::InternalError(
                             absl::StrFormat("norm %.17g, not %.17g", part.grad_norm(), whole.grad_norm()));
                       }
                       for (const Node& n : part.graph().nodes) {
                         if (n.op->name() != "all_reduce") continue;
                         const Layout from = part.graph().spec(n.inputs[0]).layout, to = n.outputs[0].layout;
                         if (!from[0].is_partial() || to != Layout{}) return absl::InternalError("layouts of the norm");
                       }
                       CommCounts want;  // one scalar, whatever the number of parameters and buckets
                       want["tp"][Collective::kAllReduce] = {1, 8};
                       want["tp"][Collective::kBarrier] = world.counts().at("tp")[Collective::kBarrier];
                       if (world.counts() != want) return absl::InternalError(ToString(world.counts()));
                       for (const Param& p : kParams) {
                         const Vector all = whole.Get(p.name), mine = part.Get(p.name);
                         const size_t first =
                             p.on_axis0.is_shard() ? mine.size() * static_cast<size_t>(world.rank()) : 0;
                         const Vector slice(all.begin() + static_cast<std::ptrdiff_t>(first),
                                            all.begin() + static_cast<std::ptrdiff_t>(first + mine.size()));
                         if (MaxDiff(mine, slice) > 1e-13) return absl::InternalError(p.name);
                       }
                       return absl::OkStatus();
                     }),
            absl::OkStatus());
}

TEST(GradNormTest, NothingShardedNeedsNoCollective) {
  const Mesh mesh = *Mesh::Make({{"dp", 2}}, 2, 0);
  Training training = *Training::Make(DType::kF64, Config(2), mesh, false);
  EXPECT_EQ(training.Step(1, {.lr = 0.1}), absl::OkStatus());  // without a world
}

}  // namespace
}  // namespace strata
