#include "models/hf/config_json.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/base/json_text.h"
#include "core/base/status.h"

namespace strata {
namespace {

using Json = nlohmann::json;

constexpr int kMaxDepth = 8;
constexpr int64_t kMaxInt = int64_t{1} << 40;  // the limits of ModelConfig's fields are tighter

// A key that holds one of the model's sizes. Absent or null: `missing`, or an error where that is negative.
struct IntKey {
  const char* key;
  int64_t ModelConfig::*field;
  int64_t missing = -1;
};
struct DoubleKey {
  const char* key;
  double ModelConfig::*field;
  double missing;
};
// A key that must have one of these values, or be absent or null.
struct FixedKey {
  const char* key;
  std::vector<Json> allowed;
};

struct Architecture {
  ModelArch arch;
  const char* model_type;
  const char* class_name;  // of `architectures`
  std::vector<IntKey> ints;
  std::vector<DoubleKey> doubles;
  bool tied;  // where tie_word_embeddings is absent
  std::vector<FixedKey> fixed;
};

// GPT-2 and BERT are tied; the others may be.
const std::vector<Architecture>& Architectures() {
  using M = ModelConfig;
  const std::vector<IntKey> family_ints = {
      {"vocab_size", &M::vocab},          {"num_hidden_layers", &M::layers},        {"hidden_size", &M::dim},
      {"num_attention_heads", &M::heads}, {"num_key_value_heads", &M::kv_heads, 0}, {"head_dim", &M::head_width, 0},
      {"intermediate_size", &M::ffn},     {"max_position_embeddings", &M::seq}};
  const std::vector<DoubleKey> family_doubles = {{"rms_norm_eps", &M::norm_eps, 1e-6}};
  std::vector<IntKey> qwen3_ints = family_ints;
  qwen3_ints[5].missing = 128;  // the default of its class
  const FixedKey silu = {"hidden_act", {"silu", "swish"}}, no_bias = {"attention_bias", {false}},
                 no_window = {"use_sliding_window", {false}};
  static const std::vector<Architecture> table = {
      {ModelArch::kLlama,
       "llama",
       "LlamaForCausalLM",
       family_ints,
       family_doubles,
       false,
       {silu, no_bias, {"mlp_bias", {false}}}},
      {ModelArch::kQwen2, "qwen2", "Qwen2ForCausalLM", family_ints, family_doubles, false, {silu, no_window}},
      {ModelArch::kQwen3, "qwen3", "Qwen3ForCausalLM", qwen3_ints, family_doubles, false, {silu, no_bias, no_window}},
      {ModelArch::kGpt2,
       "gpt2",
       "GPT2LMHeadModel",
       {{"vocab_size", &M::vocab, 50257},
        {"n_layer", &M::layers},
        {"n_embd", &M::dim},
        {"n_head", &M::heads},
        {"n_inner", &M::ffn, 0},
        {"n_positions", &M::positions, 1024}},
       {{"layer_norm_epsilon", &M::norm_eps, 1e-5}},
       true,
       {{"activation_function", {"gelu_new", "gelu_pytorch_tanh"}},
        {"scale_attn_weights", {true}},
        {"scale_attn_by_inverse_layer_idx", {false}},
        {"add_cross_attention", {false}},
        {"tie_word_embeddings", {true}}}},
      {ModelArch::kBert,
       "bert",
       "BertForMaskedLM",
       {{"vocab_size", &M::vocab, 30522},
        {"num_hidden_layers", &M::layers},
        {"hidden_size", &M::dim},
        {"num_attention_heads", &M::heads},
        {"intermediate_size", &M::ffn},
        {"max_position_embeddings", &M::positions, 512}},
       {{"layer_norm_eps", &M::norm_eps, 1e-12}},
       true,
       {{"hidden_act", {"gelu"}},
        {"position_embedding_type", {"absolute"}},
        {"type_vocab_size", {2}},
        {"is_decoder", {false}},
        {"add_cross_attention", {false}},
        {"tie_word_embeddings", {true}}}},
  };
  return table;
}

const Architecture& ArchitectureOf(ModelArch arch) {
  return *std::find_if(Architectures().begin(), Architectures().end(),
                       [&](const Architecture& a) { return a.arch == arch; });
}

// Keys that say nothing of the maths of evaluation, or nothing that is not said elsewhere.
constexpr std::string_view kHarmless[] = {"_attn_implementation",
                                          "_name_or_path",
                                          "architectures",
                                          "attention_dropout",
                                          "attention_probs_dropout_prob",
                                          "attn_pdrop",
                                          "auto_map",
                                          "begin_suppress_tokens",
                                          "bos_token_id",
                                          "chunk_size_feed_forward",
                                          "classifier_dropout",
                                          "decoder_start_token_id",
                                          "directionality",
                                          "dtype",
                                          "embd_pdrop",
                                          "eos_token_id",
                                          "gradient_checkpointing",
                                          "hidden_dropout_prob",
                                          "id2label",
                                          "initializer_range",
                                          "label2id",
                                          "layer_types",
                                          "max_length",
                                          "max_window_layers",
                                          "model_type",
                                          "n_ctx",
                                          "pad_token_id",
                                          "pooler_fc_size",
                                          "pooler_num_attention_heads",
                                          "pooler_num_fc_layers",
                                          "pooler_size_per_head",
                                          "pooler_type",
                                          "pretraining_tp",
                                          "problem_type",
                                          "reorder_and_upcast_attn",
                                          "resid_pdrop",
                                          "return_dict",
                                          "rope_parameters",
                                          "rope_scaling",
                                          "rope_theta",
                                          "sep_token_id",
                                          "sliding_window",
                                          "summary_activation",
                                          "summary_first_dropout",
                                          "summary_proj_to_labels",
                                          "summary_type",
                                          "summary_use_proj",
                                          "task_specific_params",
                                          "tie_word_embeddings",
                                          "tokenizer_class",
                                          "torch_dtype",
                                          "transformers_version",
                                          "use_cache"};
constexpr std::string_view kRopeKeys[] = {"rope_type",
                                          "type",
                                          "rope_theta",
                                          "factor",
                                          "low_freq_factor",
                                          "high_freq_factor",
                                          "original_max_position_embeddings"};

constexpr struct {
  std::string_view name;
  StoredType type;
} kDtypes[] = {{"float32", StoredType::kF32},
               {"bfloat16", StoredType::kBF16},
               {"float16", StoredType::kF16},
               {"float64", StoredType::kF64}};

std::string Text(const Json& json) {
  std::string text = json.dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 200) {
    text.resize(200);
    text += "...";
  }
  return text;
}

absl::Status Refused(std::string_view key, const Json& value, std::string_view expected) {
  return absl::InvalidArgumentError(
      absl::StrFormat("\"%s\": %s is not supported: %s", std::string(key).substr(0, 100), Text(value), expected));
}

const Json* Find(const Json& object, std::string_view key) {
  const auto it = object.find(std::string(key));
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

absl::StatusOr<double> Number(const Json& object, std::string_view key, double missing) {
  const Json* value = Find(object, key);
  if (value == nullptr) return missing;
  if (!value->is_number()) return Refused(key, *value, "it must be a number");
  return value->get<double>();
}

absl::Status ReadInt(const Json& json, const IntKey& key, ModelConfig& m) {
  const Json* value = Find(json, key.key);
  if (value == nullptr && key.missing < 0) {
    return absl::InvalidArgumentError(absl::StrFormat("\"%s\" is missing", key.key));
  }
  if (value == nullptr) {
    m.*key.field = key.missing;
    return absl::OkStatus();
  }
  if (!value->is_number_unsigned() || value->get<uint64_t>() > static_cast<uint64_t>(kMaxInt)) {
    return Refused(key.key, *value, absl::StrFormat("it must be an integer in [0, %d]", kMaxInt));
  }
  m.*key.field = static_cast<int64_t>(value->get<uint64_t>());
  return absl::OkStatus();
}

// Where nothing is said: one kv head a head; four times the width.
void FillDefaults(const Json& json, ModelConfig& m) {
  if (m.traits().rope && Find(json, "num_key_value_heads") == nullptr) m.kv_heads = m.heads;
  if (m.arch == ModelArch::kGpt2 && Find(json, "n_inner") == nullptr) m.ffn = 4 * m.dim;
  if (!m.traits().rope) m.seq = m.positions;
  // Written out, the usual size is the same model as left out.
  if (m.heads > 0 && m.dim % m.heads == 0 && m.head_width == m.dim / m.heads) m.head_width = 0;
}

// transformers 4: rope_theta, and rope_scaling {rope_type or type, factor, ...}. transformers 5: rope_parameters, with all.
absl::Status ReadRope(const Json& json, ModelConfig& m) {
  const Json *old_rope = Find(json, "rope_scaling"), *new_rope = Find(json, "rope_parameters");
  if (old_rope != nullptr && new_rope != nullptr && *old_rope != *new_rope) {
    return Refused("rope_scaling", *old_rope, "it differs from rope_parameters");
  }
  const std::string_view name = new_rope != nullptr ? "rope_parameters" : "rope_scaling";
  static const Json none = Json::object();
  const Json& rope = new_rope != nullptr ? *new_rope : old_rope != nullptr ? *old_rope : none;
  if (!rope.is_object()) return Refused(name, rope, "it must be an object");
  for (const auto& [key, value] : rope.items()) {
    if (std::find(std::begin(kRopeKeys), std::end(kRopeKeys), key) != std::end(kRopeKeys)) continue;
    return Refused(absl::StrFormat("%s.%s", name, key.substr(0, 60)), value, "the key is not known");
  }
  ASSIGN_OR_RETURN(const double beside, Number(json, "rope_theta", 10000));
  ASSIGN_OR_RETURN(m.rope_theta, Number(rope, "rope_theta", beside));
  if (Find(json, "rope_theta") != nullptr && m.rope_theta != beside) {
    return Refused("rope_theta", beside, absl::StrFormat("it differs from that of %s", name));
  }
  const Json* type = Find(rope, "rope_type");
  if (type == nullptr) type = Find(rope, "type");
  if (type == nullptr || *type == "default") return absl::OkStatus();
  if (*type != "llama3") return Refused(absl::StrFormat("%s.rope_type", name), *type, "\"default\" and \"llama3\" are");
  for (const char* key : {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}) {
    if (Find(rope, key) == nullptr)
      return absl::InvalidArgumentError(absl::StrFormat("\"%s.%s\" is missing", name, key));
  }
  m.rope_scaling = RopeScalingKind::kLlama3;
  ASSIGN_OR_RETURN(m.rope_factor, Number(rope, "factor", 0));
  ASSIGN_OR_RETURN(m.rope_low, Number(rope, "low_freq_factor", 0));
  ASSIGN_OR_RETURN(m.rope_high, Number(rope, "high_freq_factor", 0));
  return ReadInt(rope, {"original_max_position_embeddings", &ModelConfig::rope_original}, m);
}

absl::Status CheckFixed(const Json& json, const FixedKey& fixed) {
  const Json* value = Find(json, fixed.key);
  if (value == nullptr) return absl::OkStatus();
  if (std::find(fixed.allowed.begin(), fixed.allowed.end(), *value) != fixed.allowed.end()) return absl::OkStatus();
  return Refused(fixed.key, *value,
                 absl::StrFormat("it must be %s", absl::StrJoin(fixed.allowed, " or ", [](auto* out, const Json& v) {
                                   out->append(Text(v));
                                 })));
}

bool IsEmpty(const Json& value) {
  return value.is_null() || value == false || (value.is_structured() && value.empty());
}

absl::Status CheckKnown(const Json& json, const Architecture& a) {
  for (const auto& [key, value] : json.items()) {
    const auto is_key = [&, &key = key](const auto& row) { return key == row.key; };
    if (IsEmpty(value) || std::find(std::begin(kHarmless), std::end(kHarmless), key) != std::end(kHarmless) ||
        std::any_of(a.ints.begin(), a.ints.end(), is_key) || std::any_of(a.doubles.begin(), a.doubles.end(), is_key) ||
        std::any_of(a.fixed.begin(), a.fixed.end(), is_key)) {
      continue;
    }
    return Refused(
        key, value,
        absl::StrFormat(
            "the key is not known of model_type \"%s\"; remove it if it does not change what the model computes",
            a.model_type));
  }
  return absl::OkStatus();
}

absl::Status CheckArchitecture(const Json& json, const Architecture& a) {
  const Json* names = Find(json, "architectures");
  if (names != nullptr &&
      (!names->is_array() || std::find(names->begin(), names->end(), a.class_name) == names->end())) {
    return Refused("architectures", *names,
                   absl::StrFormat("of model_type \"%s\", \"%s\" is", a.model_type, a.class_name));
  }
  const Json* layers = Find(json, "layer_types");
  if (layers == nullptr) return absl::OkStatus();
  if (!layers->is_array()) return Refused("layer_types", *layers, "it must be an array");
  for (const Json& type : *layers) {
    if (type != "full_attention") return Refused("layer_types", type, "every layer must have \"full_attention\"");
  }
  return absl::OkStatus();
}

absl::Status ReadTied(const Json& json, const Architecture& a, ModelConfig& m) {
  const Json* tied = Find(json, "tie_word_embeddings");
  if (tied != nullptr && !tied->is_boolean()) return Refused("tie_word_embeddings", *tied, "it must be true or false");
  const bool value = tied == nullptr ? a.tied : tied->get<bool>();
  if (m.traits().rope) m.tied = value;  // the others always are, and do not say so
  return absl::OkStatus();
}

absl::StatusOr<StoredType> ReadDtype(const Json& json) {
  const Json *value = Find(json, "dtype"), *old_value = Find(json, "torch_dtype");
  if (value != nullptr && old_value != nullptr && *value != *old_value) {
    return Refused("torch_dtype", *old_value, "it differs from dtype");
  }
  if (value == nullptr) value = old_value;
  if (value == nullptr) return StoredType::kF32;
  for (const auto& [name, type] : kDtypes) {
    if (*value == name) return type;
  }
  return Refused("dtype", *value, "float32, bfloat16, float16 and float64 are");
}

// The limits of the config file's fields, and what must hold between them.
absl::Status CheckSizes(ModelConfig& m) {
  ConfigChecks checks;
  for (const ConfigField& field : DescribeFields(m)) CheckLimits("model", field, checks);
  if (checks.issues().empty()) m.Check(checks);
  if (checks.issues().empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(checks.issues().front().message);
}

}  // namespace

std::string HfFolderOf(std::string_view from) {
  return from.starts_with(kHfScheme) ? std::string(from.substr(std::string_view(kHfScheme).size())) : "";
}

absl::StatusOr<HfConfig> ParseHfConfig(std::string_view text) {
  if (std::ssize(text) > kMaxHfConfig) return absl::InvalidArgumentError("longer than 1 MiB");
  if (JsonDepth(text) > kMaxDepth) return absl::InvalidArgumentError("nested too deep");
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) return absl::InvalidArgumentError("not a JSON object");
  const Json* type = Find(json, "model_type");
  if (type == nullptr) return absl::InvalidArgumentError("\"model_type\" is missing");
  std::vector<std::string> known;
  const Architecture* a = nullptr;
  for (const Architecture& row : Architectures()) {
    known.push_back(absl::StrFormat("\"%s\"", row.model_type));
    if (*type == row.model_type) a = &row;
  }
  if (a == nullptr) return Refused("model_type", *type, absl::StrFormat("%s are", absl::StrJoin(known, ", ")));
  if (const Json* q = Find(json, "quantization_config"))
    return Refused("quantization_config", *q, "weights must be whole");
  HfConfig result;
  ModelConfig& m = result.model;
  m.arch = a->arch;
  RETURN_IF_ERROR(CheckArchitecture(json, *a));
  for (const IntKey& key : a->ints) RETURN_IF_ERROR(ReadInt(json, key, m));
  for (const DoubleKey& key : a->doubles) {
    ASSIGN_OR_RETURN(m.*key.field, Number(json, key.key, key.missing));
  }
  for (const FixedKey& key : a->fixed) RETURN_IF_ERROR(CheckFixed(json, key));
  RETURN_IF_ERROR(ReadTied(json, *a, m));
  if (m.traits().rope) RETURN_IF_ERROR(ReadRope(json, m));
  RETURN_IF_ERROR(CheckKnown(json, *a));
  FillDefaults(json, m);
  ASSIGN_OR_RETURN(result.type, ReadDtype(json));
  RETURN_IF_ERROR(CheckSizes(m));
  return result;
}

std::string PrintHfConfig(const ModelConfig& model, StoredType type) {
  const Architecture& a = ArchitectureOf(model.arch);
  ModelConfig m = model;
  if (m.traits().rope) m.head_width = m.head_dim();
  if (!m.traits().rope) m.positions = m.position_rows();
  Json json = {{"architectures", Json::array({a.class_name})},
               {"model_type", a.model_type},
               {"bos_token_id", nullptr},
               {"eos_token_id", nullptr},
               {"initializer_range", m.init_std},
               {"tie_word_embeddings", m.traits().rope ? m.tied : a.tied},
               {"use_cache", true}};
  for (const IntKey& key : a.ints) json[key.key] = m.*key.field;
  for (const DoubleKey& key : a.doubles) json[key.key] = m.*key.field;
  for (const FixedKey& key : a.fixed) json[key.key] = key.allowed.front();
  for (const auto& [name, stored] : kDtypes) {
    if (stored == type) json["torch_dtype"] = name;
  }
  if (m.traits().rope) {
    json["rope_theta"] = m.rope_theta;
    json["rope_scaling"] = nullptr;
  }
  if (m.traits().rope && m.rope_scaling == RopeScalingKind::kLlama3) {
    json["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", m.rope_factor},
                            {"low_freq_factor", m.rope_low},
                            {"high_freq_factor", m.rope_high},
                            {"original_max_position_embeddings", m.rope_original}};
  }
  return json.dump(2) + "\n";
}

