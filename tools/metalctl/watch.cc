#include "tools/metalctl/watch.h"

namespace metal::ctl {
namespace {

volatile std::sig_atomic_t g_pressed = 0;  // a signal handler has nowhere else to write

}  // namespace

InterruptGuard::InterruptGuard() {
  g_pressed = 0;
  struct sigaction action {};
  action.sa_handler = [](int) { g_pressed = 1; };
  sigaction(SIGINT, &action, &before_);
}

InterruptGuard::~InterruptGuard() {
  sigaction(SIGINT, &before_, nullptr);
  g_pressed = 0;
}

bool InterruptGuard::Pressed() { return g_pressed != 0; }

void InterruptGuard::Clear() { g_pressed = 0; }

}  // namespace metal::ctl
