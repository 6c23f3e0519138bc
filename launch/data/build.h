#pragma once
// Texts -> a tokenizer and token files: OUT/tokenizer.model (or tokenizer.json and what is beside it), OUT/train.bin, .idx,
// .sum and OUT/valid.bin, .idx, .sum. Each text file is one document. Its last valid_fraction of bytes, cut at the
// paragraph boundary nearest to that point, goes to validation, the rest to training; EOS ends each part, and a
// tokenizer.json's BOS begins it. A document without a paragraph boundary (an
// empty line) goes to training as a whole. Of JSON lines each line is a document; which of them go to validation, as a
// whole, says IsValidation. The tokenizer sees the training part only. Holds all text in memory.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/env.h"

namespace strata {

struct BuildOptions {
  std::vector<std::string> inputs;      // paths of plain text files
  std::vector<std::string> jsonl = {};  // paths of JSON lines (jsonl.h), behind the text files
  std::string field = "text";           // of a line: its text
  std::string out;                      // folder; made if it is not there
  int vocab_size = 2048;                // of the tokenizer to train
  std::string tokenizer = {};           // an existing one to use instead (Tokenizer::Load); vocab_size is then unused
  double valid_fraction = 0.05;         // in [0, 1); 0: no validation files
  bool overwrite = false;
};

struct SplitReport {
  int64_t documents = 0;
  int64_t tokens = 0;  // with one EOS a document
  int64_t bytes = 0;   // of text
  int64_t chars = 0;   // Unicode characters
  double CharsPerToken() const { return tokens == 0 ? 0 : static_cast<double>(chars) / static_cast<double>(tokens); }
};

struct BuildReport {
  std::string tokenizer_path, train_prefix;
  std::string valid_prefix;  // empty: no validation files
  int vocab_size = 0;
  SplitReport train = {}, valid = {};
};

// Everything is read and checked before anything is written, and all is written before anything old is touched: a build
// that fails or is killed leaves the old dataset, or none, or the new one, but none in part. NotFound: an input is missing.
// InvalidArgument: bad options, a tokenizer that is not supported, an empty text, a mistake in JSON lines, nothing to validate on, a vocabulary too large for
// the text. AlreadyExists: a file of the output is there and overwrite is off.
absl::StatusOr<BuildReport> BuildDataset(Env& env, const BuildOptions& options);

// Whether document i = 0, 1, ... of the JSON lines goes to validation: floor((i + 1) f) > floor(i f).
bool IsValidation(int64_t document, double valid_fraction);

// The byte at which `text` is cut: behind the empty line nearest to (1 - valid_fraction) of it; text.size() if
// valid_fraction is 0 or nothing but blank lines would be on one side.
size_t ValidationCut(std::string_view text, double valid_fraction);

}  // namespace strata
