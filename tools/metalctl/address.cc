#include "tools/metalctl/address.h"

#include <charconv>

namespace metal::ctl {

bool ParseAddress(const std::string& text, std::string* host, int* port) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0) return false;
  *host = text.substr(0, colon);
  if (host->size() > 2 && host->front() == '[' && host->back() == ']') {
    *host = host->substr(1, host->size() - 2);
  } else if (host->front() == '[' ||
             (host->front() != '/' && host->find(':') != std::string::npos)) {
    return false;
  }
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data() + colon + 1, end, *port);
  return error == std::errc() && rest == end && *port > 0 && *port <= 65535;
}

}  // namespace metal::ctl
