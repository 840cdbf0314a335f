#include "cli/files.h"

#include <fstream>
#include <iostream>
#include <iterator>

namespace dynaflow::cli {

namespace {

/// `read(text)`, with errors that say where: FILE:LINE:COLUMN, or FILE when there is no place.
template <typename Read>
auto read_text(const File& file, Read read) {
  try {
    return read(file.text);
  } catch (const ParseError& error) {
    throw InputError(formatted("{}:{}:{}: {}", file.name, error.line(), error.column(), error.reason()));
  } catch (const Error& error) {
    throw InputError(formatted("{}: {}", file.name, error.what()));
  }
}

}  // namespace

File read_file(const std::string& path) {
  if (path == "-")
    return {"standard input", std::string(std::istreambuf_iterator<char>(std::cin.rdbuf()), {})};
  std::ifstream stream(path, std::ios::binary);
  if (!stream) throw InputError(formatted("{}: cannot be opened", path));
  File file{path, {}};
  char block[1 << 16];
  while (stream.read(block, sizeof block) || stream.gcount() > 0)
    file.text.append(block, static_cast<size_t>(stream.gcount()));
  if (stream.bad()) throw InputError(formatted("{}: cannot be read", path));
  return file;
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream stream(path, std::ios::binary);
  stream << text << std::flush;
  if (!stream) throw InputError(formatted("{}: cannot be written", path));
}

bool holds_plan(const File& file) {
  return read_text(file, [](const std::string& text) { return text::parse(text).find("plan") != nullptr; });
}

GraphPtr read_graph(const File& file) {
  return read_text(file, [](const std::string& text) {
    return std::make_shared<const Graph>(reinplace(apply_corrections(parse_graph(text))));
  });
}

PlanPtr read_plan(const File& file) {
  return read_text(file, [](const std::string& text) { return parse_plan(text); });
}

}  // namespace dynaflow::cli
