#include "core/kernels/choice_cache.h"

#include <algorithm>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace strata {
namespace {

std::string Folder() {
  const char* own = std::getenv("STRATA_CACHE");
  if (own != nullptr && *own != 0) return own;
  const char *xdg = std::getenv("XDG_CACHE_HOME"), *home = std::getenv("HOME");
  if (xdg != nullptr && *xdg != 0) return std::string(xdg) + "/strata";
  return home != nullptr && *home != 0 ? std::string(home) + "/.cache/strata" : "";
}

}  // namespace

ChoiceCache::ChoiceCache(Env& env, const std::string& kind, const std::string& device, const std::string& versions)
    : env_(&env) {
  const std::string folder = Folder();
  if (folder.empty()) return;
  std::string name = absl::StrFormat("%s-%s-%s.txt", kind, device, versions);
  std::replace(name.begin(), name.end(), ' ', '-');
  path_ = absl::StrCat(folder, "/", name);
  const absl::StatusOr<std::string> text = ReadText(env, path_);
  if (!text.ok()) return;
  for (const absl::string_view line : absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    const std::pair<std::string, std::string> entry = absl::StrSplit(line, absl::MaxSplits(' ', 1));
    choices_.insert(entry);
  }
}

const std::string* ChoiceCache::Find(const std::string& key) const {
  const auto it = choices_.find(key);
  return it == choices_.end() ? nullptr : &it->second;
}

void ChoiceCache::Put(const std::string& key, std::string value) {
  choices_[key] = std::move(value);
  if (path_.empty()) return;
  std::string text;
  for (const auto& [k, v] : choices_) absl::StrAppend(&text, k, " ", v, "\n");
  const absl::Status made = env_->MakeDirs(path_.substr(0, path_.rfind('/')));
  if (made.ok()) WriteTextAtomically(*env_, path_, text).IgnoreError();
}

}  // namespace strata
