// Arbitrary text as the files that PostgreSQL and its users write: settings survive quoting,
// managed blocks are put in once, postmaster.pid gives a positive pid or an error.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "agent/base/check.h"
#include "agent/pg/hba.h"
#include "agent/pg/postmaster_pid.h"
#include "agent/pg/settings.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace metal::pg;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto settings = ParseSettings(text); settings.ok()) {
    for (const auto& [name, value] : *settings) {
      const auto quoted = QuoteSetting(value);
      if (!quoted.ok()) continue;
      const auto again = ParseSettings(name + " = " + *quoted + "\n");
      METAL_CHECK(again.ok() && again->size() == 1 && again->begin()->second == value);
    }
  }
  if (const auto managed = ParseManagedSettings(text); managed.ok()) {
    static_cast<void>(RenderManagedSettings(*managed));
  }
  const std::string included = WithManagedInclude(text);
  METAL_CHECK(WithManagedInclude(included) == included);
  const std::string block = ManagedHbaBlock({});
  const std::string hba = WithManagedBlockOnTop(text, block);
  METAL_CHECK(WithManagedBlockOnTop(hba, block) == hba);
  if (const auto pid = ParsePostmasterPid(text); pid.ok()) METAL_CHECK(pid->pid > 0);
  return 0;
}
