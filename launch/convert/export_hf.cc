#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>

#include "absl/strings/str_format.h"
#include "core/base/status.h"
#include "launch/config/load_config.h"
#include "launch/convert/checkpoint_weights.h"
#include "launch/convert/convert.h"
#include "models/hf/hf_export.h"
#include "models/hf/hf_model.h"
#include "models/hf/kept_files.h"

namespace strata {
namespace {

absl::Status CheckDType(const CheckpointWeights& weights, const HfNames& names) {
  for (const Parameter& p : names.parameters()) {
    const TensorRecord* record = weights.Find(p.name);
    if (record == nullptr || record->global != p.shape) {
      return absl::InvalidArgumentError(absl::StrFormat("%s: %s is %s, its config says %s", weights.path(), p.name,
                                                        record == nullptr ? "missing" : ToString(record->global),
                                                        ToString(p.shape)));
    }
  }
  return absl::OkStatus();
}

// One file of the model; tensors that no parameter holds come from `unused`.
absl::Status WriteFile(Env& env, const std::string& path, const SafetensorsHeader& header, const std::string& text,
                       const HfNames& names, CheckpointWeights& weights, const SafetensorsFile* unused) {
  const auto read = [&](const std::string& parameter, StoredType type, std::span<std::byte> out) {
    return weights.Read(parameter, type, out);
  };
  return WriteSafetensors(env, path, header, text,
                          [&](const StoredTensor& t, std::span<std::byte> out) -> absl::Status {
                            if (const HfTensor* tensor = names.Find(t.name))
                              return FillHfTensor(*tensor, t.type, read, out);
                            for (const StoredTensor& u : unused->header().tensors) {  // whose presence was checked
                              if (u.name == t.name) return unused->Read(u.offset, out);
                            }
                            return absl::NotFoundError(absl::StrFormat("tensor \"%s\" was not kept", t.name));
                          });
}

// As the model that the run began with, in files of its form.
class KeptForm {
 public:
  static absl::StatusOr<KeptForm> Open(Env& env, const std::string& kept, const ModelConfig& model,
                                       std::vector<KeptHeader> headers) {
    KeptForm form;
    form.headers_ = std::move(headers);
    ASSIGN_OR_RETURN(const std::string config, ReadText(env, kept + "/" + kHfConfigName, kMaxHfConfig));
    absl::StatusOr<HfConfig> hf = ParseHfConfig(config);
    if (!hf.ok()) return Annotate(hf.status(), kept + "/" + kHfConfigName);
    if (const std::string difference = DifferenceToHf(model, hf->model); !difference.empty()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s is of another model than the checkpoint: %s", kept, difference));
    }
    if (env.Exists(kept + "/" + kUnusedTensors)) {
      ASSIGN_OR_RETURN(form.unused_, SafetensorsFile::Open(env, kept + "/" + kUnusedTensors));
    }
    RETURN_IF_ERROR(form.ParseHeaders(hf->model));
    return form;
  }

  absl::Status Write(Env& env, const std::string& kept, CheckpointWeights& weights, const std::string& out) const {
    RETURN_IF_ERROR(CheckDType(weights, *names_));
    ASSIGN_OR_RETURN(const std::vector<std::string> texts, TextsOf(env, kept));
    RETURN_IF_ERROR(CopyTexts(env, kept, texts, out));
    for (size_t i = 0; i < headers_.size(); ++i) {
      RETURN_IF_ERROR(WriteFile(env, out + "/" + headers_[i].file, parsed_[i], headers_[i].text, *names_, weights,
                                unused_ ? &*unused_ : nullptr));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status ParseHeaders(const ModelConfig& model) {
    std::set<std::string> there;
    for (const KeptHeader& h : headers_) {
      absl::StatusOr<SafetensorsHeader> parsed = ParseSafetensorsHeader(h.text);
      if (!parsed.ok()) return Annotate(parsed.status(), h.file + ".header");
      parsed_.push_back(*std::move(parsed));
      for (const StoredTensor& t : parsed_.back().tensors) there.insert(t.name);
    }
    ASSIGN_OR_RETURN(names_, HfNames::Make(model, [&](const std::string& name) { return there.contains(name); }));
    for (const SafetensorsHeader& header : parsed_) {
      for (const StoredTensor& t : header.tensors) RETURN_IF_ERROR(CheckTensor(t));
    }
    return absl::OkStatus();
  }

  absl::Status CheckTensor(const StoredTensor& t) const {
    const HfTensor* known = names_->Find(t.name);
    const auto is_it = [&](const StoredTensor& u) { return u.name == t.name && u.bytes() == t.bytes(); };
    const bool kept = unused_ && std::any_of(unused_->header().tensors.begin(), unused_->header().tensors.end(), is_it);
    if (known != nullptr ? known->shape == t.shape && IsFloating(t.type) : kept) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrFormat("tensor \"%s\" of the kept headers is not one of the model", t.name));
  }

  std::vector<KeptHeader> headers_;
  std::vector<SafetensorsHeader> parsed_;
  std::optional<HfNames> names_;
  std::optional<SafetensorsFile> unused_;
};

}  // namespace

absl::StatusOr<std::string> ExportHf(Env& env, const std::string& checkpoint, const std::string& out,
                                     Verification verify) {
  ASSIGN_OR_RETURN(CheckpointWeights weights, CheckpointWeights::Open(env, checkpoint));
  ASSIGN_OR_RETURN(const LoadedJob job,
                   ParseJobConfig(weights.reader().meta().config, weights.path() + "/manifest.json"));
  const ModelConfig& model = job.config.model;
  const std::string kept = weights.RunFolder() + "/" + kKeptFolder;
  ASSIGN_OR_RETURN(std::vector<KeptHeader> headers, ReadKeptHeaders(env, kept));
  std::string how;
  if (!headers.empty()) {
    ASSIGN_OR_RETURN(const KeptForm form, KeptForm::Open(env, kept, model, std::move(headers)));
    RETURN_IF_ERROR(MakeEmptyFolder(env, out));
    RETURN_IF_ERROR(form.Write(env, kept, weights, out));
    how = absl::StrFormat("in the form of the model that it began with (%s)", kept);
  } else {
    ASSIGN_OR_RETURN(const HfNames names, HfNames::Make(model));
    RETURN_IF_ERROR(CheckDType(weights, names));
    const StoredType type = StoredTypeOf(weights.Find(names.parameters()[0].name)->dtype);
    const HfLayout layout = LayOutHf(names, [&](const HfTensor&) { return type; });
    RETURN_IF_ERROR(MakeEmptyFolder(env, out));
    for (const HfLayout::File& f : layout.files) {
      RETURN_IF_ERROR(
          WriteFile(env, out + "/" + f.name, f.header, PrintSafetensorsHeader(f.header), names, weights, nullptr));
    }
    if (!layout.index.empty()) {
      RETURN_IF_ERROR(WriteTextAtomically(env, out + "/" + kSafetensorsIndex, layout.index));
    }
    RETURN_IF_ERROR(WriteTextAtomically(env, out + "/" + kHfConfigName, PrintHfConfig(model, type)));
    how = absl::StrFormat("in %s, %d file%s", Name(type), layout.files.size(), layout.files.size() == 1 ? "" : "s");
  }
  std::string report = absl::StrFormat("%s, step %d: %s, %s\n", weights.path(), weights.reader().step(), out, how);
  if (verify == Verification::kNo) return report;
  ASSIGN_OR_RETURN(const std::string verified, VerifyConversion(env, out, weights.path()));
  return report + verified;
}

}  // namespace strata
