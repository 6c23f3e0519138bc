#pragma once
// Counts calls of operator new while enabled: proof that a hot path does not allocate. A program that includes this header
// gets replacements of the global operators: include it in ONE file of a program. Thread-safe.

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

namespace strata::testing {

class AllocCounter {  // counts, of all threads, from its making to its end; one at a time
 public:
  AllocCounter() {
    count_ = 0;
    enabled_ = true;
  }
  ~AllocCounter() { enabled_ = false; }
  AllocCounter(const AllocCounter&) = delete;
  AllocCounter& operator=(const AllocCounter&) = delete;

  int64_t count() const { return count_; }
  static void Note() {
    if (enabled_) ++count_;
  }

 private:
  inline static std::atomic<bool> enabled_{false};
  inline static std::atomic<int64_t> count_{0};
};

inline void* CountedAlloc(std::size_t bytes, std::size_t alignment) {
  AllocCounter::Note();
  if (bytes == 0) bytes = 1;
  void* p = alignment == 0 ? std::malloc(bytes)
                           : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (p == nullptr) throw std::bad_alloc();
  return p;
}

}  // namespace strata::testing

// The array and nothrow forms of the standard library call these. Inlined, one side of a pair would not be recognized.
[[gnu::noinline]] void* operator new(std::size_t bytes) { return strata::testing::CountedAlloc(bytes, 0); }
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t a) {
  return strata::testing::CountedAlloc(bytes, static_cast<std::size_t>(a));
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
