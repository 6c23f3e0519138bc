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

bool Fits(const TensorRecord& source, const PlannedState& s) {
  const bool dtype = source.dtype == s.spec.dtype || (IsFloating(source.dtype) && IsFloating(s.spec.dtype));
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

template <typename T>
void Put(std::byte* to, T value) {
  std::memcpy(to, &value, sizeof(T));
}

void PutAs(DType dtype, std::byte* to, double value) {
  switch (dtype) {
    case DType::kF64: return Put(to, value);
    case DType::kF32: return Put(to, static_cast<float>(value));
    default: return Put(to, BF16(static_cast<float>(value)));
  }
}

absl::Status ReadConverted(CheckpointReader& reader, const TensorBox& want, DType to, std::span<std::byte> out) {
  const int64_t from_bytes = SizeOf(want.dtype), to_bytes = SizeOf(to);
  int64_t at = 0;
  return reader.ReadSlabs(want, [&](std::span<const std::byte> slab) {
    for (int64_t i = 0; i < std::ssize(slab); i += from_bytes, at += to_bytes) {
      PutAs(to, &out[at], GetAs(want.dtype, &slab[i]));
    }
    return absl::OkStatus();
  });
}

}  // namespace

const TensorRecord* SourceOf(const CheckpointReader& reader, const PlannedState& state) {
  const TensorRecord* own = reader.Find(state.name);
  if (IsMoment(state)) return own;
  if (own != nullptr && (own->dtype == state.spec.dtype || state.role == Role::kMaster)) return own;
  const TensorRecord* master = reader.Find(std::string(ParameterOf(state)) + std::string(kMaster));
  return master != nullptr ? master : reader.Find(ParameterOf(state));
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

absl::Status LoadState(CheckpointReader& reader, const PlannedState& state, std::span<std::byte> out) {
  const TensorRecord* source = SourceOf(reader, state);
  if (source == nullptr) return absl::NotFoundError(absl::StrFormat("%s: no tensor %s", reader.dir(), state.name));
  std::fill(out.begin(), out.end(), std::byte{0});
  for (const Piece& piece : PiecesOf(state)) {
    const auto bytes = static_cast<size_t>(piece.box.size.elements() * SizeOf(state.spec.dtype));
    const std::span<std::byte> to = out.subspan(piece.byte_offset, bytes);
    TensorBox want = piece.box;
    want.name = source->name;
    want.dtype = source->dtype;
    RETURN_IF_ERROR(source->dtype == state.spec.dtype ? reader.Read(want, to)
                                                      : ReadConverted(reader, want, state.spec.dtype, to));
  }
  return absl::OkStatus();
}

}  // namespace strata
