// Answers evaluation_parity_test.py: reads numbers in fp64, eight bytes each, and writes each as a line.
#include <cstdio>
#include <string>

#include "clip/evaluation/python_json.h"

int main() {
  double value = 0.0;
  while (std::fread(&value, sizeof value, 1, stdin) == 1) {
    std::string line;
    strobe::clip::append_float(line, value);
    std::puts(line.c_str());
  }
}
