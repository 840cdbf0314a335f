#pragma once
#include <stdexcept>
#include <string>

#include "dynaflow/plan.h"

namespace dynaflow::cli {

/// A file, or a value on the command line, that cannot be used. The message is all that the user sees.
class InputError : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A file's text and the name that messages give it.
struct File {
  std::string name;
  std::string text;
};
/// Reads a file, or standard input for "-". Throws InputError when that fails.
File read_file(const std::string& path);
/// Throws InputError when the file cannot be written.
void write_file(const std::string& path, const std::string& text);

/// Whether the text has a section `plan:`. Throws InputError when it is no text form at all.
bool holds_plan(const File& file);
/// The graph in the file, corrected as every graph is before it is planned. Throws InputError with the
/// position, where there is one.
GraphPtr read_graph(const File& file);
/// The plan in the file, checked. Throws InputError likewise.
PlanPtr read_plan(const File& file);

}  // namespace dynaflow::cli
