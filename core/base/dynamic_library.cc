#include "core/base/dynamic_library.h"

#include <dlfcn.h>

#include "absl/strings/str_format.h"

namespace strata {

absl::StatusOr<DynamicLibrary> DynamicLibrary::Open(std::span<const std::string> names) {
  DynamicLibrary library;
  for (const std::string& name : names) {
    library.handle_ = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    library.name_ = name;
    if (library.handle_ != nullptr) return library;
  }
  const char* why = dlerror();
  return absl::FailedPreconditionError(
      absl::StrFormat("cannot open the library %s: %s", library.name_, why != nullptr ? why : "not found"));
}

absl::Status DynamicLibrary::Find(const char* symbol, void*& address) const {
  address = dlsym(handle_, symbol);
  if (address != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrFormat("the library %s has no %s", name_, symbol));
}

}  // namespace strata
