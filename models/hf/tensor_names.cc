#include "models/hf/tensor_names.h"

#include <algorithm>
#include <span>

#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "core/base/glob.h"
#include "core/base/status.h"
#include "core/graph/builder.h"
#include "models/model.h"

namespace strata {
namespace {

// Our name and theirs; N stands for the number of the block.
struct Row {
  const char* ours;
  const char* theirs;
  bool transposed = false;
  int part = 0, parts = 1;
};

constexpr Row kFamily[] = {
    // Llama, Qwen2, Qwen3
    {"embed.weight", "model.embed_tokens.weight"},
    {"blocks.N.attn_norm.weight", "model.layers.N.input_layernorm.weight"},
    {"blocks.N.wq", "model.layers.N.self_attn.q_proj.weight"},
    {"blocks.N.wk", "model.layers.N.self_attn.k_proj.weight"},
    {"blocks.N.wv", "model.layers.N.self_attn.v_proj.weight"},
    {"blocks.N.wq.bias", "model.layers.N.self_attn.q_proj.bias"},
    {"blocks.N.wk.bias", "model.layers.N.self_attn.k_proj.bias"},
    {"blocks.N.wv.bias", "model.layers.N.self_attn.v_proj.bias"},
    {"blocks.N.q_norm.weight", "model.layers.N.self_attn.q_norm.weight"},
    {"blocks.N.k_norm.weight", "model.layers.N.self_attn.k_norm.weight"},
    {"blocks.N.wo", "model.layers.N.self_attn.o_proj.weight"},
    {"blocks.N.ffn_norm.weight", "model.layers.N.post_attention_layernorm.weight"},
    {"blocks.N.gate", "model.layers.N.mlp.gate_proj.weight"},
    {"blocks.N.up", "model.layers.N.mlp.up_proj.weight"},
    {"blocks.N.down", "model.layers.N.mlp.down_proj.weight"},
    {"head.norm.weight", "model.norm.weight"},
    {"head.weight", "lm_head.weight"},
};

constexpr Row kGpt2[] = {
    {"embed.weight", "transformer.wte.weight"},
    {"embed.positions", "transformer.wpe.weight"},
    {"blocks.N.attn_norm.weight", "transformer.h.N.ln_1.weight"},
    {"blocks.N.attn_norm.bias", "transformer.h.N.ln_1.bias"},
    {"blocks.N.wq", "transformer.h.N.attn.c_attn.weight", true, 0, 3},
    {"blocks.N.wk", "transformer.h.N.attn.c_attn.weight", true, 1, 3},
    {"blocks.N.wv", "transformer.h.N.attn.c_attn.weight", true, 2, 3},
    {"blocks.N.wq.bias", "transformer.h.N.attn.c_attn.bias", false, 0, 3},
    {"blocks.N.wk.bias", "transformer.h.N.attn.c_attn.bias", false, 1, 3},
    {"blocks.N.wv.bias", "transformer.h.N.attn.c_attn.bias", false, 2, 3},
    {"blocks.N.wo", "transformer.h.N.attn.c_proj.weight", true},
    {"blocks.N.wo.bias", "transformer.h.N.attn.c_proj.bias"},
    {"blocks.N.ffn_norm.weight", "transformer.h.N.ln_2.weight"},
    {"blocks.N.ffn_norm.bias", "transformer.h.N.ln_2.bias"},
    {"blocks.N.up", "transformer.h.N.mlp.c_fc.weight", true},
    {"blocks.N.up.bias", "transformer.h.N.mlp.c_fc.bias"},
    {"blocks.N.down", "transformer.h.N.mlp.c_proj.weight", true},
    {"blocks.N.down.bias", "transformer.h.N.mlp.c_proj.bias"},
    {"head.norm.weight", "transformer.ln_f.weight"},
    {"head.norm.bias", "transformer.ln_f.bias"},
};

constexpr Row kBert[] = {
    {"embed.weight", "bert.embeddings.word_embeddings.weight"},
    {"embed.positions", "bert.embeddings.position_embeddings.weight"},
    {"embed.segments", "bert.embeddings.token_type_embeddings.weight"},
    {"embed.norm.weight", "bert.embeddings.LayerNorm.weight"},
    {"embed.norm.bias", "bert.embeddings.LayerNorm.bias"},
    {"blocks.N.wq", "bert.encoder.layer.N.attention.self.query.weight"},
    {"blocks.N.wq.bias", "bert.encoder.layer.N.attention.self.query.bias"},
    {"blocks.N.wk", "bert.encoder.layer.N.attention.self.key.weight"},
    {"blocks.N.wk.bias", "bert.encoder.layer.N.attention.self.key.bias"},
    {"blocks.N.wv", "bert.encoder.layer.N.attention.self.value.weight"},
    {"blocks.N.wv.bias", "bert.encoder.layer.N.attention.self.value.bias"},
    {"blocks.N.wo", "bert.encoder.layer.N.attention.output.dense.weight"},
    {"blocks.N.wo.bias", "bert.encoder.layer.N.attention.output.dense.bias"},
    {"blocks.N.attn_norm.weight", "bert.encoder.layer.N.attention.output.LayerNorm.weight"},
    {"blocks.N.attn_norm.bias", "bert.encoder.layer.N.attention.output.LayerNorm.bias"},
    {"blocks.N.up", "bert.encoder.layer.N.intermediate.dense.weight"},
    {"blocks.N.up.bias", "bert.encoder.layer.N.intermediate.dense.bias"},
    {"blocks.N.down", "bert.encoder.layer.N.output.dense.weight"},
    {"blocks.N.down.bias", "bert.encoder.layer.N.output.dense.bias"},
    {"blocks.N.ffn_norm.weight", "bert.encoder.layer.N.output.LayerNorm.weight"},
    {"blocks.N.ffn_norm.bias", "bert.encoder.layer.N.output.LayerNorm.bias"},
    {"head.dense", "cls.predictions.transform.dense.weight"},
    {"head.dense.bias", "cls.predictions.transform.dense.bias"},
    {"head.norm.weight", "cls.predictions.transform.LayerNorm.weight"},
    {"head.norm.bias", "cls.predictions.transform.LayerNorm.bias"},
    {"head.bias", "cls.predictions.bias"},
};

// Tensors that a file may hold beside the one they are tied to.
struct Copy {
  const char* tensor;
  const char* parameter;
};
// How files spell a name that is not there as it is written today.
struct Spelling {
  const char* today;
  const char* other;
};

struct Table {
  std::span<const Row> rows;
  std::vector<Copy> copies;
  std::vector<Spelling> spellings;
  std::vector<const char*> unused;  // glob patterns
};

const Table& TableOf(ModelArch arch) {
  static const Table family = {kFamily, {{"lm_head.weight", "embed.weight"}}, {}, {"*.rotary_emb.inv_freq"}};
  static const Table gpt2 = {
      kGpt2, {{"lm_head.weight", "embed.weight"}}, {{"transformer.", ""}}, {"*.attn.bias", "*.attn.masked_bias"}};
  static const Table bert = {
      kBert,
      {{"cls.predictions.decoder.weight", "embed.weight"}, {"cls.predictions.decoder.bias", "head.bias"}},
      {{"LayerNorm.weight", "LayerNorm.gamma"}, {"LayerNorm.bias", "LayerNorm.beta"}},
      {"bert.embeddings.position_ids", "bert.pooler.*", "cls.seq_relationship.*"}};
  return arch == ModelArch::kGpt2 ? gpt2 : arch == ModelArch::kBert ? bert : family;
}

// "blocks.12.wq" as "blocks.N.wq" and "12".
std::pair<std::string, std::string> SplitBlock(const std::string& name) {
  constexpr std::string_view kBlocks = "blocks.";
  const size_t end = name.find('.', kBlocks.size());
  if (!name.starts_with(kBlocks) || end == std::string::npos) return {name, ""};
  return {std::string(kBlocks) + "N" + name.substr(end), name.substr(kBlocks.size(), end - kBlocks.size())};
}

Shape ShapeOfTheirs(const Row& row, Shape ours) {
  ours[0] *= row.parts;
  if (row.transposed) std::swap(ours[0], ours[1]);
  return ours;
}

}  // namespace

absl::StatusOr<std::vector<Parameter>> ParametersOf(const ModelConfig& model) {
  GraphBuilder g;
  ModelOf(model.arch).loss(g, model, {});
  ASSIGN_OR_RETURN(const Graph graph, std::move(g).Build());
  std::vector<Parameter> parameters;
  for (const State& s : graph.states) {
    if (s.role == Role::kParam) parameters.push_back({s.name, s.model_shape.rank > 0 ? s.model_shape : s.spec.shape});
  }
  return parameters;
}

absl::StatusOr<HfNames> HfNames::Make(const ModelConfig& model, const std::function<bool(const std::string&)>& has) {
  HfNames names;
  ASSIGN_OR_RETURN(names.parameters_, ParametersOf(model));
  const Table& table = TableOf(model.arch);
  for (const Parameter& p : names.parameters_) {
    const auto [pattern, block] = SplitBlock(p.name);
    const auto row = std::find_if(table.rows.begin(), table.rows.end(),
                                  [&, &pattern = pattern](const Row& r) { return pattern == r.ours; });
    if (row == table.rows.end()) return absl::InternalError(absl::StrFormat("%s has no row in the table", p.name));
    std::string theirs = row->theirs;
    if (!block.empty()) theirs.replace(theirs.find(".N.") + 1, 1, block);
    for (const Spelling& s : table.spellings) {
      const std::string other = absl::StrReplaceAll(theirs, {{s.today, s.other}});
      if (has != nullptr && !has(theirs) && has(other)) theirs = other;
    }
    if (has != nullptr && !has(theirs)) {
      return absl::InvalidArgumentError(absl::StrFormat("there is no tensor \"%s\", which holds %s", theirs, p.name));
    }
    const HfPlace place{theirs, row->transposed, row->part, row->parts, ShapeOfTheirs(*row, p.shape)};
    if (row->part == 0) {
      names.tensors_.push_back({.name = theirs, .shape = place.shape, .transposed = place.transposed});
      names.tensors_.back().parameters.resize(static_cast<size_t>(row->parts));
    }
    const auto tensor = std::find_if(names.tensors_.rbegin(), names.tensors_.rend(),
                                     [&](const HfTensor& t) { return t.name == theirs; });
    tensor->parameters[static_cast<size_t>(row->part)] = p.name;
    names.places_.push_back(place);
  }
  for (const Copy& copy : table.copies) {
    if (has == nullptr || !has(copy.tensor) || names.Find(copy.tensor) != nullptr) continue;
    const HfPlace* place = names.PlaceOf(copy.parameter);
    names.tensors_.push_back(
        {.name = copy.tensor, .shape = place->shape, .parameters = {copy.parameter}, .copy = true});
  }
  return names;
}

const HfPlace* HfNames::PlaceOf(std::string_view parameter) const {
  for (size_t i = 0; i < parameters_.size(); ++i) {
    if (parameters_[i].name == parameter) return &places_[i];
  }
  return nullptr;
}

const HfTensor* HfNames::Find(std::string_view tensor) const {
  for (const HfTensor& t : tensors_) {
    if (t.name == tensor) return &t;
  }
  return nullptr;
}

bool HfNames::IsUnused(ModelArch arch, std::string_view tensor) {
  const Table& table = TableOf(arch);
  return std::any_of(table.unused.begin(), table.unused.end(),
                     [&](const char* pattern) { return GlobMatches(pattern, tensor); });
}

}  // namespace strata
