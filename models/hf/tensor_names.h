#pragma once
// Which tensor of a Hugging Face model holds which of our parameters. Pure functions over tables.

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "checkpoint/stored_type.h"
#include "core/tensor/tensor.h"
#include "models/model_config.h"

namespace strata {

// The parameters of a model, their names and whole shapes, in order of declaration.
struct Parameter {
  std::string name;
  Shape shape;
};
absl::StatusOr<std::vector<Parameter>> ParametersOf(const ModelConfig& model);

// Theirs is ours turned about (a matrix [in, out], as GPT-2's), or `parts` of ours behind one another along our dim 0.
struct HfPlace {
  std::string tensor;
  bool transposed = false;
  int part = 0, parts = 1;
  Shape shape;  // of the whole tensor of theirs
};

struct HfTensor {  // one of theirs, and what it holds
  std::string name;
  Shape shape;
  std::vector<std::string> parameters;  // by part
  bool transposed = false;
  bool copy = false;  // a tied tensor that the file holds again
};

class HfNames {
 public:
  // `has` says which tensors there are: old files spell some names otherwise, or hold a tied tensor twice. Without it, the
  // names that transformers writes today. InvalidArgument, naming it, where a parameter has no tensor among them.
  static absl::StatusOr<HfNames> Make(const ModelConfig& model,
                                      const std::function<bool(const std::string&)>& has = nullptr);

  const HfPlace* PlaceOf(std::string_view parameter) const;  // null: no such parameter
  const HfTensor* Find(std::string_view tensor) const;       // null: no such tensor
  const std::vector<HfTensor>& tensors() const { return tensors_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }

  // A tensor that some files hold and that no parameter needs: masks, indices, heads of other tasks.
  static bool IsUnused(ModelArch arch, std::string_view tensor);

 private:
  std::vector<Parameter> parameters_;
  std::vector<HfPlace> places_;  // by parameter
  std::vector<HfTensor> tensors_;
};

}  // namespace strata
