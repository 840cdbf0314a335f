#include <iostream>
#include <memory>

#include "cli/commands.h"
#include "cli/facts.h"
#include "cli/files.h"
#include "dynaflow/strategy.h"
#include "dynaflow/verify.h"

namespace dynaflow::cli {

namespace {

struct Options {
  std::string graph;
  std::string strategy = "nanoflow";
  std::vector<std::string> options;
  std::vector<std::string> sizes;
  std::string output;
  bool json = false;
};

/// `key=value`, the value in the grammar of the text forms.
text::Attr read_pair(const char* flag, const std::string& given) {
  const size_t equals = given.find('=');
  const auto refuse = [&](const std::string& why) {
    throw InputError(formatted("{} {}: {}", flag, given, why));
  };
  if (equals == 0 || equals == std::string::npos) refuse("expected name=value");
  try {
    // One argument of one line, and nothing else.
    const text::Document document = text::parse("x:\n  x(" + given.substr(equals + 1) + ")\n");
    if (document.sections.size() == 1 && document.sections[0].lines.size() == 1) {
      const text::Line& line = document.sections[0].lines[0];
      if (line.args.size() == 1 && line.attrs.empty()) return {given.substr(0, equals), line.args[0]};
    }
  } catch (const ParseError&) {
    // The position would be one in the line made up here.
  }
  refuse("the value cannot be read; expected an integer, a number, a \"string\" or a [list]");
  throw InternalError("unreachable");
}

StrategyPtr make_strategy(const Options& options) {
  StrategyOptions values;
  for (const std::string& given : options.options) {
    const auto [name, value] = read_pair("--option", given);
    values[name] = value;
  }
  StrategyRegistry registry;
  register_builtin_strategies(registry);
  try {
    return registry.make(options.strategy, values);
  } catch (const ParseError& error) {
    throw InputError(formatted("strategy '{}': {}", options.strategy, error.reason()));
  }
}

Sizes read_sizes(const Options& options, const Graph& graph) {
  Sizes sizes = hints(graph);
  for (const std::string& given : options.sizes) {
    const auto [name, value] = read_pair("--size", given);
    const Symbol* symbol = graph.find_symbol(name);
    if (symbol == nullptr || value.kind != text::Value::Kind::kInt)
      throw InputError(formatted("--size {}: expected symbol=integer, with a symbol of the graph", given));
    if (value.integer < symbol->min || value.integer > symbol->max)
      throw InputError(
          formatted("--size {}: '{}' lies between {} and {}", given, name, symbol->min, symbol->max));
    sizes[name] = value.integer;
  }
  return sizes;
}

int make_plan(const Options& options) {
  const File file = read_file(options.graph);
  const GraphPtr graph = read_graph(file);
  const StrategyPtr strategy = make_strategy(options);
  const Sizes sizes = read_sizes(options, *graph);
  try {
    const PartitionPtr cut = partition(graph, strategy->partition());
    const PlanPtr plan = lower(*make_schedule(cut, *strategy, value_in(sizes)));
    check_verified(*plan);
    const std::string text = print(*plan);
    if (!options.output.empty()) write_file(options.output, text);
    if (options.json)
      std::cout << as_json({{"plan", graph->name},
                            {"strategy", plan->strategy},
                            {"sizes", size_facts(*graph, sizes)},
                            {"parts", plan->cut.parts},
                            {"text", text}});
    else if (options.output.empty())
      std::cout << text;
  } catch (const Error& error) {
    throw InputError(formatted("{}: {}", file.name, error.what()));
  }
  return kDone;
}

}  // namespace

void add_plan(CLI::App& app, int& status) {
  CLI::App* command = app.add_subcommand("plan", "Make a plan of a graph by a built-in strategy");
  const auto options = std::make_shared<Options>();
  command->add_option("GRAPH", options->graph, "A graph's text; - is standard input")->required();
  command->add_option("--strategy", options->strategy, "The strategy's name")->capture_default_str();
  command->add_option("--option", options->options, "An option of the strategy: key=value")
      ->allow_extra_args(false);
  command->add_option("--size", options->sizes, "A symbol's value: symbol=value; else its hint")
      ->allow_extra_args(false);
  command->add_option("-o,--output", options->output, "Write the plan to this file");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &status] { status = make_plan(*options); });
}

}  // namespace dynaflow::cli
