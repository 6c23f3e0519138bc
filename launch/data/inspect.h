#pragma once
// What token files hold, and whether they are whole.

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "core/base/env.h"

namespace strata {

// The prefixes that `path` stands for: itself, or of a folder made by data build its train and, where it is there, valid.
std::vector<std::string> DatasetsAt(Env& env, const std::string& path);

// The tokenizer in the folder of PREFIX, where data build puts it: tokenizer.json if there is one, else tokenizer.model.
std::string TokenizerBeside(Env& env, const std::string& prefix);

// Format, counts, lengths, ids and checksums of PREFIX as lines of text. Reads all tokens. Errors: IndexedDataset::Open's,
// Read's.
absl::StatusOr<std::string> DescribeDataset(Env& env, const std::string& prefix);

// Documents [begin, end) of PREFIX, each under a line with its number and length: as text, or each piece on a line of its
// own, with its id. InvalidArgument: there are no such documents, or the tokenizer is not the one that they were made with.
enum class ShowAs : uint8_t { kText, kPieces };
absl::StatusOr<std::string> DocumentTexts(Env& env, const std::string& prefix, const std::string& tokenizer,
                                          int64_t begin, int64_t end, ShowAs as = ShowAs::kText);

// Checks every byte of PREFIX: the checksums of all files, and of the tokenizer beside them, the index, and that every token
// is below the vocabulary. One line, for a dataset that is whole; where it has no sums, the line says what could not be checked.
// DataLoss: a line for each damage, with file and byte. NotFound: there is no such dataset.
absl::StatusOr<std::string> VerifyDataset(Env& env, const std::string& prefix);

}  // namespace strata
