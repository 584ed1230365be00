#include <gtest/gtest.h>

#include <cstdlib>

#include "src/attention/cpu/isa.h"
#include "tests/attention/device.h"

namespace strobe::testing {

void for_each_setting(const AttentionCase&, const std::function<void(const KernelSetting&)>& body) {
  for (const cpu::Isa isa : cpu::supported_isas()) {
    const std::string isa_name(cpu::name(isa));
    ASSERT_EQ(setenv("STROBE_CPU_ISA", isa_name.c_str(), 1), 0);
    body({Algorithm::kFlashAttn, false, isa_name + " flash_attn"});
    body({Algorithm::kImpFlashAttn, false, isa_name + " imp_flash_attn"});
  }
  unsetenv("STROBE_CPU_ISA");
}

struct DeviceMemory::Blocks {};

DeviceMemory::DeviceMemory() = default;
DeviceMemory::~DeviceMemory() = default;
void DeviceMemory::add(const void*, std::size_t) {}
void DeviceMemory::bring_back() {}
const void* DeviceMemory::translate(const void* host) const { return host; }

}  // namespace strobe::testing
