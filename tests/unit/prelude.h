// The headers that most unit tests include, for precompilation. A test still includes what it uses.
#pragma once
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "agent/base/file.h"
#include "agent/base/mutex.h"
#include "agent/base/status.h"
#include "agent/base/thread.h"
#include "fmt/format.h"
