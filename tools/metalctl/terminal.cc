#include "tools/metalctl/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>

#include "fmt/format.h"
#include "tools/metalctl/text_table.h"

namespace metal::ctl {

int TerminalWidth(int fd) {
  winsize size{};
  if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col >= 20) return size.ws_col;
  return 80;
}

std::string CutToWidth(std::string_view line, int width) {
  if (width <= 0 || DisplayWidth(line) <= static_cast<size_t>(width)) return std::string(line);
  size_t at = 0;
  for (int columns = 0; at < line.size(); ++at) {
    const bool begins = (static_cast<unsigned char>(line[at]) & 0xC0) != 0x80;
    if (begins && ++columns == width) break;
  }
  return std::string(line.substr(0, at)) + "…";
}

std::string ScreenText(std::string_view text) {
  std::string screen = "\033[H";
  for (const char c : text) {
    if (c == '\n') screen += "\033[K";
    screen += c;
  }
  return screen + "\033[J";
}

bool UseColors() {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  if (no_color != nullptr && *no_color != '\0') return false;
  if (term != nullptr && std::string_view(term) == "dumb") return false;
  return isatty(STDOUT_FILENO) != 0;
}

TextOptions OutputOptions() {
  return {UseColors(), isatty(STDOUT_FILENO) != 0 ? TerminalWidth(STDOUT_FILENO) : 0};
}

std::string Paint(std::string_view text, Tone tone, bool colors) {
  if (!colors || tone == Tone::kPlain || text.empty()) return std::string(text);
  const int code = tone == Tone::kGood      ? 32
                   : tone == Tone::kCaution ? 33
                   : tone == Tone::kBad     ? 31
                                            : 2;
  return fmt::format("\033[{}m{}\033[0m", code, text);
}

}  // namespace metal::ctl
