#include "optim/config.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace strata {

void OptimConfig::Describe(ConfigFields& f) {
  const bool adamw = type == OptimizerType::kAdamW;
  f.AddChoice("type", type, kOptimizerTypeNames, {.doc = "optimizer"});
  f.Add("lr", lr, {.doc = "peak learning rate, before schedule.scaling", .min = 0, .max = 100});
  if (adamw) {
    f.Add("beta1", beta1, {.doc = "decay of the first moment, a step", .min = 0, .max = 0.999999});
    f.Add("beta2", beta2, {.doc = "decay of the second moment, a step", .min = 0, .max = 0.99999999});
    f.Add("eps", eps, {.doc = "added to the root of the second moment", .min = 1e-20, .max = 1});
  } else {
    f.Add("momentum", momentum, {.doc = "part of the last update that the next one keeps", .min = 0, .max = 0.999999});
    f.Add("nesterov", nesterov, {.doc = "look one update of the momentum ahead"});
  }
  f.Add("weight_decay", weight_decay,
        {.doc = adamw ? "decoupled decay: a step takes lr * weight_decay of a weight away"
                      : "decay: weight_decay of a weight is added to its gradient",
         .min = 0,
         .max = 10});
  f.Add("clip", clip, {.doc = "largest global gradient norm; 0 = no clipping", .min = 0, .max = 1e9});
  f.Add("no_decay", no_decay, {.doc = "parameters without weight decay: name patterns, * is any text"});
}

void OptimConfig::Check(ConfigChecks& c) const {
  if (type == OptimizerType::kSgd && nesterov && momentum == 0 && c.Ok({"optim.nesterov", "optim.momentum"})) {
    c.Add(ConfigErrorKind::kContradiction, "optim.nesterov", "true", "needs optim.momentum, which is 0", "false");
  }
  for (const std::string& pattern : no_decay) {
    if (!pattern.empty()) continue;
    c.Add(ConfigErrorKind::kOutOfRange, "optim.no_decay", "\"\"", "a pattern must not be empty");
  }
}

void ScheduleConfig::Describe(ConfigFields& f) {
  f.AddChoice("type", type, kScheduleTypeNames, {.doc = "shape after warmup; wsd = warmup, stable, decay"});
  f.Add("steps", steps, {.doc = "length of the run", .unit = "steps", .min = 1, .max = 1e9});
  f.Add("warmup", warmup,
        {.doc = "linear rise to the peak: from 0, or with linear scaling from optim.lr",
         .unit = "steps",
         .min = 0,
         .max = 1e9});
  f.Add("decay", decay, {.doc = "final fall of wsd; only for wsd", .unit = "steps", .min = 0, .max = 1e9});
  f.Add("min_lr", min_lr, {.doc = "last learning rate as a part of the peak", .min = 0, .max = 1});
  f.AddChoice("scaling", scaling, kLrScalingNames,
              {.doc = "the peak: optim.lr as it is, or times batch.tokens / base_tokens"});
  f.Add("base_tokens", base_tokens,
        {.doc = "batch.tokens that optim.lr was chosen for; only for linear scaling",
         .unit = "tokens",
         .min = 0,
         .max = int64_t{1} << 32});
}

void ScheduleConfig::Check(ConfigChecks& c) const {
  const bool scales = scaling == LrScaling::kLinear;
  if (c.Ok({"schedule.scaling", "schedule.base_tokens"}) && scales != (base_tokens > 0)) {
    c.Add(ConfigErrorKind::kContradiction, "schedule.base_tokens", absl::StrCat(base_tokens),
          scales ? "is needed by schedule.scaling = \"linear\": the batch that optim.lr was chosen for"
                 : "is used by schedule.scaling = \"linear\" only",
          scales ? "" : "0");
  }
  if (c.Ok({"schedule.steps", "schedule.warmup"}) && warmup > steps) {
    c.Add(ConfigErrorKind::kContradiction, "schedule.warmup", absl::StrCat(warmup),
          absl::StrFormat("must be at most schedule.steps = %d", steps), absl::StrCat(steps));
  }
  if (!c.Ok({"schedule.type", "schedule.decay"}) || decay == 0) return;
  if (type != ScheduleType::kWsd) {
    c.Add(ConfigErrorKind::kContradiction, "schedule.decay", absl::StrCat(decay),
          "is used by schedule.type = \"wsd\" only", "0");
  } else if (c.Ok({"schedule.steps", "schedule.warmup"}) && warmup + decay > steps) {
    c.Add(ConfigErrorKind::kContradiction, "schedule.decay", absl::StrCat(decay),
          absl::StrFormat("must be at most schedule.steps - schedule.warmup = %d", steps - warmup),
          absl::StrCat(steps - warmup));
  }
}

}  // namespace strata
