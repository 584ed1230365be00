// What a fuzz target is: libFuzzer's entry point. replay.cpp calls it for files, in any compiler.
#pragma once

#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size);
