// Answers tokenizer_parity_test.py. A request on stdin, the answer on stdout, both JSON:
//   {"what": "tokenize", "texts", "context_length"}  -> the rows
//   {"what": "normalize", "texts"}                   -> the texts
//   {"what": "code points"}                          -> [code point, role, lower case, without accents, lower case of
//   "aΣ" + it, of "aΣ" + it + "b"] for each where one of them is not what a plain letter without case would give
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "clip/text/installed_package.h"
#include "clip/text/tokenizer.h"
#include "clip/text/unicode.h"

namespace {

using nlohmann::json;
using namespace strobe::clip;
using Texts = std::vector<std::string>;

json tokenize(const json& request) {
  const BertTokenizer tokenizer(default_vocabulary());
  const int64_t length = request["context_length"];
  const at::Tensor tokens = tokenizer.tokenize(request["texts"].get<Texts>(), length);
  json rows = json::array();
  const int64_t* row = tokens.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < tokens.size(0); ++i, row += length) rows.push_back(std::vector<int64_t>(row, row + length));
  return rows;
}

json normalize(const json& request) {
  Texts texts = request["texts"];
  for (std::string& text : texts) text = normalize_caption(text);
  return texts;
}

json code_points() {
  json rows = json::array();
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::u32string self(1, c);
    const std::u32string lower = to_lower(self), plain = strip_accents(self);
    const std::u32string end = to_lower(U"aΣ" + self), middle = to_lower(U"aΣ" + self + U"b");
    if (role_of(c) == Role::kPart && lower == self && plain == self && end == U"aς" + self &&
        middle == U"aς" + self + U"b") {
      continue;
    }
    rows.push_back({static_cast<uint32_t>(c), static_cast<int>(role_of(c)), encode_utf8(lower), encode_utf8(plain),
                    encode_utf8(end), encode_utf8(middle)});
  }
  return rows;
}

}  // namespace

int main() {
  const json request = json::parse(std::cin);
  const std::string what = request["what"];
  std::cout << (what == "tokenize" ? tokenize(request) : what == "normalize" ? normalize(request) : code_points());
}
