#include "tools/metalctl/text_table.h"

#include <algorithm>

#include "agent/base/check.h"

namespace metal::ctl {
namespace {

void AppendPadded(std::string& out, const std::string& text, size_t width, bool right, bool last) {
  const size_t used = DisplayWidth(text);
  const size_t padding = width > used ? width - used : 0;
  if (right) out.append(padding, ' ');
  out += text;
  if (!right && !last) out.append(padding, ' ');
}

}  // namespace

size_t DisplayWidth(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

TextTable::TextTable(std::vector<std::string> headers) : headers_(std::move(headers)) {
  for (auto& header : headers_) {
    const bool right = !header.empty() && header.front() == '>';
    if (right) header.erase(0, 1);
    right_.push_back(right);
  }
}

void TextTable::AddRow(std::vector<std::string> cells) {
  METAL_CHECK(cells.size() == headers_.size());
  for (auto& cell : cells) {
    if (cell.empty()) cell = "-";
  }
  rows_.push_back(std::move(cells));
}

std::string TextTable::ToString() const {
  std::vector<size_t> widths;
  for (const auto& header : headers_) widths.push_back(DisplayWidth(header));
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], DisplayWidth(row[i]));
  }
  std::string out;
  const auto append_row = [&](const std::vector<std::string>& row) {
    for (size_t i = 0; i < row.size(); ++i) {
      if (i > 0) out += "  ";
      AppendPadded(out, row[i], widths[i], right_[i], i + 1 == row.size());
    }
    out += '\n';
  };
  append_row(headers_);
  for (const auto& row : rows_) append_row(row);
  return out;
}

void FactList::Add(std::string_view name, std::string_view value) {
  if (!value.empty()) facts_.emplace_back(name, value);
}

std::string FactList::ToString(size_t indent) const {
  size_t width = 0;
  for (const auto& [name, value] : facts_) width = std::max(width, DisplayWidth(name));
  std::string out;
  for (const auto& [name, value] : facts_) {
    out.append(indent, ' ');
    AppendPadded(out, name, width, false, false);
    out += "  " + value + "\n";
  }
  return out;
}

}  // namespace metal::ctl
