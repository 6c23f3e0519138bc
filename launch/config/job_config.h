#pragma once
// The whole job: every section of a config file. Plain values; docs/config.md is printed from the descriptions here.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/config.h"
#include "core/tensor/tensor.h"
#include "models/model_config.h"
#include "models/packing.h"
#include "optim/config.h"
#include "parallel/comm/comm_config.h"
#include "parallel/recompute/options.h"
#include "parallel/zero/zero_config.h"

namespace strata {

enum class DeviceKind : uint8_t { kAuto, kCpu, kCuda };
inline constexpr std::string_view kDeviceNames[] = {"auto", "cpu", "cuda"};

struct RunConfig {
  std::string name = "run";
  int64_t seed = 1;
  DeviceKind device = DeviceKind::kAuto;
  bool deterministic = false;
  std::string out;  // empty in the file: runs/NAME

  void Describe(ConfigFields& f);
  void Check(ConfigChecks& c) const;
  bool operator==(const RunConfig&) const = default;
};

struct TokenizerConfig {
  std::string path;

  void Describe(ConfigFields& f);
  bool operator==(const TokenizerConfig&) const = default;
};

struct DataConfig {
  std::vector<WeightedPath>
      train;          // PREFIX of PREFIX.bin and PREFIX.idx; samples are taken in proportion to the weights
  std::string valid;  // PREFIX; empty: no evaluation
  Packing packing = Packing::kConcat;
  int64_t prefetch = 2;  // batches

  void Describe(ConfigFields& f);
  void Check(ConfigChecks& c) const;
  bool operator==(const DataConfig&) const = default;
};

// tokens = micro * accumulate * parallel.dp * model.seq. Any two give the third; once loaded, all three are set.
struct BatchConfig {
  int64_t tokens = 0;
  int64_t micro = 0;
  int64_t accumulate = 0;

  void Describe(ConfigFields& f);
  bool operator==(const BatchConfig&) const = default;
};

inline constexpr std::string_view kComputeNames[] = {"float64", "float32", "bf16"};  // by DType

// What weight gradients are kept in, where compute is bf16.
enum class GradientFormat : uint8_t { kFloat32, kBf16 };
inline constexpr std::string_view kGradientFormatNames[] = {"float32", "bf16"};

struct PrecisionConfig {
  DType compute = DType::kF32;
  GradientFormat gradients = GradientFormat::kFloat32;
  MasterFormat master = MasterFormat::kFloat32;

  void Describe(ConfigFields& f);
  bool operator==(const PrecisionConfig&) const = default;
};

enum class Overlap : uint8_t { kAuto, kOn, kOff };
inline constexpr std::string_view kOverlapNames[] = {"auto", "on", "off"};

// Who adds up what a reduce-scatter sends: the transport; or a kernel of the plan, of shards that were exchanged.
enum class ReduceScatterBy : uint8_t { kAuto, kTransport, kExchange };
inline constexpr std::string_view kReduceScatterByNames[] = {"auto", "transport", "exchange"};

struct ParallelConfig {
  int64_t dp = 1;
  int64_t tp = 1;
  bool sequence_parallel = false;
  bool keep_gathered = false;
  int64_t pp = 1;
  std::string schedule = "1f1b";
  std::string schedule_file;  // empty: `schedule`
  int64_t virtual_stages = 0;
  std::string stage_layout = "auto";
  int64_t resident_stages = 0;
  Overlap overlap = Overlap::kAuto;
  int64_t overlap_groups = 2;
  ReduceScatterBy reduce_scatter = ReduceScatterBy::kAuto;
  ZeroConfig zero;
  CommConfig comm;
  int64_t ranks() const { return dp * tp * pp; }

  void Describe(ConfigFields& f);
  bool operator==(const ParallelConfig&) const = default;
};

struct MemoryConfig {
  std::string limit;  // of one rank: "16GiB"; empty: none
  Recompute recompute = Recompute::kNone;
  int64_t recompute_blocks = 0;

  int64_t limit_bytes() const;  // 0: none; of a checked config
  void Describe(ConfigFields& f);
  void Check(ConfigChecks& c) const;
  bool operator==(const MemoryConfig&) const = default;
};

struct CheckpointConfig {
  int64_t every = 0;
  int64_t keep = 2;
  bool async = true;

  void Describe(ConfigFields& f);
  bool operator==(const CheckpointConfig&) const = default;
};

inline constexpr std::string_view kSinkNames[] = {"jsonl", "tensorboard", "prometheus"};

struct LogConfig {
  int64_t every = 10;
  std::vector<std::string> sinks = {"jsonl"};

  void Describe(ConfigFields& f);
  void Check(ConfigChecks& c) const;
  bool operator==(const LogConfig&) const = default;
};

enum class GuardAction : uint8_t { kHalt, kSkip };
inline constexpr std::string_view kGuardActionNames[] = {"halt", "skip"};

struct GuardConfig {
  GuardAction nan = GuardAction::kHalt;
  double spike_z = 0;
  GuardAction spike = GuardAction::kHalt;
  int64_t window = 50;
  int64_t hang_timeout = 60;  // seconds

  void Describe(ConfigFields& f);
  bool operator==(const GuardConfig&) const = default;
};

struct EvalConfig {
  int64_t every = 0;
  int64_t batches = 0;

  void Describe(ConfigFields& f);
  bool operator==(const EvalConfig&) const = default;
};

struct JobConfig {
  RunConfig run;
  ModelConfig model;
  TokenizerConfig tokenizer;
  DataConfig data;
  BatchConfig batch;
  OptimConfig optim;
  ScheduleConfig schedule;
  PrecisionConfig precision;
  ParallelConfig parallel;
  MemoryConfig memory;
  CheckpointConfig checkpoint;
  LogConfig log;
  EvalConfig eval;
  GuardConfig guard;

  bool operator==(const JobConfig&) const = default;
};

struct ConfigSection {
  std::string name;
  std::string_view doc;
  std::vector<ConfigField> fields;  // point into the job
  // Where the keys depend on one of them: which one it is, 'model.arch = "gpt2"', and the keys that only others have.
  std::string kind;
  std::vector<std::string> keys_of_others;
};

std::vector<ConfigSection> DescribeJob(JobConfig& job);  // every section, in the order of the struct

// Checks limits and everything between fields, and fills in what follows from other fields: batch.* and run.out.
// `checks` holds what reading found already.
void CompleteJob(JobConfig& job, ConfigChecks& checks);

}  // namespace strata
