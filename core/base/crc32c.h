#pragma once
// CRC32C (Castagnoli, reflected polynomial 0x82F63B78; RFC 3720 B.4). Pure functions, thread-safe.
// Finds every single flipped byte and every burst of up to 32 bits.

#include <cstddef>
#include <cstdint>
#include <span>

namespace strata {

// CRC of `bytes`; with `crc` = CRC of what came before, the CRC of both in a row. SSE4.2 where the CPU has it.
uint32_t Crc32c(std::span<const std::byte> bytes, uint32_t crc = 0);

// The same by tables, on any CPU.
uint32_t Crc32cPortable(std::span<const std::byte> bytes, uint32_t crc = 0);

// CRC of a followed by b, from their CRCs and the length of b. O(log b_bytes).
uint32_t Crc32cCombine(uint32_t crc_a, uint32_t crc_b, int64_t b_bytes);

}  // namespace strata
