#pragma once
// The rules that the tree keeps, as pure functions from text to findings ("core/x.cc:12: ..."). They read text, not C++:
// what the compiler, clang-tidy or clang-format finds is not repeated here.

#include <algorithm>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/lint/text.h"

namespace strata::lint {

struct Source {
  std::string path, text;  // path from the root: "core/graph/graph.h"
};
using Findings = std::vector<std::string>;

inline std::string At(const Source& source, size_t line_index, std::string_view what) {
  return source.path + ":" + std::to_string(line_index + 1) + ": " + std::string(what);
}

inline std::string_view Extension(std::string_view path) {
  const size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? "" : path.substr(dot);
}
inline bool IsHeader(std::string_view path) { return Extension(path) == ".h" || Extension(path) == ".cuh"; }
inline bool IsSource(std::string_view path) {
  return IsHeader(path) || Extension(path) == ".cc" || Extension(path) == ".cu";
}
inline std::string_view TopFolder(std::string_view path) { return path.substr(0, path.find('/')); }

// The libraries in link order, each with the folders that it may include.
inline const std::map<std::string_view, std::string_view> kMayInclude = {
    {"core", "core"},
    {"parallel", "core parallel"},
    {"optim", "core optim"},
    {"checkpoint", "core parallel optim checkpoint"},
    {"offload", "core parallel optim offload"},
    {"models", "core parallel optim checkpoint offload models"},
    {"launch", "core parallel optim checkpoint offload models launch"},
};
inline bool InLibrary(const Source& source) { return kMayInclude.contains(TopFolder(source.path)); }

// `x` of a line that includes "x"; else nothing.
inline std::string_view IncludedByQuotes(std::string_view line) {
  constexpr std::string_view kInclude = "#include \"";
  if (!line.starts_with(kInclude)) return {};
  line.remove_prefix(kInclude.size());
  return line.substr(0, line.rfind('"'));
}

// Includes follow the link order, stay out of other folders' internal/, and are relative to the root. Tests and
// benchmarks may include any folder, and tests/x the internal/ folders of x.
inline Findings Layering(const Source& source) {
  const std::string_view top = TopFolder(source.path);
  Findings findings;
  const std::vector<std::string_view> lines = Split(source.text, '\n');
  for (size_t i = 0; i < lines.size(); ++i) {
    const std::string_view path = IncludedByQuotes(lines[i]);
    if (path.empty()) continue;
    const std::string_view folder = TopFolder(path);
    if (path.starts_with(".")) findings.push_back(At(source, i, "includes are relative to the root"));
    const bool ours = kMayInclude.contains(folder) || folder == "tests" || folder == "bench";
    if (InLibrary(source) && ours && FindToken(kMayInclude.at(top), folder) == std::string_view::npos) {
      findings.push_back(At(source, i, std::string(top) + " may not include " + std::string(folder)));
    }
    const bool mirror = source.path.starts_with("tests/" + std::string(folder) + "/");
    if (ours && Contains(path, "/internal/") && folder != top && !mirror) {
      findings.push_back(At(source, i, "internal/ of another folder"));
    }
  }
  return findings;
}

// Sources of a build without CUDA, by the names that cmake/strata.cmake, parallel/CMakeLists.txt and tests/CMakeLists.txt go by.
inline bool CompiledWithoutCuda(std::string_view path) {
  constexpr std::string_view kNeedCuda[] = {"_cuda.cc", "_cuda_test.cc", "_cudnn_test.cc"};
  constexpr std::string_view kNeedNccl[] = {"parallel/comm/nccl_", "parallel/comm/internal/nccl_"};
  return Extension(path) == ".cc" &&
         std::none_of(std::begin(kNeedCuda), std::end(kNeedCuda), [&](auto end) { return path.ends_with(end); }) &&
         std::none_of(std::begin(kNeedNccl), std::end(kNeedNccl), [&](auto start) { return path.starts_with(start); });
}

// Such a source includes no header of CUDA, nor does a header of `tree` that it includes.
inline Findings GpuHeaders(const std::vector<Source>& tree) {
  constexpr std::string_view kOfCuda[] = {"#include <cuda", "#include <cublas", "#include <cudnn", "#include <nccl"};
  std::map<std::string_view, const Source*> by_path;
  for (const Source& source : tree) by_path[source.path] = &source;
  Findings findings;
  for (const Source& source : tree) {
    if (!CompiledWithoutCuda(source.path)) continue;
    std::vector<const Source*> read = {&source};
    for (size_t next = 0; next < read.size(); ++next) {
      const std::vector<std::string_view> lines = Split(read[next]->text, '\n');
      for (size_t i = 0; i < lines.size(); ++i) {
        const auto begins = [&](std::string_view start) { return lines[i].starts_with(start); };
        if (std::any_of(std::begin(kOfCuda), std::end(kOfCuda), begins)) {
          findings.push_back(At(*read[next], i, "a build without CUDA compiles this, with " + source.path));
        }
        const auto found = by_path.find(IncludedByQuotes(lines[i]));
        if (found == by_path.end() || std::find(read.begin(), read.end(), found->second) != read.end()) continue;
        read.push_back(found->second);
      }
    }
  }
  return findings;
}

struct Ban {
  std::string_view token, instead;
};
inline constexpr Ban kBans[] = {
    {"assert(", "STRATA_CHECK"},
    {"abort(", "absl::Status, or STRATA_CHECK for our own bugs"},
    {"exit(", "absl::Status"},
    {"throw", "absl::Status"},
    {"rand(", "core/base/philox.h"},
    {"std::random_device", "core/base/philox.h"},
    {"std::cout", "spdlog, or return the text"},
    {"std::cerr", "spdlog, or return the text"},
    {"printf(", "spdlog, or return the text"},
    {"fprintf(", "spdlog, or return the text"},
    {"using namespace", "qualified names"},
    {"fopen(", "core/base/env.h"},
    {"::open(", "core/base/env.h"},
    {"std::ifstream", "core/base/env.h"},
    {"std::ofstream", "core/base/env.h"},
    {"std::fstream", "core/base/env.h"},
    {"absl::Mutex", "std::mutex: ThreadSanitizer reports races inside Debian's absl::Mutex"},
    {"<source_location>", "SourceLoc of core/graph/graph.h: clang 14 lacks it"},
};

struct Exception {
  std::string_view path_prefix, token, reason;
};
inline constexpr std::string_view kStatic = "mutable static";
inline constexpr Exception kExceptions[] = {
    {"core/base/check.cc", "abort(", "how a failed STRATA_CHECK ends the process"},
    {"core/base/check.cc", "fprintf(", "no logger can be relied on there"},
    {"core/base/env_posix.cc", "::open(", "the one place that opens files"},
    {"launch/rendezvous/", "::open(", "the outputs of a child are file descriptors"},
    {"core/base/env_posix.cc", kStatic, "the one stateless Env::Posix()"},
    {"core/kernels/gemm.cc", kStatic, "std::once_flag: OpenBLAS is set up once a process"},
    {"checkpoint/internal/hdf5_layout.cc", kStatic, "a lock for the HDF5 library, whose state is the process's"},
    {"launch/job/interrupt.cc", kStatic, "a signal handler can reach nothing else"},
    {"launch/cli/cli.cc", "throw", "how a CLI11 callback reports wrong usage; caught in the same file"},
    {"launch/", "std::cout", "the command line prints"},
    {"launch/", "std::cerr", "the command line prints"},
    {"launch/", "printf(", "the command line prints"},
    {"launch/", "fprintf(", "the command line prints"},
};
inline bool Excepted(const Source& source, std::string_view token) {
  return std::any_of(std::begin(kExceptions), std::end(kExceptions),
                     [&](const Exception& e) { return source.path.starts_with(e.path_prefix) && e.token == token; });
}

// Calls that the libraries do without. A member function of a banned name (`app.exit(`) is another function.
inline Findings BannedCalls(const Source& source) {
  Findings findings;
  if (!InLibrary(source)) return findings;
  const std::string code = CodeOnly(source.text);
  const std::vector<std::string_view> lines = Split(code, '\n');
  for (size_t i = 0; i < lines.size(); ++i) {
    for (const Ban& ban : kBans) {
      const size_t at = FindToken(lines[i], ban.token);
      if (at == std::string_view::npos || Excepted(source, ban.token)) continue;
      const std::string_view before = lines[i].substr(0, at);
      if (before.ends_with('.') || before.ends_with("->")) continue;
      findings.push_back(At(source, i, std::string(ban.token) + " is banned; use " + std::string(ban.instead)));
    }
  }
  return findings;
}

// Whether one line of code declares a mutable variable of static storage duration.
inline bool DeclaresMutableStatic(std::string_view line) {
  constexpr std::string_view kNotVariables[] = {
      "const",    "constexpr", "using",  "namespace", "class",   "struct", "enum",     "union",    "extern",
      "template", "typedef",   "friend", "asm",       "concept", "return", "requires", "operator", "static_assert"};
  for (std::string_view word : kNotVariables) {
    if (FindToken(line, word) != std::string_view::npos) return false;
  }
  const bool indented = line.starts_with(' ');
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  const bool stored = line.starts_with("static ") || line.starts_with("thread_local ");
  if (!stored && (indented || line.empty() || !IsWordChar(line[0]))) return false;  // a local, or no declaration
  const size_t end = line.find_first_of("=({;");
  return end != std::string_view::npos && line[end] != '(' && Contains(line.substr(0, end), " ");
}

// Globals, static members and function-local statics that can change, as far as single lines show them.
inline Findings MutableGlobals(const Source& source) {
  Findings findings;
  if (!InLibrary(source) || Excepted(source, kStatic)) return findings;
  const std::string code = CodeOnly(source.text);
  const std::vector<std::string_view> lines = Split(code, '\n');
  for (size_t i = 0; i < lines.size(); ++i) {
    if (DeclaresMutableStatic(lines[i]))
      findings.push_back(At(source, i, "mutable global state: pass it as an argument"));
  }
  return findings;
}

inline Findings Length(const Source& source) {
  constexpr size_t kMaxLines = 600;
  const size_t lines = Split(source.text, '\n').size();
  if (lines <= kMaxLines) return {};
  return {At(source, kMaxLines, std::to_string(lines) + " lines; a file has at most " + std::to_string(kMaxLines))};
}

inline Findings HeaderPurpose(const Source& source) {
  if (!IsHeader(source.path) || source.text.starts_with("#pragma once\n//")) return {};
  return {At(source, 0, "a header starts with #pragma once and a comment that says what it is for")};
}

// Any text file: no marks of unfinished work, and no host names but those that papers and formats are cited by.
inline Findings Wording(const Source& source) {
  constexpr std::string_view kMarks[] = {
      "TO"
      "DO",
      "FIX"
      "ME",
      "XX"
      "X"};  // split: this file is read too
  constexpr std::string_view kHosts[] = {"arxiv.org", "doi.org", "www.w3.org"};
  constexpr std::string_view kHostEnds[] = {".org", ".com"};
  constexpr std::string_view kSchemes[] = {"http://", "https://"};
  Findings findings;
  const std::vector<std::string_view> lines = Split(source.text, '\n');
  for (size_t i = 0; i < lines.size(); ++i) {
    for (std::string_view mark : kMarks) {
      if (FindToken(lines[i], mark) != std::string_view::npos) findings.push_back(At(source, i, mark));
    }
    const auto is_end = [](char c) { return !IsWordChar(c) && c != '.' && c != '-'; };
    for (auto from = lines[i].begin(); from != lines[i].end();) {
      const auto to = std::find_if(from, lines[i].end(), is_end);
      const std::string_view host(from, to), before(lines[i].begin(), from);
      const auto ends_host = [&](std::string_view end) { return host.size() > end.size() && host.ends_with(end); };
      const auto ends_before = [&](std::string_view scheme) { return !host.empty() && before.ends_with(scheme); };
      const bool is_host = std::any_of(std::begin(kHostEnds), std::end(kHostEnds), ends_host) ||
                           std::any_of(std::begin(kSchemes), std::end(kSchemes), ends_before);
      if (is_host && std::find(std::begin(kHosts), std::end(kHosts), host) == std::end(kHosts)) {
        findings.push_back(At(source, i, "host name " + std::string(host)));
      }
      from = to == lines[i].end() ? to : to + 1;
    }
  }
  return findings;
}

// Every file that defines tests is named *_test.cc and lies in a folder that tests/CMakeLists.txt gives to strata_tests().
inline Findings Registration(const Source& source, std::string_view tests_cmake) {
  const bool defines_tests = Contains(source.text, "\nTEST");
  const bool named = source.path.ends_with("_test.cc");
  if (Extension(source.path) != ".cc" || (!defines_tests && !named)) return {};
  if (!named) return {At(source, 0, "defines tests, so it must be named *_test.cc")};
  for (size_t end = source.path.rfind('/'); end != std::string::npos && end > 5;
       end = source.path.rfind('/', end - 1)) {
    const std::string folder = source.path.substr(6, end - 6);  // after "tests/"
    if (Contains(tests_cmake, "strata_tests(" + folder + " ")) return {};
  }
  return {At(source, 0, "no strata_tests() of tests/CMakeLists.txt covers this folder")};
}

// A folder has a README of at most a page that names each of `subfolders`; `readme` is empty where there is none.
inline Findings Readme(const std::string& folder, std::string_view readme, const std::vector<std::string>& subfolders) {
  constexpr size_t kMaxLines = 60;
  const std::string path = folder + "/README.md";
  if (readme.empty()) return {path + " is missing"};
  Findings findings;
  if (Split(readme, '\n').size() > kMaxLines)
    findings.push_back(path + " is over " + std::to_string(kMaxLines) + " lines");
  for (const std::string& sub : subfolders) {
    if (FindToken(readme, sub + "/") == std::string_view::npos)
      findings.push_back(path + " does not name " + sub + "/");
  }
  return findings;
}

}  // namespace strata::lint