std::string DifferenceToHf(const ModelConfig& job, const ModelConfig& hf) {
  const auto said = [](const ConfigField& f) {
    const auto text = [](const auto& value) -> std::string {
      using T = std::decay_t<decltype(value)>;
      if constexpr (std::is_same_v<T, bool*>) return *value ? "true" : "false";
      if constexpr (std::is_same_v<T, int64_t*>) return std::to_string(*value);
      if constexpr (std::is_same_v<T, double*>) return FormatDouble(*value);
      if constexpr (std::is_same_v<T, ChoiceRef>) return std::string(value.names[*value.value]);
      return "";
    };
    return std::visit(text, f.value);
  };
  const auto canonical = [](ModelConfig m) {
    const ModelConfig defaults;
    m.from.clear();
    m.dropout = defaults.dropout, m.init_std = defaults.init_std, m.mask_token = defaults.mask_token;
    if (m.traits().rope) m.head_width = m.head_dim();
    if (!m.traits().rope) m.positions = m.position_rows();
    if (m.rope_scaling == RopeScalingKind::kNone) {
      m.rope_factor = defaults.rope_factor, m.rope_low = defaults.rope_low, m.rope_high = defaults.rope_high;
      m.rope_original = defaults.rope_original;
    }
    m.seq = defaults.seq;
    return m;
  };
  ModelConfig a = canonical(job), b = canonical(hf);
  if (a.arch != b.arch) {
    return absl::StrFormat("model.arch = \"%s\", config.json says \"%s\"", kModelArchNames[static_cast<size_t>(a.arch)],
                           kModelArchNames[static_cast<size_t>(b.arch)]);
  }
  const std::vector<ConfigField> mine = DescribeFields(a), theirs = DescribeFields(b);
  for (size_t i = 0; i < mine.size(); ++i) {
    if (said(mine[i]) == said(theirs[i])) continue;
    return absl::StrFormat("model.%s = %s, config.json says %s", mine[i].name, said(mine[i]), said(theirs[i]));
  }
  return "";
}

}  // namespace strata
