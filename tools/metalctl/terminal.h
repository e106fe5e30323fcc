// What the terminal can show: its width, and whether colours are wanted. Threading: one thread.
#pragma once

#include <string>
#include <string_view>

namespace metal::ctl {

// Columns of the terminal behind `fd`; 80 when it is none or does not say.
int TerminalWidth(int fd);

// The first `width` columns of one line, with "…" in place of what is left out; all of it when
// width is 0 or less.
std::string CutToWidth(std::string_view line, int width);

// The text over what the screen showed before, without a flicker: from the top left corner, each
// line and all below it cleared as it is written.
std::string ScreenText(std::string_view text);

enum class Tone { kPlain, kGood, kCaution, kBad, kDim };

// Colours on standard output: only a terminal gets them, and not with NO_COLOR (set to anything) or
// TERM=dumb.
bool UseColors();

// How text is written for standard output.
struct TextOptions {
  bool colors = false;
  int width = 0;  // columns; 0: as wide as it gets
};
TextOptions OutputOptions();

// The text with the tone's colour around it when `colors`.
std::string Paint(std::string_view text, Tone tone, bool colors);

}  // namespace metal::ctl
