// config.json, tensor names and folders of Hugging Face models. tests/hf/fixtures were written by transformers.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

#include "checkpoint/box.h"
#include "models/hf/config_json.h"
#include "models/hf/hf_export.h"
#include "models/hf/hf_model.h"
#include "models/hf/kept_files.h"
#include "tests/testing/temp_dir.h"

namespace strata {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

std::string Fixture(const std::string& name) { return STRATA_SOURCE_DIR "/tests/hf/fixtures/" + name; }
const std::vector<std::string> kFixtures = {"bert",  "gpt2", "llama-bf16-sharded", "llama-tied", "llama3",
                                            "qwen2", "qwen3"};

std::string Text(const std::string& path) { return ReadText(Env::Posix(), path).value(); }
Json ConfigOf(const std::string& name) { return Json::parse(Text(Fixture(name) + "/config.json")); }

ModelConfig Expected(const std::string& name) {
  ModelConfig m{.vocab = 99, .layers = 2, .dim = 32, .heads = 4, .kv_heads = 2, .ffn = 48, .seq = 64};
  m.rope_theta = 1e6;
  m.norm_eps = 1e-6;
  if (name == "llama3") {
    m.rope_theta = 100;
    m.rope_scaling = RopeScalingKind::kLlama3;
    m.rope_original = 32;
    m.norm_eps = 1e-5;
  } else if (name == "llama-tied") {
    m.kv_heads = 4, m.head_width = 16, m.rope_theta = 10000, m.tied = true;
  } else if (name == "llama-bf16-sharded") {
    m.rope_theta = 500000, m.norm_eps = 1e-5;
  } else if (name == "qwen2") {
    m.arch = ModelArch::kQwen2, m.tied = true;
  } else if (name == "qwen3") {
    m.arch = ModelArch::kQwen3, m.head_width = 16;
  } else {
    const ModelConfig defaults;
    m.arch = name == "gpt2" ? ModelArch::kGpt2 : ModelArch::kBert;
    m.positions = 64, m.rope_theta = defaults.rope_theta, m.kv_heads = defaults.kv_heads;
    m.norm_eps = name == "gpt2" ? 1e-5 : 1e-12;
  }
  return m;
}

TEST(HfConfigTest, IsWhatTransformersMeant) {
  for (const std::string& name : kFixtures) {
    const auto config = ParseHfConfig(Text(Fixture(name) + "/config.json"));
    ASSERT_TRUE(config.ok()) << name << config.status();
    EXPECT_TRUE(config->model == Expected(name)) << name;
    EXPECT_EQ(config->type, name == "llama-bf16-sharded" ? StoredType::kBF16 : StoredType::kF32) << name;
  }
}

TEST(HfConfigTest, TheOldAndTheNewSpellingAreOneModel) {
  for (const char* spelling : {"config-old.json", "config-new.json"}) {
    const auto config = ParseHfConfig(Text(Fixture("llama3") + "/" + spelling));
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_TRUE(config->model == Expected("llama3")) << spelling;
  }
  Json json = ConfigOf("llama3");
  json.erase("num_key_value_heads");
  EXPECT_EQ(ParseHfConfig(json.dump())->model.kv_heads, 4);
  json = ConfigOf("gpt2");
  json["n_inner"] = nullptr;
  EXPECT_EQ(ParseHfConfig(json.dump())->model.ffn, 4 * 32);
}

TEST(HfConfigTest, WhatIsPrintedIsReadBack) {
  for (const std::string& name : kFixtures) {
    for (const StoredType type : {StoredType::kBF16, StoredType::kF64}) {
      const auto config = ParseHfConfig(PrintHfConfig(Expected(name), type));
      ASSERT_TRUE(config.ok()) << name << config.status();
      EXPECT_TRUE(config->model == Expected(name)) << name;
      EXPECT_EQ(config->type, type);
    }
  }
}

struct Change {
  const char* name;
  const char* fixture;
  const char* key;
  Json value;
  const char* why;
};
class RefusedConfig : public ::testing::TestWithParam<Change> {};
TEST_P(RefusedConfig, NamesKeyAndValue) {
  Json json = ConfigOf(GetParam().fixture);
  json[GetParam().key] = GetParam().value;
  const absl::Status status = ParseHfConfig(json.dump()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().why));
}
INSTANTIATE_TEST_SUITE_P(
    All, RefusedConfig,
    ::testing::Values(
        Change{"Type", "llama3", "model_type", "mistral",
               R"("model_type": "mistral" is not supported: "llama", "qwen2")"},
        Change{"TypeMissing", "llama3", "model_type", nullptr, R"("model_type" is missing)"},
        Change{"Head", "llama3", "architectures", {"LlamaForSequenceClassification"}, R"("LlamaForCausalLM" is)"},
        Change{"RopeType",
               "llama3",
               "rope_parameters",
               {{"rope_type", "yarn"}, {"factor", 4}},
               R"("rope_parameters.rope_type": "yarn" is not supported)"},
        Change{"RopeKey",
               "llama3",
               "rope_parameters",
               {{"full_attention", {{"rope_type", "default"}}}},
               R"("rope_parameters.full_attention")"},
        Change{"RopeFactor",
               "llama3",
               "rope_parameters",
               {{"rope_type", "llama3"}},
               "rope_parameters.factor\" is missing"},
        Change{"RopeTwice", "llama3", "rope_scaling", {{"rope_type", "default"}}, "differs from rope_parameters"},
        Change{"ThetaTwice", "llama3", "rope_theta", 7, R"("rope_theta": 7.0 is not supported)"},
        Change{"Activation", "llama3", "hidden_act", "relu",
               R"("hidden_act": "relu" is not supported: it must be "silu")"},
        Change{"Gelu", "gpt2", "activation_function", "gelu", R"(it must be "gelu_new")"},
        Change{"Bias", "llama3", "attention_bias", true, R"("attention_bias": true)"},
        Change{"Window", "qwen2", "use_sliding_window", true, R"("use_sliding_window": true)"},
        Change{"Layers", "qwen3", "layer_types", {"full_attention", "sliding_attention"}, R"("sliding_attention")"},
        Change{"Quantized", "llama3", "quantization_config", {{"bits", 4}}, R"("quantization_config")"},
        Change{"Unknown", "llama3", "logit_scale", 0.5, R"("logit_scale": 0.5 is not supported: the key is not known)"},
        Change{"Partial", "llama3", "partial_rotary_factor", 0.5, R"("partial_rotary_factor": 0.5)"},
        Change{"Decoder", "bert", "is_decoder", true, R"("is_decoder": true)"},
        Change{"Segments", "bert", "type_vocab_size", 3, R"("type_vocab_size": 3)"},
        Change{"Dtype", "llama3", "dtype", "float8", R"("dtype": "float8")"},
        Change{"Missing", "llama3", "hidden_size", nullptr, R"("hidden_size" is missing)"},
        Change{"Negative", "llama3", "hidden_size", -32, R"("hidden_size": -32)"},
        Change{"TextSize", "llama3", "hidden_size", "32", R"("hidden_size": "32")"},
        Change{"Limits", "llama3", "num_hidden_layers", 5000, "model.layers = 5000: must be from 1 to 4096"},
        Change{"Heads", "llama3", "num_key_value_heads", 3, "model.kv_heads = 3: must divide"},
        Change{"ZeroHeads", "llama3", "num_attention_heads", 0, "model.heads = 0"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(HfConfigTest, TextsThatAreNone) {
  for (const std::string& text :
       {std::string(), std::string("[]"), std::string("{"), std::string(100, '['), std::string((1 << 20) + 1, ' ')}) {
    EXPECT_EQ(ParseHfConfig(text).status().code(), absl::StatusCode::kInvalidArgument);
  }
}

TEST(HfConfigTest, DifferencesThatMatter) {
  ModelConfig a = Expected("llama3"), b = a;
  a.seq = 7, a.init_std = 0.5, a.head_width = 8;  // 8 is what it is
  EXPECT_EQ(DifferenceToHf(a, b), "");
  a.rope_factor = 7;
  EXPECT_EQ(DifferenceToHf(a, b), "model.rope_factor = 7.0, config.json says 8.0");
  a.arch = ModelArch::kQwen2;
  EXPECT_THAT(DifferenceToHf(a, b), HasSubstr("model.arch = \"qwen2\""));
}

// ---- names

TEST(HfNamesTest, EveryParameterHasItsTensorAndEveryTensorItsParameters) {
  for (const std::string& name : kFixtures) {
    const auto model = HfModel::Open(Env::Posix(), Fixture(name));
    ASSERT_TRUE(model.ok()) << model.status();
    std::multiset<std::string> held;
    for (const HfTensor& t : model->names().tensors()) {
      for (const std::string& p : t.parameters) held.insert(p);
    }
    std::multiset<std::string> parameters;
    int64_t elements = 0;
    for (const Parameter& p : model->names().parameters()) {
      parameters.insert(p.name);
      elements += p.shape.elements();
    }
    EXPECT_EQ(held, parameters) << name;
    EXPECT_EQ(elements, model->config().num_parameters()) << name;
    EXPECT_EQ(model->names().tensors().size(), model->tensors().tensors().size()) << name;
    EXPECT_TRUE(model->unused().empty());
  }
}

std::vector<float> Floats(const HfModel& model, const std::string& parameter, const Shape& offset, const Shape& size) {
  std::vector<float> values(static_cast<size_t>(size.elements()));
  const absl::Status status =
      model.Read(parameter, offset, size, StoredType::kF32, std::as_writable_bytes(std::span(values)));
  EXPECT_TRUE(status.ok()) << status;
  return values;
}

std::vector<float> Raw(const HfModel& model, const std::string& tensor) {
  const StoredTensor& t = *model.tensors().Find(tensor);
  std::vector<float> values(static_cast<size_t>(t.shape.elements()));
  EXPECT_TRUE(model.tensors().Read(t, OriginOf(t.shape), t.shape, std::as_writable_bytes(std::span(values))).ok());
  return values;
}

// c_attn is [in, q | k | v]: wk[o, i] is c_attn[i, 32 + o].
TEST(HfModelTest, BoxesOfPartsThatAreTurnedAbout) {
  const auto model = HfModel::Open(Env::Posix(), Fixture("gpt2"));
  ASSERT_TRUE(model.ok()) << model.status();
  const std::vector<float> c_attn = Raw(*model, "transformer.h.1.attn.c_attn.weight"),
                           bias = Raw(*model, "transformer.h.1.attn.c_attn.bias");
  const std::vector<float> box = Floats(*model, "blocks.1.wk", {4, 10}, {20, 5});
  for (int64_t o = 0; o < 20; ++o) {
    for (int64_t i = 0; i < 5; ++i) ASSERT_EQ(box[o * 5 + i], c_attn[(i + 10) * 96 + 32 + o + 4]);
  }
  const std::vector<float> v = Floats(*model, "blocks.1.wv.bias", {3}, {7});
  for (int64_t i = 0; i < 7; ++i) EXPECT_EQ(v[i], bias[64 + 3 + i]);
  std::vector<std::byte> out(4);
  EXPECT_EQ(model->Read("blocks.1.wk", {31, 32}, {1, 1}, StoredType::kF32, out).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(model->Read("blocks.2.wk", {0, 0}, {1, 1}, StoredType::kF32, out).code(), absl::StatusCode::kNotFound);
}

// A model folder made by changing the tensors of a fixture.
class ChangedModel {
 public:
  ChangedModel(const std::string& fixture, const std::function<std::vector<StoredTensor>(const HfModel&)>& tensors,
               const std::function<std::string(const std::string&)>& source) {
    const HfModel model = HfModel::Open(Env::Posix(), Fixture(fixture)).value();
    std::filesystem::copy_file(Fixture(fixture) + "/config.json", dir_.path("config.json"));
    SafetensorsHeader header{tensors(model), {}};
    LayOutSafetensors(header.tensors);
    const absl::Status status =
        WriteSafetensors(Env::Posix(), dir_.path(kSafetensorsName), header, PrintSafetensorsHeader(header),
                         [&](const StoredTensor& t, std::span<std::byte> out) -> absl::Status {
                           const StoredTensor* from = model.tensors().Find(source(t.name));
                           if (from == nullptr || from->bytes() != t.bytes()) {
                             std::memset(out.data(), 7, out.size());
                             return absl::OkStatus();
                           }
                           return model.tensors().Read(*from, OriginOf(from->shape), from->shape, out);
                         });
    EXPECT_TRUE(status.ok()) << status;
  }
  absl::StatusOr<HfModel> Open() const { return HfModel::Open(Env::Posix(), dir_.path()); }

 private:
  TempDir dir_;
};

std::string Same(const std::string& name) { return name; }

std::vector<StoredTensor> All(const HfModel& model) {
  std::vector<StoredTensor> all;
  for (const StoredTensor* t : model.tensors().tensors()) all.push_back(*t);
  return all;
}

// As the first GPT-2 was published: no prefix, masks beside the weights, the tied head a second time.
TEST(HfModelTest, OldSpellings) {
  const ChangedModel changed(
      "gpt2",
      [](const HfModel& model) {
        std::vector<StoredTensor> all = All(model);
        for (StoredTensor& t : all) t.name = t.name.substr(std::strlen("transformer."));
        all.push_back({"h.0.attn.bias", StoredType::kU8, {1, 1, 8, 8}, 0});
        all.push_back({"lm_head.weight", StoredType::kF32, {99, 32}, 0});
        return all;
      },
      [](const std::string& name) {
        return name == "lm_head.weight" ? "transformer.wte.weight" : "transformer." + name;
      });
  const auto model = changed.Open();
  ASSERT_TRUE(model.ok()) << model.status();
  ASSERT_EQ(model->unused().size(), 1u);
  EXPECT_EQ(model->unused()[0]->name, "h.0.attn.bias");
  EXPECT_EQ(model->names().PlaceOf("blocks.0.wo")->tensor, "h.0.attn.c_proj.weight");
  EXPECT_TRUE(model->names().Find("lm_head.weight")->copy);

  const ChangedModel bert(
      "bert",
      [](const HfModel& model) {
        std::vector<StoredTensor> all = All(model);
        for (StoredTensor& t : all) {
          if (t.name.ends_with("LayerNorm.weight")) t.name.replace(t.name.size() - 6, 6, "gamma");
          if (t.name.ends_with("LayerNorm.bias")) t.name.replace(t.name.size() - 4, 4, "beta");
        }
        all.push_back({"bert.pooler.dense.bias", StoredType::kF32, {32}, 0});
        return all;
      },
      Same);
  const auto old = bert.Open();
  ASSERT_TRUE(old.ok()) << old.status();
  EXPECT_EQ(old->names().PlaceOf("blocks.0.attn_norm.bias")->tensor,
            "bert.encoder.layer.0.attention.output.LayerNorm.beta");
  EXPECT_EQ(old->unused().size(), 1u);
}

TEST(HfModelTest, RefusesWhatDoesNotFit) {
  const auto refused = [](const std::function<void(std::vector<StoredTensor>&)>& change, const char* why) {
    const ChangedModel changed(
        "llama-tied",
        [&](const HfModel& model) {
          std::vector<StoredTensor> all = All(model);
          change(all);
          return all;
        },
        Same);
    const absl::Status status = changed.Open().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(why));
  };
  refused([](auto& all) { all.pop_back(); }, R"(there is no tensor "model.norm.weight", which holds head.norm.weight)");
  refused(
      [](auto& all) {
        all.push_back({"model.layers.0.self_attn.q_proj.bias", StoredType::kF32, {64}, 0});
      },
      R"(tensor "model.layers.0.self_attn.q_proj.bias" is not one of model.arch = "llama")");
  refused([](auto& all) { all[0].shape[0] = 98; }, "has shape [98, 32], config.json says [99, 32]");
  refused([](auto& all) { all.back().type = StoredType::kI32; }, "is of I32; F64, F32, BF16 and F16 are read");
  refused(
      [](auto& all) {
        all.push_back({"lm_head.weight", StoredType::kF32, {99, 32}, 0});
      },
      R"(tensor "lm_head.weight" differs from "model.embed_tokens.weight")");
}

// ---- writing

TEST(HfExportTest, FilesOfALimitedSize) {
  const HfNames names = HfNames::Make(Expected("llama3")).value();
  const auto type = [](const HfTensor&) { return StoredType::kBF16; };
  const HfLayout one = LayOutHf(names, type);
  ASSERT_EQ(one.files.size(), 1u);
  EXPECT_EQ(one.files[0].name, "model.safetensors");
  EXPECT_EQ(one.index, "");
  const HfLayout many = LayOutHf(names, type, 20000);
  ASSERT_EQ(many.files.size(), 3u);
  int64_t bytes = 0;
  for (const HfLayout::File& f : many.files) {
    EXPECT_LE(f.header.data_bytes(), 20000);
    EXPECT_TRUE(ParseSafetensorsHeader(PrintSafetensorsHeader(f.header)).ok());
    bytes += f.header.data_bytes();
  }
  EXPECT_EQ(bytes, 2 * Expected("llama3").num_parameters());
  const auto index = ParseSafetensorsIndex(many.index);
  ASSERT_TRUE(index.ok()) << index.status();
  EXPECT_EQ(index->size(), names.tensors().size());
  EXPECT_EQ(Json::parse(many.index)["metadata"]["total_size"], bytes);
}

}  // namespace
}  // namespace strata
