#pragma once
// Texts that tell tokenizers apart: a novel, cases by hand, and random mixtures of scripts, marks, digits, white space,
// contractions and special tokens, the same on every run. All are UTF-8, of characters that Unicode has had since version 12.

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/base/env.h"
#include "core/base/philox.h"

namespace strata {

inline void AppendUtf8(char32_t c, std::string* text) {
  const auto put = [&](char32_t byte) { text->push_back(static_cast<char>(byte)); };
  if (c < 0x80) return put(c);
  if (c < 0x800) {
    put(0xC0 | c >> 6);
  } else {
    if (c < 0x10000) {
      put(0xE0 | c >> 12);
    } else {
      put(0xF0 | c >> 18);
      put(0x80 | (c >> 12 & 0x3F));
    }
    put(0x80 | (c >> 6 & 0x3F));
  }
  put(0x80 | (c & 0x3F));
}

struct CharacterRange {
  char32_t first, last;
};
inline constexpr CharacterRange kCharacters[] = {
    {'a', 'z'},         {'A', 'Z'},         {'0', '9'},         {'!', '/'},         {':', '@'},
    {0x0, 0x1F},        {0xA1, 0xFF},       {0x100, 0x17E},     {0x300, 0x36F},     {0x391, 0x3A1},
    {0x410, 0x44F},     {0x5D0, 0x5EA},     {0x5B0, 0x5BD},     {0x621, 0x64A},     {0x64B, 0x655},
    {0x660, 0x669},     {0x905, 0x939},     {0x93C, 0x94D},     {0x958, 0x95F},     {0xE01, 0xE3A},
    {0xE40, 0xE4E},     {0x1100, 0x1112},   {0x1161, 0x1175},   {0x11A8, 0x11C2},   {0x1E00, 0x1EFF},
    {0x2000, 0x200A},   {0x2010, 0x2027},   {0x2070, 0x2071},   {0x2080, 0x208E},   {0x2150, 0x2188},
    {0x2190, 0x21FF},   {0x2460, 0x24FF},   {0x3041, 0x3096},   {0x3099, 0x309A},   {0x30A1, 0x30FA},
    {0x3400, 0x3410},   {0x4E00, 0x9FA5},   {0xAC00, 0xD7A3},   {0xF900, 0xFA2D},   {0xFB1D, 0xFB1D},
    {0xFE00, 0xFE0F},   {0x1D400, 0x1D433}, {0x1D7CE, 0x1D7FF}, {0x1F1E6, 0x1F1FF}, {0x1F3FB, 0x1F3FF},
    {0x1F468, 0x1F469}, {0x1F600, 0x1F64F}, {0x200D, 0x200D},   {0x20000, 0x20100}, {0xE000, 0xE010},
};
inline constexpr std::string_view kSnippets[] = {
    " ",
    "  ",
    "    ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    " \n ",
    "\u00A0",
    "\u3000",
    "'s",
    "'S",
    "'ll",
    "'LL",
    "'rE",
    "'d ",
    "don't",
    "\u2019s",
    "the ",
    " of",
    "12",
    "1234567",
    " 3.14159",
    "e\u0301",
    "n\u0303o",
    "\u1112\u1161\u11AB",
    "!!!",
    " ...",
    "</",
    "<|",
    "|>",
    "<|im_",
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<think>",
    "</think>",
    "<|begin_of_text|>",
    "<|eot_id|>",
    "\U0001F469\u200D\U0001F467",
    "\U0001F1EB\U0001F1F7",
    "\u2764\uFE0F",
    "\u200B",
    "path/?a=b&c;",
    "int main() {\n\treturn 0;\n}\n",
    "#include <x.h>",
    "\u0645\u0631\u062D\u0628\u0627 ",
    "\u0E2A\u0E27\u0E31\u0E2A\u0E14\u0E35",
    "\u4F60\u597D\uFF0C\u4E16\u754C\u3002",
};

inline std::string RandomText(uint64_t n) {
  std::string text;
  const uint32_t parts = 1 + Philox(41, n, 0)[0] % 40;
  for (uint32_t i = 1; i <= parts; ++i) {
    const PhiloxBlock r = Philox(41, n, i);
    if (r[0] % 3 == 0) {
      text += kSnippets[r[1] % std::size(kSnippets)];
      continue;
    }
    const CharacterRange& range = kCharacters[r[1] % std::size(kCharacters)];
    const uint32_t count = 1 + r[2] % 6;
    for (uint32_t k = 0; k < count; ++k) {
      const auto span = static_cast<uint32_t>(range.last - range.first + 1);
      AppendUtf8(range.first + Philox(42, n, i * 8 + k)[0] % span, &text);
    }
  }
  return text;
}

inline std::vector<std::string> TokenizerTexts() {
  std::vector<std::string> texts = {
      *ReadText(Env::Posix(), STRATA_SOURCE_DIR "/examples/data/pride-and-prejudice.txt"),
      "",
      " ",
      "Hello world",
      "I'm you're we'll he'd they've it's DON'T I'M WE'LL",
      "1 12 123 1234 12345 123456 1234567890 3.14 1,000,000",
      "a  b   c    d\n\n\n e \t\t f\r\n\r\ng ",
      "cafe\u0301 caf\u00E9 A\u030A \u212B \u2126 q\u0307\u0323",
      std::string(1000, 'a') + std::string(1000, ' ') + "b" + std::string(999, '\n') + std::string(500, '9'),
      std::string("nul\0byte", 8),
      "<|endoftext|>twice<|endoftext|> and <|im_start|>user\nhi<|im_end|>\n<think>\n</think>",
  };
  for (size_t i = 0; i < 10; ++i) texts.push_back(texts[0].substr(60'000 * i, 9000));
  for (uint64_t n = 0; n < 400; ++n) texts.push_back(RandomText(n));
  return texts;
}

}  // namespace strata
