// How values are written for people: bytes, rates, durations, times, LSNs, enum names. Pure
// functions, but for PrintNext.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "google/protobuf/duration.pb.h"
#include "google/protobuf/timestamp.pb.h"

namespace metal::ctl {

std::string FormatBytes(int64_t bytes);           // "3.4 GiB"
std::string FormatRate(double bytes_per_second);  // "812 MB/s"; decimal, as disks are sold
std::string FormatSeconds(double seconds);        // "3.2 s", "4m10s", "2h03m", "5d02h"
std::string FormatDuration(const google::protobuf::Duration& duration);
std::string FormatLatency(const google::protobuf::Duration& duration);  // "85 µs", "3.1 ms"
std::string FormatTime(const google::protobuf::Timestamp& time);        // "2026-11-22 02:15:00Z"
// From `time` to `now`, "-" when `time` is not set; "12 s", "4m10s", "2h03m", "5d02h".
std::string FormatAge(const google::protobuf::Timestamp& time,
                      const google::protobuf::Timestamp& now);
std::string FormatRatio(int64_t size_bytes,
                        int64_t stored_bytes);  // "4.02x"; "-" for nothing stored
std::string FormatClock(const google::protobuf::Timestamp& time);  // with milliseconds
std::string FormatLsn(uint64_t lsn);                               // "16/B374D848"; "-" for 0
// "POSTGRES_STATE_RUNNING" with prefix "POSTGRES_STATE_" → "running".
std::string EnumWord(std::string_view name, std::string_view prefix);
double ToSeconds(const google::protobuf::Duration& duration);
// The facts of an operation's result for people: "copy_seconds" 30.2 → "copy" "30.2 s",
// "stored_bytes" → "stored" in MiB.
std::vector<std::pair<std::string, std::string>> FormatFacts(
    const std::map<std::string, std::string>& facts);
// Tells people the next useful step: "next: …" on standard output.
void PrintNext(std::string_view step);

}  // namespace metal::ctl
