#include "agent/disk/nvme/nvme_status.h"

#include <algorithm>
#include <iterator>

#include "fmt/format.h"

namespace metal::disk {
namespace {

struct StatusRow {
  uint8_t type, code;
  StatusKind kind;
  const char* name;
};
constexpr StatusRow kStatuses[] = {
    {0, 0x00, StatusKind::kSuccess, "success"},
    {0, 0x01, StatusKind::kRefused, "invalid command opcode"},
    {0, 0x02, StatusKind::kRefused, "invalid field in command"},
    {0, 0x03, StatusKind::kOther, "command id conflict"},
    {0, 0x04, StatusKind::kInternal, "data transfer error"},
    {0, 0x05, StatusKind::kAborted, "aborted because power is about to be lost"},
    {0, 0x06, StatusKind::kInternal, "internal error"},
    {0, 0x07, StatusKind::kAborted, "abort requested"},
    {0, 0x08, StatusKind::kAborted, "aborted because its queue was deleted"},
    {0, 0x0b, StatusKind::kRefused, "invalid namespace or format"},
    {0, 0x0c, StatusKind::kRefused, "command sequence error"},
    {0, 0x20, StatusKind::kReadOnly, "namespace is write protected"},
    {0, 0x80, StatusKind::kRefused, "LBA out of range"},
    {0, 0x81, StatusKind::kOther, "capacity exceeded"},
    {0, 0x82, StatusKind::kOther, "namespace not ready"},
    {1, 0x09, StatusKind::kRefused, "invalid log page"},
    {1, 0x0d, StatusKind::kRefused, "feature identifier not saveable"},
    {1, 0x0e, StatusKind::kRefused, "feature not changeable"},
    {1, 0x82, StatusKind::kReadOnly, "attempted write to read only range"},
    {2, 0x80, StatusKind::kUnwritten, "write fault"},
    {2, 0x81, StatusKind::kUnreadable, "unrecovered read error"},
    {2, 0x82, StatusKind::kCorrupt, "end-to-end guard check error"},
    {2, 0x83, StatusKind::kCorrupt, "end-to-end application tag check error"},
    {2, 0x84, StatusKind::kCorrupt, "end-to-end reference tag check error"},
    {2, 0x85, StatusKind::kOther, "compare failure"},
    {2, 0x86, StatusKind::kOther, "access denied"},
    {2, 0x87, StatusKind::kOther, "deallocated or unwritten logical block"},
    {2, 0x88, StatusKind::kCorrupt, "end-to-end storage tag check error"},
    {3, 0x00, StatusKind::kInternal, "internal path error"},
    {3, 0x70, StatusKind::kAborted, "host pathing error"},
    {3, 0x71, StatusKind::kAborted, "aborted by the host"},
};

const StatusRow* FindRow(NvmeStatus status) {
  const auto* const row = std::find_if(
      std::begin(kStatuses), std::end(kStatuses),
      [&](const StatusRow& each) { return each.type == status.type && each.code == status.code; });
  return row == std::end(kStatuses) ? nullptr : row;
}

}  // namespace

NvmeStatus StatusOfField(uint16_t field) {
  return {.type = static_cast<uint8_t>((field >> 9) & 7),
          .code = static_cast<uint8_t>((field >> 1) & 0xff)};
}

StatusKind KindOfStatus(NvmeStatus status) {
  const StatusRow* const row = FindRow(status);
  return row == nullptr ? StatusKind::kOther : row->kind;
}

std::string StatusText(NvmeStatus status) {
  const StatusRow* const row = FindRow(status);
  const std::string numbers = fmt::format("status {:x}/{:02x}h", status.type, status.code);
  return row == nullptr ? numbers : fmt::format("{} ({})", row->name, numbers);
}

}  // namespace metal::disk
