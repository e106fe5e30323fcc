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
  size_t width = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\033') {
      i = std::min(text.find('m', i), text.size());
    } else if ((static_cast<unsigned char>(text[i]) & 0xC0) != 0x80) {
      ++width;
    }
  }
  return width;
}

TextTable::TextTable(std::vector<std::string> headers) : headers_(std::move(headers)) {
  for (auto& header : headers_) {
    const size_t name = std::min(header.find_first_not_of("?>"), header.size());
    const std::string marks = header.substr(0, name);
    header.erase(0, name);
    right_.push_back(marks.find('>') != std::string::npos);
    optional_.push_back(marks.find('?') != std::string::npos);
  }
}

void TextTable::AddRow(std::vector<std::string> cells) {
  METAL_CHECK(cells.size() == headers_.size());
  for (auto& cell : cells) {
    if (cell.empty()) cell = "-";
  }
  rows_.push_back(std::move(cells));
}

std::vector<size_t> TextTable::ColumnsThatFit(const std::vector<size_t>& widths, int width) const {
  std::vector<size_t> columns;
  size_t total = 0;
  for (size_t i = 0; i < widths.size(); ++i) {
    columns.push_back(i);
    total += widths[i] + (i > 0 ? 2 : 0);
  }
  for (size_t at = columns.size(); at-- > 0 && width > 0 && total > static_cast<size_t>(width);) {
    if (!optional_[columns[at]]) continue;
    total -= widths[columns[at]] + 2;
    columns.erase(columns.begin() + static_cast<std::ptrdiff_t>(at));
  }
  return columns;
}

std::string TextTable::ToString(int width) const {
  std::vector<size_t> widths;
  for (const auto& header : headers_) widths.push_back(DisplayWidth(header));
  for (const auto& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], DisplayWidth(row[i]));
  }
  const std::vector<size_t> columns = ColumnsThatFit(widths, width);
  std::string out;
  const auto append_row = [&](const std::vector<std::string>& row) {
    for (const size_t i : columns) {
      if (i != columns.front()) out += "  ";
      AppendPadded(out, row[i], widths[i], right_[i], i == columns.back());
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
