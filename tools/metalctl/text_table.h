// Text tables for people: columns aligned by display width, no lines, two spaces between columns.
// Pure.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace metal::ctl {

class TextTable {
 public:
  // Headers. Marks before the name, not printed: '>' aligns the column to the right, '?' lets it be
  // left out when the table is too wide, the last one first.
  explicit TextTable(std::vector<std::string> headers);
  // REQUIRES: as many cells as headers.
  void AddRow(std::vector<std::string> cells);
  bool empty() const { return rows_.empty(); }
  // `width`: columns of the terminal; 0: nothing is left out.
  std::string ToString(int width = 0) const;

 private:
  std::vector<size_t> ColumnsThatFit(const std::vector<size_t>& widths, int width) const;

  std::vector<std::string> headers_;
  std::vector<bool> right_, optional_;
  std::vector<std::vector<std::string>> rows_;
};

// "name   value" lines with the names padded to one width.
class FactList {
 public:
  void Add(std::string_view name, std::string_view value);  // nothing when value is empty
  std::string ToString(size_t indent = 0) const;

 private:
  std::vector<std::pair<std::string, std::string>> facts_;
};

// Columns that UTF-8 text takes: one for each code point, none for escape sequences of colours.
size_t DisplayWidth(std::string_view text);

}  // namespace metal::ctl
