// What this CPU and operating system can run. Threading: pure functions; safe during static
// initialisation.
#pragma once

namespace metal::stream {

#if defined(__x86_64__)
inline bool CpuHasAvx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2");
}
inline bool CpuHasAvx512() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512f");
}
#endif

}  // namespace metal::stream
