// Runs every rule of rules.h over the tree, and over a made-up bad snippet to show that it can fail.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <set>

#include "tests/lint/rules.h"

namespace strata::lint {
namespace {

namespace fs = std::filesystem;
using Rule = Findings (*)(const Source&);

std::string ReadAll(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(in), {});
}

// The tree's own text files: all of the folders below, and the files at the root. Novels, fuzzer inputs and models are not ours
// to lint.
std::vector<Source> ReadTree() {
  const fs::path root(STRATA_SOURCE_DIR);
  std::vector<fs::path> paths;
  for (const char* folder : {"core", "parallel", "optim", "checkpoint", "offload", "models", "launch", "tests", "bench",
                             "docs", "examples", "cmake", ".ci", ".githooks"}) {
    if (!fs::exists(root / folder)) continue;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root / folder))
      paths.push_back(entry.path());
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(root)) paths.push_back(entry.path());
  std::vector<Source> tree;
  for (const fs::path& path : paths) {
    const std::string name = path.lexically_relative(root).string();
    if (fs::is_regular_file(path) && !name.starts_with("examples/data/") && !name.starts_with("tests/fuzz/corpus/") &&
        !name.starts_with("tests/hf/fixtures/"))
      tree.push_back({name, ReadAll(path)});
  }
  return tree;
}

const std::vector<Source>& Tree() {
  static const std::vector<Source> tree = ReadTree();
  return tree;
}

std::string Joined(const Findings& findings) {
  std::string text;
  for (const std::string& finding : findings) text += finding + "\n";
  return text;
}

std::string SourcesAgainst(Rule rule) {
  std::string text;
  for (const Source& source : Tree()) {
    if (IsSource(source.path)) text += Joined(rule(source));
  }
  return text;
}

size_t Count(Rule rule, std::string path, std::string text) { return rule({std::move(path), std::move(text)}).size(); }

TEST(LintTree, IsRead) {
  EXPECT_GT(std::count_if(Tree().begin(), Tree().end(), [](const Source& s) { return IsSource(s.path); }), 25);
}
TEST(LintTree, Layering) { EXPECT_EQ(SourcesAgainst(Layering), ""); }
TEST(LintTree, BannedCalls) { EXPECT_EQ(SourcesAgainst(BannedCalls), ""); }
TEST(LintTree, MutableGlobals) { EXPECT_EQ(SourcesAgainst(MutableGlobals), ""); }
TEST(LintTree, Length) { EXPECT_EQ(SourcesAgainst(Length), ""); }
TEST(LintTree, HeaderPurpose) { EXPECT_EQ(SourcesAgainst(HeaderPurpose), ""); }

TEST(LintTree, GpuHeaders) { EXPECT_EQ(Joined(GpuHeaders(Tree())), ""); }

TEST(LintTree, Wording) {
  std::string text;
  for (const Source& source : Tree()) text += Joined(Wording(source));
  EXPECT_EQ(text, "");
}

TEST(LintTree, EveryTestIsRegistered) {
  const std::string cmake = ReadAll(fs::path(STRATA_SOURCE_DIR) / "tests/CMakeLists.txt");
  std::string text;
  for (const Source& source : Tree()) {
    if (source.path.starts_with("tests/")) text += Joined(Registration(source, cmake));
  }
  EXPECT_EQ(text, "");
}

TEST(LintTree, EveryFolderHasAReadme) {
  std::map<std::string, std::set<std::string>> subfolders;  // top folder -> folders in it that have sources
  for (const Source& source : Tree()) {
    const size_t slash = source.path.find('/'), next = source.path.find('/', slash + 1);
    if (slash == std::string::npos || source.path.starts_with(".") || source.path.starts_with("cmake/")) continue;
    std::set<std::string>& subs = subfolders[source.path.substr(0, slash)];
    const bool library = source.path.starts_with("core/") || source.path.starts_with("parallel/");
    if (library && next != std::string::npos && IsSource(source.path)) {
      subs.insert(source.path.substr(slash + 1, next - slash - 1));
    }
  }
  std::string text;
  for (const auto& [folder, subs] : subfolders) {
    text +=
        Joined(Readme(folder, ReadAll(fs::path(STRATA_SOURCE_DIR) / folder / "README.md"), {subs.begin(), subs.end()}));
  }
  EXPECT_EQ(text, "");
}

