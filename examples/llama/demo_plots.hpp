/// @file
/// Pictures for the demo's page: gnuplot draws them as SVG.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace llama {

/// What a picture shows, in gnuplot's language; empty where there is nothing to show.
struct drawing {
  std::string commands;
  int height{400};  ///< of 640 wide
};

/// SVG text; empty where gnuplot is missing or fails. Leaves the script beside the picture.
[[nodiscard]] inline std::string plot(drawing const& what, std::filesystem::path const& folder,
                                      std::string const& name) {
  auto const script = folder / (name + ".gp"), picture = folder / (name + ".svg");
  std::filesystem::remove(picture);
  if (what.commands.empty()) return {};
  std::ofstream{script} << "set terminal svg size 640," << what.height
                        << " font 'sans,12' background '#ffffff' noenhanced\nset output '" << picture.string()
                        << "'\nset grid lc '#dddddd'\nset border 3\nset tics nomirror\n"
                        << what.commands;
  if (std::system(("gnuplot '" + script.string() + "' 2>/dev/null").c_str()) != 0) return {};
  std::ifstream in{picture};
  std::string svg{std::istreambuf_iterator<char>{in}, {}};
  auto const begin = svg.find("<svg");
  return begin == std::string::npos ? std::string{} : svg.substr(begin);
}

/// One curve: title, and its points as pairs.
struct curve {
  std::string title;
  std::vector<std::pair<double, double>> points;
  std::vector<double> errors{};  ///< half a bar at each point; none where it is empty
};
struct plot_axes {
  std::string x, y;
  std::string further{};  ///< gnuplot commands
};

/// A key of that many lines over the picture: inside it would hide curves, and under it there are tics and their label.
[[nodiscard]] inline std::string key_on_top(std::size_t lines) {
  return "set tmargin " + std::to_string(lines + 1) + "\nset key at screen 0.5,screen 0.99 center top font ',11'";
}

/// Curves in the order of the list, the same colour in every picture; points where they are few enough to be told apart.
[[nodiscard]] inline drawing draw(plot_axes const& axes, std::vector<curve> const& curves) {
  // Ten that differ in lightness too; after them come dashes.
  constexpr char const* colours[] = {"#1f5fa8", "#d9541e", "#2f8f4e", "#8a4fa3", "#c79a00",
                                     "#17a5b8", "#b3123f", "#6b6b6b", "#7a4b1e", "#8fb339"};
  constexpr std::size_t many_points = 80;
  std::string data, plotted;
  std::size_t shown = 0, longest = 0;
  for (std::size_t k = 0; k < curves.size(); ++k) {
    auto const& [title, points, errors] = curves[k];
    if (points.empty()) continue;
    auto const name = "$c" + std::to_string(k);
    data += name + " << EOD\n";
    for (std::size_t i = 0; i < points.size(); ++i)
      data += std::to_string(points[i].first) + " " + std::to_string(points[i].second) + " " +
              std::to_string(i < errors.size() ? errors[i] : 0.0) + "\n";
    data += "EOD\n";
    plotted += (plotted.empty() ? "plot " : ", ") + name + " using 1:2 with " +
               (points.size() > many_points ? "lines" : "linespoints pt 7 ps 0.4") + " lw 2 lc rgb '" +
               colours[k % std::size(colours)] + "' dt " + std::to_string(k / std::size(colours) + 1) + " title '" +
               title + "'";
    if (!errors.empty())
      plotted += ", " + name + " using 1:2:3 with yerrorbars pt 7 ps 0.4 lc rgb '" + colours[k % std::size(colours)] +
                 "' notitle";
    ++shown;
    longest = std::max(longest, title.size());
  }
  if (shown == 0) return {};
  drawing out{"set xlabel '" + axes.x + "'\nset ylabel '" + axes.y + "'\n" + axes.further};
  std::size_t const columns = longest <= 18 ? 3 : longest <= 32 ? 2 : 1, rows = (shown + columns - 1) / columns;
  out.commands += key_on_top(rows) + " vertical Left reverse samplen 2 maxrows " + std::to_string(rows) + "\n";
  out.height += 20 * static_cast<int>(rows);
  out.commands += data + plotted + "\n";
  return out;
}

enum class bar_layout : std::uint8_t { beside, stacked };
struct bar_series {
  std::string title, colour;
  std::vector<double> values;  ///< one a label
};

/// Horizontal, so that long labels have room.
[[nodiscard]] inline drawing draw_bars(std::string const& unit, std::vector<std::string> const& labels,
                                       std::vector<bar_series> const& series, bar_layout layout) {
  std::string tics, data, plotted;
  for (std::size_t i = 0; i < labels.size(); ++i) tics += (i == 0 ? "'" : ", '") + labels[i] + "' " + std::to_string(i);
  std::vector<double> begin(labels.size());
  double const thickness = layout == bar_layout::stacked ? 0.6 : 0.8 / static_cast<double>(series.size());
  for (std::size_t k = 0; k < series.size(); ++k) {
    auto const name = "$s" + std::to_string(k);
    data += name + " << EOD\n";
    for (std::size_t i = 0; i < labels.size(); ++i) {
      double const value = series[k].values[i];
      double const row = static_cast<double>(i) +
                         (layout == bar_layout::stacked ? 0.0 : (static_cast<double>(k) + 0.5) * thickness - 0.4);
      // Middle, and half of the width and of the height.
      data += std::to_string(begin[i] + value / 2) + " " + std::to_string(row) + " " + std::to_string(value / 2) + " " +
              std::to_string(thickness / 2) + "\n";
      if (layout == bar_layout::stacked) begin[i] += value;
    }
    data += "EOD\n";
    plotted += (plotted.empty() ? "plot " : ", ") + name +
               " using 1:2:3:4 with boxxyerror fs solid 0.9 noborder lc rgb '" + series[k].colour + "' title '" +
               series[k].title + "'";
  }
  auto const count = static_cast<int>(labels.size());
  return {"set xlabel '" + unit + "'\nset xrange [0:*]\nset yrange [" + std::to_string(count) +
              " - 0.5:-0.5]\nunset grid\nset grid x lc '#dddddd'\nset ytics scale 0 (" + tics + ")\n" + key_on_top(1) +
              " horizontal maxrows 1\n" + data + plotted + "\n",
          110 + count * (layout == bar_layout::stacked ? 30 : 48)};
}

}  // namespace llama
