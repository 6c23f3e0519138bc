// The pages that people read, against the tree and the code: links, commands, exit codes, error codes.

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <regex>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "core/base/env.h"
#include "launch/cli/cli.h"
#include "launch/cli/exit_codes.h"
#include "launch/config/errors.h"

namespace strata {
namespace {

namespace fs = std::filesystem;

const fs::path kRoot(STRATA_SOURCE_DIR);

std::string Text(const fs::path& path) { return ReadText(Env::Posix(), path.string()).value_or(""); }

// README.md of every folder, and docs/*.md.
std::vector<fs::path> Pages() {
  std::vector<fs::path> pages = {kRoot / "README.md"};
  for (const auto& folder : fs::directory_iterator(kRoot)) {
    if (fs::exists(folder.path() / "README.md")) pages.push_back(folder.path() / "README.md");
  }
  for (const auto& page : fs::directory_iterator(kRoot / "docs")) {
    if (page.path().extension() == ".md" && page.path().filename() != "README.md") pages.push_back(page.path());
  }
  return pages;
}

std::vector<std::string> Matches(const std::string& text, const std::string& pattern) {
  const std::regex regex(pattern);
  std::vector<std::string> found;
  for (std::sregex_iterator it(text.begin(), text.end(), regex), end; it != end; ++it) found.push_back((*it)[1]);
  return found;
}

TEST(Docs, EveryRelativeLinkLeadsToAFile) {
  int links = 0;
  for (const fs::path& page : Pages()) {
    for (std::string target : Matches(Text(page), R"(\]\(([^)\s]+)\))")) {
      if (target.find("://") != std::string::npos) continue;
      target.resize(std::min(target.find('#'), target.size()));
      EXPECT_TRUE(fs::exists(page.parent_path() / target)) << page << ": " << target;
      ++links;
    }
  }
  EXPECT_GT(links, 60);
}

TEST(Docs, ThePageOfDocsAndTheReadmeNameEveryPage) {
  const std::string list = Text(kRoot / "docs/README.md"), readme = Text(kRoot / "README.md");
  for (const auto& page : fs::directory_iterator(kRoot / "docs")) {
    const std::string name = page.path().filename().string();
    if (page.path().extension() != ".md" || name == "README.md") continue;
    EXPECT_NE(list.find("`" + name + "`"), std::string::npos) << name;
    EXPECT_NE(readme.find("(docs/" + name + ")"), std::string::npos) << name;
  }
}

// As a shell would: words, and quotes around words with spaces.
std::vector<std::string> Words(const std::string& line) {
  std::vector<std::string> words;
  bool open = false;
  char quote = 0;
  for (const char c : line) {
    if (quote == 0 && c == '#' && !open) break;
    if (quote == 0 && (c == ' ' || c == '|' || c == ';')) {
      if (c != ' ') break;  // another command
      open = false;
    } else if (quote == 0 && (c == '"' || c == '\'')) {
      quote = c;
      if (!open) words.emplace_back();
      open = true;
    } else if (c == quote) {
      quote = 0;
    } else {
      if (!open) words.emplace_back();
      open = true;
      words.back().push_back(c);
    }
  }
  return words;
}

// The words after "strata" of a command line, however it is started; empty where it is none.
std::vector<std::string> StrataCommand(const std::string& line) {
  std::vector<std::string> words = Words(line);
  for (size_t i = 0; i < words.size(); ++i) {
    const std::string& w = words[i];
    if (w != "strata" && !w.ends_with("/strata")) continue;
    return {words.begin() + static_cast<std::ptrdiff_t>(i) + 1, words.end()};
  }
  return {};
}

// Commands in fenced blocks and in `code`. Synopses ("[OPTIONS]") are not commands.
std::vector<std::string> Commands(const std::string& text) {
  std::vector<std::string> commands;
  for (const std::string& block : Matches(text, "```[a-z]*\n([^`]*)```")) {
    for (const std::string& line : Matches(block, "([^\n]+)")) {
      if (std::regex_search(line, std::regex("^(\\$ )?((mpirun|srun|taskset) .*)?[a-z/]*strata "))) {
        commands.push_back(line);
      }
    }
  }
  for (const std::string& code : Matches(std::regex_replace(text, std::regex("```[^`]*```"), ""), "`([^`\n]+)`")) {
    if (std::regex_search(code, std::regex("^((mpirun|srun) .*)?[a-z/]*strata [a-z]"))) commands.push_back(code);
  }
  std::erase_if(commands, [](const std::string& c) {
    return c.find('[') != std::string::npos && c.find('\'') == std::string::npos;
  });
  return commands;
}

bool LacksOnlyArguments(const absl::Status& status) {
  const std::string why(status.message());
  return why.ends_with(" is required") && why.find("subcommand") == std::string::npos;
}

TEST(Docs, EveryStrataCommandIsOne) {
  int commands = 0;
  for (const fs::path& page : Pages()) {
    for (const std::string& command : Commands(Text(page))) {
      std::vector<std::string> words = StrataCommand(command);
      ASSERT_FALSE(words.empty()) << page << ": " << command;
      const absl::Status status = CheckCommand(words);
      const bool verb_only = std::all_of(words.begin(), words.end(), [](const std::string& w) {
        return std::all_of(w.begin(), w.end(), [](char c) { return c >= 'a' && c <= 'z'; });
      });
      if (verb_only && LacksOnlyArguments(status)) continue;  // `strata plan`, spoken of
      EXPECT_TRUE(status.ok()) << page << ": " << command << ": " << status;
      ++commands;
    }
  }
  EXPECT_GT(commands, 40);
}

TEST(Docs, TheCommandCheckCanFail) {
  EXPECT_TRUE(CheckCommand({"train", "job.toml", "--resume", "never"}).ok());
  EXPECT_TRUE(CheckCommand({"launch", "--", "train", "job.toml"}).ok());
  EXPECT_FALSE(CheckCommand({"train"}).ok());
  EXPECT_FALSE(CheckCommand({"train", "job.toml", "--restart"}).ok());
  EXPECT_FALSE(CheckCommand({"tain", "job.toml"}).ok());
  EXPECT_TRUE(LacksOnlyArguments(CheckCommand({"train"})));
  EXPECT_FALSE(LacksOnlyArguments(CheckCommand({"tain"})));
  EXPECT_FALSE(LacksOnlyArguments(CheckCommand({"train", "job.toml", "--restart"})));
  EXPECT_EQ(StrataCommand("mpirun -n 4 build/strata train 'a b' --set x=\"y z\"  # note"),
            (std::vector<std::string>{"train", "a b", "--set", "x=y z"}));
}

TEST(Docs, EveryExitCodeIsExplained) {
  const std::string page = Text(kRoot / "docs/errors.md"), header = Text(kRoot / "launch/cli/exit_codes.h");
  const std::regex constant(R"(constexpr int (kExit\w+) = (\d+);)");
  int codes = 0;
  for (std::sregex_iterator it(header.begin(), header.end(), constant), end; it != end; ++it, ++codes) {
    const std::string row = "| " + (*it)[2].str() + " | `" + (*it)[1].str() + "` |";
    EXPECT_NE(page.find(row), std::string::npos) << row;
  }
  EXPECT_EQ(codes, 6);
}

TEST(Docs, EveryStatusIsInTheRowOfItsExitCode) {
  const std::string page = Text(kRoot / "docs/errors.md");
  std::map<int, std::string> made_of;
  const std::regex row(R"(\n\| (\d+) \| `kExit\w+` \| [^|]* \| ([^|]*) \|)");
  for (std::sregex_iterator it(page.begin(), page.end(), row), end; it != end; ++it) {
    made_of[std::stoi((*it)[1])] = (*it)[2];
  }
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "x");
    std::string name = status.ToString();  // "INVALID_ARGUMENT: x"
    name.resize(name.find(':'));
    std::string camel;
    for (size_t i = 0; i < name.size(); ++i) {
      if (name[i] == '_') continue;
      const bool first = i == 0 || name[i - 1] == '_';
      camel.push_back(first ? name[i] : static_cast<char>(std::tolower(name[i])));
    }
    const int exit_code = ExitCode(status);
    ASSERT_TRUE(made_of.contains(exit_code)) << camel;
    for (const auto& [other, text] : made_of) {
      const bool named = text.find(camel) != std::string::npos;
      EXPECT_EQ(named, other == exit_code && exit_code != kExitFailure) << camel << " in the row of " << other;
    }
  }
}

TEST(Docs, EveryConfigErrorCodeIsExplained) {
  const std::string page = Text(kRoot / "docs/errors.md");
  for (const ErrorCode& e : kErrorCodes) {
    const std::string row = "| " + std::string(e.code) + " | " + std::string(e.meaning) + " |";
    EXPECT_NE(page.find(row), std::string::npos) << row;
  }
}

}  // namespace
}  // namespace strata