TEST(LintText, CodeOnlyBlanksCommentsAndLiterals) {
  EXPECT_EQ(CodeOnly("a // b\nc"), "a     \nc");
  EXPECT_EQ(CodeOnly("a /* b\n */ c"), "a     \n    c");
  EXPECT_EQ(CodeOnly(R"(f("x\"y", 'z', 1'000);)"), "f(      ,    , 1'000);");
  EXPECT_EQ(CodeOnly("R\"x(a)\" b)x\" c"), "             c");
}

TEST(LintRules, LayeringFindsWrongIncludes) {
  EXPECT_EQ(Count(Layering, "core/a.cc", "#include \"parallel/zero/zero.h\"\n"), 1u);
  EXPECT_EQ(Count(Layering, "parallel/a.cc", "#include \"optim/adamw.h\"\n"), 1u);
  EXPECT_EQ(Count(Layering, "models/a.cc", "#include \"launch/config.h\"\n"), 1u);
  EXPECT_EQ(Count(Layering, "launch/a.cc", "#include \"tests/testing/interpreter.h\"\n"), 1u);
  EXPECT_EQ(Count(Layering, "optim/a.cc", "#include \"../core/base/env.h\"\n"), 1u);
  EXPECT_EQ(Count(Layering, "launch/a.cc", "#include \"models/internal/names.h\"\n"), 1u);
  EXPECT_EQ(Count(Layering, "tests/launch/a.cc", "#include \"models/internal/names.h\"\n"), 1u);
  EXPECT_EQ(Count(Layering, "tests/models/a.cc", "#include \"models/internal/names.h\"\n"), 0u);
  EXPECT_EQ(Count(Layering, "launch/a.cc", "#include \"models/llama.h\"\n#include \"absl/status/status.h\"\n"), 0u);
}

TEST(LintRules, GpuHeadersAreFoundThroughOthers) {
  const std::string direct = "#include <cublasLt.h>\n", by_header = "#include \"core/a.h\"\n";
  const Source header{"core/a.h", direct}, between{"core/b.h", "#include <span>\n" + by_header};
  const auto count = [&](const char* path, const std::string& text) {
    return GpuHeaders({header, between, {path, text}}).size();
  };
  EXPECT_EQ(count("core/x.cc", direct), 1u);
  EXPECT_EQ(count("tests/gpu/x_test.cc", by_header), 1u);
  EXPECT_EQ(count("tests/gpu/x_test.cc", "#include \"core/b.h\"\n"), 1u);
  EXPECT_EQ(count("tests/gpu/x_cuda_test.cc", by_header), 0u);
  EXPECT_EQ(count("core/x_cuda.cc", direct), 0u);
  EXPECT_EQ(count("core/x.cu", direct), 0u);
  EXPECT_EQ(count("parallel/comm/nccl_x.cc", "#include <nccl.h>\n"), 0u);
  EXPECT_EQ(count("parallel/comm/x.cc", "#include <nccl.h>\n"), 1u);
  EXPECT_EQ(count("core/x.cc", "#include \"core/c.h\"\n#include <vector>\n"), 0u);
}

TEST(LintRules, BannedCallsAreFound) {
  for (const Ban& ban : kBans) {
    EXPECT_EQ(Count(BannedCalls, "core/a.cc", "int x;\n  std::vector<int> y; " + std::string(ban.token) + " z\n"), 1u)
        << ban.token;
    EXPECT_EQ(Count(BannedCalls, "tests/core/a.cc", std::string(ban.token)), 0u) << ban.token;
  }
  EXPECT_EQ(Count(BannedCalls, "launch/a.cc", "std::cout << 1;\n"), 0u);
  EXPECT_EQ(Count(BannedCalls, "core/a.cc", "static_assert(true); app.exit(e); snprintf(b); // throw\n"), 0u);
}

TEST(LintRules, MutableGlobalsAreFound) {
  for (const char* line :
       {"int counter = 0;", "static int counter = 0;", "  static std::mutex mutex;", "std::mutex mutex;",
        "thread_local Pool* pool = nullptr;", "std::map<int, int> table = {", "  static int count_;"}) {
    EXPECT_EQ(Count(MutableGlobals, "core/a.cc", line), 1u) << line;
  }
  for (const char* line : {"static const Table kTable = {", "constexpr int kSize = 4;", "  int local = 0;", "int F() {",
                           "static int Helper(int x) {", "  static Env& Posix();", "inline constexpr int kMax = 1;",
                           "struct Box {", "using Rule = int;", "namespace {", "Foo::~Foo() = default;", "}  // x;"}) {
    EXPECT_EQ(Count(MutableGlobals, "core/a.cc", line), 0u) << line;
  }
}

TEST(LintRules, LengthIsCounted) {
  std::string text(600, '\n');
  EXPECT_EQ(Count(Length, "core/a.cc", text), 0u);
  EXPECT_EQ(Count(Length, "core/a.cc", text + "\n"), 1u);
}

TEST(LintRules, HeadersSayTheirPurpose) {
  EXPECT_EQ(Count(HeaderPurpose, "core/a.h", "#pragma once\n// Shapes.\n"), 0u);
  EXPECT_EQ(Count(HeaderPurpose, "core/a.h", "#pragma once\n\n#include <map>\n"), 1u);
  EXPECT_EQ(Count(HeaderPurpose, "core/a.h", "// Shapes.\n#ifndef A_H_\n"), 1u);
  EXPECT_EQ(Count(HeaderPurpose, "core/a.cc", "int x;\n"), 0u);
}

TEST(LintRules, WordingFindsMarksAndHosts) {
  EXPECT_EQ(Count(Wording, "dev", std::string("# TO") + "DO: later\n"), 1u);
  EXPECT_EQ(Count(Wording, "core/a.cc", std::string("// FIX") + "ME\n// XX" + "X\n"), 2u);
  EXPECT_EQ(Count(Wording, "dev", std::string("curl https:/") + "/packages.example/x\n"), 1u);
  EXPECT_EQ(Count(Wording, "docs/a.md", std::string("from packages.example") + ".org, say\n"), 1u);
  EXPECT_EQ(Count(Wording, "docs/a.md", "see https://arxiv.org/abs/2104.04473 and a.order\n"), 0u);
}

TEST(LintRules, UnregisteredTestsAreFound) {
  const auto count = [](const char* path, const char* text) {
    return Registration({path, text}, "strata_tests(core LABEL unit)\nstrata_tests(golden/plans LABEL golden)\n")
        .size();
  };
  EXPECT_EQ(count("tests/core/graph/verify_test.cc", ""), 0u);
  EXPECT_EQ(count("tests/golden/plans/tiny_test.cc", ""), 0u);
  EXPECT_EQ(count("tests/golden/loss_test.cc", ""), 1u);
  EXPECT_EQ(count("tests/cor/a_test.cc", ""), 1u);
  EXPECT_EQ(count("tests/core/verify.cc", "\nTEST(A, B) {}\n"), 1u);
  EXPECT_EQ(count("tests/core/helper.cc", "int x;\n"), 0u);
}

TEST(LintRules, ReadmesAreChecked) {
  EXPECT_EQ(Readme("core", "", {}).size(), 1u);
  EXPECT_EQ(Readme("core", "- `graph/` values\n", {"graph", "plan"}).size(), 1u);
  EXPECT_EQ(Readme("core", std::string(61, '\n'), {}).size(), 1u);
  EXPECT_EQ(Readme("core", "- `graph/` values, `plan/` steps\n", {"graph", "plan"}).size(), 0u);
}

}  // namespace
}  // namespace strata::lint
