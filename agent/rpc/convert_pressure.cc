// How much the host's processes wait, for clients.
#include "agent/rpc/convert_status.h"

namespace metal::rpc {

bool IsKnown(const observe::PressureSection& pressure) {
  return pressure.io || pressure.memory || pressure.cpu;
}

void ToProto(const observe::PressureSection& pressure, base::MonotonicTime now,
             v1::HostPressure* out) {
  const auto put = [](const std::optional<observe::Pressure>& of, auto&& mutable_field) {
    if (!of) return;
    v1::Pressure* const shares = mutable_field();
    shares->set_some_10s(of->some_10s);
    shares->set_some_60s(of->some_60s);
    shares->set_full_10s(of->full_10s);
    shares->set_full_60s(of->full_60s);
  };
  put(pressure.io, [&] { return out->mutable_io(); });
  put(pressure.memory, [&] { return out->mutable_memory(); });
  put(pressure.cpu, [&] { return out->mutable_cpu(); });
  if (pressure.time.captured_at == absl::InfinitePast()) return;
  *out->mutable_observe_age() = ToProto(now - pressure.time.monotonic);
}

}  // namespace metal::rpc
