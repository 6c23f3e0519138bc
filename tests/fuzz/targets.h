#pragma once
// What is fuzzed: functions that take any bytes. They end the process (STRATA_CHECK) where our code breaks its word, and a
// sanitizer ends it for the rest. entry.cc makes a libFuzzer program of each, replay_test.cc replays the kept corpora.

#include <string_view>

namespace strata::fuzz {

// A config file; overrides of a command line follow after NUL bytes. Every error has its place and a stable code; what
// loads is printed as text that loads to the same.
void Config(std::string_view input);
// A token index, after two bytes that hold the size of the .bin it belongs to. Whatever opens can be read whole.
void Index(std::string_view input);
// The sums beside token files, but for their last line, which is put right. What parses prints as text that parses to the
// same.
void TokenSumsText(std::string_view input);
// A checkpoint's manifest; its checksum is put right first, so that what is behind it is reached. What parses is valid,
// prints as text that parses to the same, and its tensors can be read from data files of zeros, or are refused.
void ManifestText(std::string_view input);
// A tokenizer model. Whatever loads encodes and decodes a text with ids of its vocabulary.
void TokenizerModel(std::string_view input);
// A tokenizer.json, and behind a NUL byte a text. Whatever loads encodes that text and another with ids of its vocabulary,
// or says that it cannot.
void TokenizerJsonFile(std::string_view input);
// A text, through a tokenizer that was trained here: it comes back byte for byte.
void TokenizerText(std::string_view input);

// A safetensors file, its header alone, or an index. Whatever opens can be read whole; what parses prints as text that parses
// to the same, and a file of that header opens.
void SafetensorsBytes(std::string_view input);
// A config.json. What parses prints as text that parses to the same model.
void HfConfigText(std::string_view input);

struct Target {
  std::string_view name;  // of its folder in corpus/, and of its program: fuzz_NAME
  void (*run)(std::string_view input);
};
inline constexpr Target kTargets[] = {
    {"config", Config},
    {"index", Index},
    {"token_sums", TokenSumsText},
    {"manifest", ManifestText},
    {"tokenizer_model", TokenizerModel},
    {"tokenizer_json", TokenizerJsonFile},
    {"tokenizer_text", TokenizerText},
    {"safetensors", SafetensorsBytes},
    {"hf_config", HfConfigText},
};

}  // namespace strata::fuzz
