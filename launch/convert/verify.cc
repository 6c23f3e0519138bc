#include <cmath>

#include "absl/strings/str_format.h"
#include "checkpoint/box.h"
#include "core/base/status.h"
#include "launch/convert/checkpoint_weights.h"
#include "launch/convert/convert.h"
#include "models/hf/hf_export.h"
#include "models/hf/hf_model.h"

namespace strata {
absl::StatusOr<std::string> VerifyConversion(Env& env, const std::string& hf_folder, const std::string& checkpoint) {
  ASSIGN_OR_RETURN(const HfModel model, HfModel::Open(env, hf_folder));
  ASSIGN_OR_RETURN(CheckpointWeights weights, CheckpointWeights::Open(env, checkpoint));
  const auto read = [&](const std::string& parameter, StoredType type, std::span<std::byte> out) {
    return weights.Read(parameter, type, out);
  };
  std::vector<std::byte> theirs, ours;
  for (const HfTensor& t : model.names().tensors()) {
    const StoredTensor& stored = *model.tensors().Find(t.name);
    theirs.resize(static_cast<size_t>(stored.bytes()));
    ours.resize(theirs.size());
    RETURN_IF_ERROR(model.tensors().Read(stored, OriginOf(stored.shape), stored.shape, theirs));
    RETURN_IF_ERROR(FillHfTensor(t, stored.type, read, ours));
    if (theirs != ours) {
      return absl::DataLossError(
          absl::StrFormat("tensor \"%s\" of %s differs from that of %s", t.name, hf_folder, weights.path()));
    }
  }
  // What the files hold, which may be less than the master weights.
  const auto as_stored = [&](const std::string& parameter, StoredType type, std::span<std::byte> out) -> absl::Status {
    const StoredType stored = model.TypeOf(parameter);
    std::vector<std::byte> bytes(out.size() / static_cast<size_t>(SizeOf(type)) * static_cast<size_t>(SizeOf(stored)));
    RETURN_IF_ERROR(weights.Read(parameter, stored, bytes));
    ConvertFloats(stored, bytes, type, out);
    return absl::OkStatus();
  };
  ASSIGN_OR_RETURN(const double of_checkpoint, LossOnFixedTokens(model.config(), as_stored));
  ASSIGN_OR_RETURN(
      const double of_model,
      LossOnFixedTokens(
          model.config(), [&](const std::string& parameter, StoredType type, std::span<std::byte> out) -> absl::Status {
            Shape shape = model.names().PlaceOf(parameter)->shape;  // of theirs; ours is a part of it, turned
            for (const Parameter& p : model.names().parameters()) {
              if (p.name == parameter) shape = p.shape;
            }
            return model.Read(parameter, OriginOf(shape), shape, type, out);
          }));
  if (of_model != of_checkpoint) {
    return absl::DataLossError(absl::StrFormat("the loss on fixed tokens is %.9g of %s and %.9g of %s", of_model,
                                               hf_folder, of_checkpoint, weights.path()));
  }
  return absl::StrFormat("verified: %d tensors are the same bits; loss on fixed tokens %.6f nats (ln(vocab) = %.4f)\n",
                         model.names().tensors().size(), of_model, std::log(model.config().vocab));
}

}  // namespace strata
