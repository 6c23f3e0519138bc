// Stands in for NVML: one GPU, at 1500 MHz, which draws 250 J between two looks at its energy.

#include <cstring>

extern "C" {

int nvmlInit_v2() { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char* bus_id, void** device) {
  static int gpu;
  *device = &gpu;
  return std::strcmp(bus_id, "0000:1B:00.0") == 0 ? 0 : 6;
}
int nvmlDeviceGetTotalEnergyConsumption(void*, unsigned long long* millijoules) {
  static unsigned long long drawn = 0;
  *millijoules = drawn += 250'000;
  return 0;
}
int nvmlDeviceGetClockInfo(void*, int clock, unsigned* megahertz) {
  *megahertz = clock == 1 ? 1500 : 2619;
  return 0;
}
int nvmlDeviceGetEnforcedPowerLimit(void*, unsigned*) { return 3; }
const char* nvmlErrorString(int result) { return result == 6 ? "Not Found" : "Not Supported"; }

}  // extern "C"
