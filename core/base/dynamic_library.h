#pragma once
// A shared library opened at run time: what a program can do without, or what takes long to load.

#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace strata {

class DynamicLibrary {
 public:
  // The first of `names` that the dynamic linker finds (LD_LIBRARY_PATH, ld.so.cache, or an absolute path); it stays open for
  // the life of the process. Errors: FailedPrecondition with the linker's reason for the last name.
  static absl::StatusOr<DynamicLibrary> Open(std::span<const std::string> names);

  // function = its address. Errors: FailedPrecondition naming the symbol and the library.
  template <typename Function>
  absl::Status Load(const char* symbol, Function*& function) const {
    void* address = nullptr;
    absl::Status s = Find(symbol, address);
    function = reinterpret_cast<Function*>(address);
    return s;
  }

  const std::string& name() const { return name_; }

 private:
  absl::Status Find(const char* symbol, void*& address) const;

  void* handle_ = nullptr;
  std::string name_;
};

}  // namespace strata
