// Shell completion. The shell's script asks this program for the words that may come next, so it
// needs no copy of the tree of commands. Threading: one thread.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"

namespace metal::ctl {

// The hidden first argument by which a script asks: metalctl __complete WORD… CURRENT.
inline constexpr const char* kCompleteCommand = "__complete";

// What may stand in place of the last of `words` (which may be empty): sorted as the help shows it.
// The one answer ":files" asks the shell to complete a path. `names(kind)` gives names that only an
// agent knows ("backup", "operation", "disk") or the shard's file ("node"). Words that bash split
// at
// '=' and ':' are put together again.
std::vector<std::string> CompleteWords(
    const CLI::App& app, std::vector<std::string> words,
    const std::function<std::vector<std::string>(const std::string& kind)>& names);

// Script for "bash" or "zsh".
std::string CompletionScript(const std::string& shell);

}  // namespace metal::ctl
