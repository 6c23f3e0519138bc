#include "optim/config.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace strata {

void OptimConfig::Describe(ConfigFields& f) {
  f.AddChoice("type", type, kOptimizerTypeNames, {.doc = "optimizer"});
  f.Add("lr", lr, {.doc = "peak learning rate", .min = 0, .max = 100});
  f.Add("beta1", beta1, {.doc = "decay of the first moment, a step", .min = 0, .max = 0.999999});
  f.Add("beta2", beta2, {.doc = "decay of the second moment, a step", .min = 0, .max = 0.99999999});
  f.Add("eps", eps, {.doc = "added to the root of the second moment", .min = 1e-20, .max = 1});
  f.Add("weight_decay", weight_decay,
        {.doc = "decoupled decay: a step takes lr * weight_decay of a weight away", .min = 0, .max = 10});
  f.Add("clip", clip, {.doc = "largest global gradient norm; 0 = no clipping", .min = 0, .max = 1e9});
  f.Add("no_decay", no_decay, {.doc = "parameters without weight decay: name patterns, * is any text"});
}

void OptimConfig::Check(ConfigChecks& c) const {
  for (const std::string& pattern : no_decay) {
    if (!pattern.empty()) continue;
    c.Add(ConfigErrorKind::kOutOfRange, "optim.no_decay", "\"\"", "a pattern must not be empty");
  }
}

void ScheduleConfig::Describe(ConfigFields& f) {
  f.AddChoice("type", type, kScheduleTypeNames, {.doc = "shape after warmup; wsd = warmup, stable, decay"});
  f.Add("steps", steps, {.doc = "length of the run", .unit = "steps", .min = 1, .max = 1e9});
  f.Add("warmup", warmup, {.doc = "linear rise from 0 to the peak", .unit = "steps", .min = 0, .max = 1e9});
  f.Add("decay", decay, {.doc = "final fall of wsd; only for wsd", .unit = "steps", .min = 0, .max = 1e9});
  f.Add("min_lr", min_lr, {.doc = "last learning rate as a part of the peak", .min = 0, .max = 1});
}

void ScheduleConfig::Check(ConfigChecks& c) const {
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
