/// @file
/// What the pages of the examples are made of.
#pragma once

#include <initializer_list>
#include <ostream>
#include <span>
#include <string>
#include <string_view>

namespace llama {

inline void write_page_head(std::ostream& out, std::string_view title, std::string_view heading) {
  out << "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>" << title
      << "</title><style>body{font:15px/1.5 sans-serif;max-width:1340px;margin:2em auto;padding:0 1em;color:#222}"
         "table{border-collapse:collapse}td,th{padding:.25em .8em;border-bottom:1px solid #ddd;text-align:right}"
         "td:first-child,th:first-child{text-align:left;white-space:nowrap}div{overflow-x:auto}figure{display:"
         "inline-block;vertical-align:top;max-width:640px;margin:1em 1em 1em 0}figcaption{font-weight:600}"
         "pre{background:#f6f6f4;padding:1em;white-space:pre-wrap}</style><h1>"
      << heading << "</h1>";
}

/// Ends with `</table>`, which is the caller's to write. Headings and cells are HTML.
inline void begin_table(std::ostream& out, std::initializer_list<std::string_view> headings) {
  out << "<table><tr>";
  for (auto const heading : headings) out << "<th>" << heading << "</th>";
  out << "</tr>";
}
inline void write_row(std::ostream& out, std::span<std::string const> cells) {
  out << "<tr>";
  for (auto const& cell : cells) out << "<td>" << cell << "</td>";
  out << "</tr>";
}

}  // namespace llama
