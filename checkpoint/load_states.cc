#include "checkpoint/load_states.h"

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "checkpoint/pieces.h"
#include "core/base/status.h"

namespace strata {
namespace {

constexpr std::string_view kMaster = ".master";

std::string_view ParameterOf(const PlannedState& s) {
  const std::string_view name = s.name;
  return s.role == Role::kMaster ? name.substr(0, name.size() - kMaster.size()) : name;
}

bool IsMoment(const PlannedState& s) { return s.role == Role::kMoment1 || s.role == Role::kMoment2; }

bool HoldsWeights(DType t) { return IsFloating(t) || t == DType::kLow16; }

bool Fits(const TensorRecord& source, const PlannedState& s) {
  const bool dtype = source.dtype == s.spec.dtype || (HoldsWeights(source.dtype) && HoldsWeights(s.spec.dtype));
  return dtype && source.global == s.model_shape;
}

std::string Spec(DType dtype, const Shape& shape) { return absl::StrFormat("%s%s", Name(dtype), ToString(shape)); }

// "a, b, c and 4 more"
std::string Some(const std::vector<std::string>& all) {
  constexpr size_t kShown = 4;
  const std::vector<std::string> shown(all.begin(), all.begin() + std::min(all.size(), kShown));
  const std::string text = absl::StrJoin(shown, ", ");
  return all.size() > kShown ? absl::StrFormat("%s and %d more", text, all.size() - kShown) : text;
}

// What keeps a job from loading a checkpoint.
struct Mismatch {
  std::vector<std::string> tensors;       // the model is another one
  std::set<std::string> moments_missing;  // "exp_avg": last part of the names
  std::set<std::string> moments_unknown;  // that the checkpoint has and the job has not
};

std::string LastPart(std::string_view name) { return std::string(name.substr(name.rfind('.') + 1)); }

// Whether the tensor belongs to a parameter of the same checkpoint: "PARAMETER.exp_avg".
bool IsOfParameter(const CheckpointReader& reader, std::string_view name) {
  const size_t dot = name.rfind('.');
  return dot != std::string_view::npos && reader.Find(name.substr(0, dot)) != nullptr;
}

Mismatch Compare(const CheckpointReader& reader, std::span<const Plan> plans, LoadFor purpose) {
  Mismatch m;
  std::set<std::string, std::less<>> seen;
  for (const Plan& plan : plans) {
    for (const PlannedState& s : plan.states) {
      if (!IsSaved(s) || !seen.insert(s.name).second) continue;
      const TensorRecord* source = SourceOf(reader, s);
      if (source != nullptr && !Fits(*source, s)) {
        m.tensors.push_back(absl::StrFormat("%s is %s there and %s here", s.name, Spec(source->dtype, source->global),
                                            Spec(s.spec.dtype, s.model_shape)));
      } else if (source == nullptr && IsMoment(s) && purpose == LoadFor::kTraining) {
        m.moments_missing.insert(LastPart(s.name));
      } else if (source == nullptr && s.role == Role::kParam) {
        m.tensors.push_back(s.name + " is not in it");
      }
    }
  }
  if (purpose == LoadFor::kForward) return m;
  for (const TensorRecord& t : reader.tensors()) {
    if (seen.contains(t.name) || t.name.ends_with(kMaster)) continue;
    if (IsOfParameter(reader, t.name)) {
      m.moments_unknown.insert(LastPart(t.name));
    } else {
      m.tensors.push_back(t.name + " is not in this job");
    }
  }
  return m;
}

template <typename T>
T Get(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

double GetAs(DType dtype, const std::byte* from) {
  switch (dtype) {
    case DType::kF64: return Get<double>(from);
    case DType::kF32: return Get<float>(from);
    default: return static_cast<float>(Get<BF16>(from));
  }
}

// What a state is loaded from: values, or the upper halves of values with the lower ones.
struct Source {
  const TensorRecord* values = nullptr;
  const TensorRecord* low = nullptr;
};
Source ExactValues(const CheckpointReader& reader, std::string_view parameter) {
  const TensorRecord* const own = reader.Find(parameter);
  const TensorRecord* const master = reader.Find(std::string(parameter) + std::string(kMaster));
  if (master == nullptr) return {own};
  return master->dtype == DType::kLow16 ? Source{own, master} : Source{master};
}
Source SourceFor(const CheckpointReader& reader, const PlannedState& state, LiveWeights live) {
  const TensorRecord* const own = reader.Find(state.name);
  if (IsMoment(state)) return {own};
  const Source exact = ExactValues(reader, ParameterOf(state));
  const bool alike = own != nullptr && own->dtype == state.spec.dtype;
  const bool upper = state.spec.dtype == DType::kBF16 && live == LiveWeights::kUpperHalves;
  if (alike && !(upper && exact.low == nullptr && exact.values->dtype != DType::kBF16)) return {own};
  return exact;
}

// The tensor in `want`, element by element: fn(value).
template <typename Fn>
absl::Status ForEachValue(CheckpointReader& reader, const Source& source, TensorBox want, const Fn& fn) {
  std::vector<std::byte> low;
  if (source.low != nullptr) {
    TensorBox lower = want;
    lower.name = source.low->name;
    lower.dtype = source.low->dtype;
    low.resize(static_cast<size_t>(want.size.elements() * SizeOf(lower.dtype)));
    RETURN_IF_ERROR(reader.Read(lower, low));
  }
  want.name = source.values->name;
  want.dtype = source.values->dtype;
  const int64_t bytes = SizeOf(want.dtype);
  int64_t at = 0;
  return reader.ReadSlabs(want, [&](std::span<const std::byte> slab) {
    for (int64_t i = 0; i < std::ssize(slab); i += bytes, ++at) {
      fn(low.empty() ? GetAs(want.dtype, &slab[i]) : JoinHalvesAt(&slab[i], &low[at * SizeOf(DType::kLow16)]));
    }
    return absl::OkStatus();
  });
}

}  // namespace

const TensorRecord* SourceOf(const CheckpointReader& reader, const PlannedState& state, LiveWeights live) {
  return SourceFor(reader, state, live).values;
}

absl::Status CheckLoads(const CheckpointReader& reader, std::span<const Plan> plans, LoadFor purpose) {
  const Mismatch m = Compare(reader, plans, purpose);
  if (!m.tensors.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s is of another model: %s; set [model] as it was%s", reader.dir(), Some(m.tensors),
                        purpose == LoadFor::kTraining ? ", or start a new run with --resume never" : ""));
  }
  if (m.moments_missing.empty() && m.moments_unknown.empty()) return absl::OkStatus();
  const auto list = [](const std::set<std::string>& names) {
    return names.empty() ? "none" : absl::StrJoin(names, ", ");
  };
  if (m.moments_missing.empty() || !m.moments_unknown.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%s is of another optimizer: it holds %s of each parameter, this job needs %s; set optim.type "
                        "as it was, or start "
                        "a new run with --resume never",
                        reader.dir(), list(m.moments_unknown), list(m.moments_missing)));
  }
  return absl::InvalidArgumentError(
      absl::StrFormat("%s holds weights alone: training goes on from a checkpoint that has %s of each parameter, too",
                      reader.dir(), list(m.moments_missing)));
}

absl::Status LoadState(CheckpointReader& reader, const PlannedState& state, std::span<std::byte> out,
                       LiveWeights live) {
  const Source source = SourceFor(reader, state, live);
  if (source.values == nullptr)
    return absl::NotFoundError(absl::StrFormat("%s: no tensor %s", reader.dir(), state.name));
  const DType dtype = state.spec.dtype;
  std::fill(out.begin(), out.end(), std::byte{0});
  for (const Piece& piece : PiecesOf(state)) {
    const auto bytes = static_cast<size_t>(piece.box.size.elements() * SizeOf(dtype));
    const std::span<std::byte> to = out.subspan(piece.byte_offset, bytes);
    TensorBox want = piece.box;
    want.name = source.values->name;
    want.dtype = source.values->dtype;
    if (source.low == nullptr && want.dtype == dtype) {
      RETURN_IF_ERROR(reader.Read(want, to));
      continue;
    }
    std::byte* at = to.data();
    RETURN_IF_ERROR(ForEachValue(reader, source, want, [&](double value) {
      PutWeight(dtype, live, value, at);
      at += SizeOf(dtype);
    }));
  }
  return absl::OkStatus();
}

}  // namespace strata
