#include <exception>
#include <iostream>

#include "cli/commands.h"
#include "cli/files.h"

namespace {

using namespace dynaflow::cli;

int run(int argc, char** argv) {
  CLI::App app("Look at graphs and plans in their text form, make plans, and prove them right.", "dynaflow");
  app.set_version_flag("--version", "dynaflow " DYNAFLOW_VERSION);
  app.require_subcommand(1);
  int status = kDone;
  add_inspect(app, status);
  add_plan(app, status);
  add_verify(app, status);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kDone : kBadInput;
  }
  return status;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const InputError& error) {
    std::cerr << error.what() << "\n";
    return kBadInput;
  } catch (const dynaflow::Error& error) {
    std::cerr << error.what() << "\n";
    return kBadInput;
  } catch (const std::exception& error) {
    std::cerr << "dynaflow: a defect of this program: " << error.what() << "\n";
    return kDefect;
  }
}
