#pragma once
// What timing chose, kept for the next start: text files of lines "key value" in $STRATA_CACHE, else $XDG_CACHE_HOME/strata or
// ~/.cache/strata. For one thread; processes may share a file, the last one's stays.

#include <map>
#include <string>

#include "core/base/env.h"

namespace strata {

class ChoiceCache {
 public:
  ChoiceCache() = default;  // of this process only
  // The file "KIND-DEVICE-VERSIONS.txt"; a file that cannot be read is empty.
  ChoiceCache(Env& env, const std::string& kind, const std::string& device, const std::string& versions);

  // Null where the key is not known. Keys have no spaces.
  const std::string* Find(const std::string& key) const;
  // Writes the file too: failing to costs a search at the next start.
  void Put(const std::string& key, std::string value);

 private:
  Env* env_ = nullptr;
  std::string path_;  // empty: no file
  std::map<std::string, std::string> choices_;
};

}  // namespace strata
