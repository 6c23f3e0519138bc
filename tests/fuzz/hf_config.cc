#include "core/base/check.h"
#include "models/hf/config_json.h"
#include "tests/fuzz/targets.h"

namespace strata::fuzz {

void HfConfigText(std::string_view input) {
  const absl::StatusOr<HfConfig> config = ParseHfConfig(input);
  if (!config.ok()) {
    STRATA_CHECK(!config.status().message().empty());
    return;
  }
  const absl::StatusOr<HfConfig> again = ParseHfConfig(PrintHfConfig(config->model, config->type));
  STRATA_CHECK(again.ok());
  STRATA_CHECK(again->type == config->type && again->model.seq == config->model.seq);
  STRATA_CHECK(DifferenceToHf(config->model, again->model).empty());
}

}  // namespace strata::fuzz
