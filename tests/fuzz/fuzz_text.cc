// Whatever the text: a reader gives a value that prints and reads back the same, or throws a typed error.
// What was read goes through the later stages, which may refuse it by a typed error too. Everything else is a
// defect, and stops the run: a crash, an InternalError, a text that reads back as another value.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "dynaflow/explain.h"
#include "dynaflow/strategy.h"
#include "dynaflow/verify.h"
#include "mutate.h"

namespace {

using namespace dynaflow;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what);
  std::abort();
}

/// Runs one stage; a typed error is an answer.
template <typename Stage>
void attempt(Stage stage) {
  try {
    stage();
  } catch (const Error& error) {
    require(error.what()[0] != '\0', "an error without a message");
  }
}

/// Graphs hold floats, and nan is not equal to itself; their texts are.
void check_graph(const Graph& graph) {
  const std::string text = print(graph);
  require(print(parse_graph(text)) == text, "a graph does not survive printing and reading");
}

std::function<int64_t(std::string_view)> hints(const Graph& graph) {
  return [&graph](std::string_view name) {
    const Symbol* symbol = graph.find_symbol(name);
    if (symbol == nullptr) throw GraphError("an unknown symbol");
    return symbol->hint;
  };
}

void check_plan(const PlanPtr& plan) {
  const std::string text = print(*plan);
  require(print(*parse_plan(text)) == text, "a plan does not survive printing and reading");
  attempt([&] { verify(*plan); });
  attempt([&] { verify_ranks(std::vector<PlanPtr>{plan, plan}); });
  attempt([&] { explain(*plan); });
  attempt([&] {
    std::vector<int64_t> values;
    for (const Symbol& symbol : plan->graph->symbols) values.push_back(symbol.hint);
    Binding binding;
    const Binder binder(plan);
    binder.accepts(values);
    binder.bind(values, binding);
  });
}

void make_plan(const GraphPtr& graph, const Strategy& strategy) {
  const PartitionPtr cut = partition(graph, strategy.partition());
  const SchedulePtr schedule = make_schedule(cut, strategy, hints(*graph));
  const text::Document document = text::parse(print(*cut) + print(*schedule));
  const PartitionPtr again = partition_from_text(document.at("partition"), graph);
  require(again->segments == cut->segments, "a partition does not survive printing and reading");
  require(print(*schedule_from_text(document.at("schedule"), again)) == print(*schedule),
          "a schedule does not survive printing and reading");
  check_plan(lower(*schedule));
}

void read_parts(const text::Document& document, const GraphPtr& graph) {
  const text::Section* cut = document.find("partition");
  if (cut == nullptr) return;
  const PartitionPtr partition = partition_from_text(*cut, graph);
  require(
      print(*partition_from_text(text::parse(print(*partition)).at("partition"), graph)) == print(*partition),
      "a partition read does not survive printing and reading");
  const text::Section* section = document.find("schedule");
  if (section == nullptr) return;
  const SchedulePtr schedule = schedule_from_text(*section, partition);
  const std::string text = print(*schedule);
  require(print(*schedule_from_text(text::parse(text).at("schedule"), partition)) == text,
          "a schedule read does not survive printing and reading");
}

void read_all(std::string_view source) {
  const text::Document document = text::parse(source);
  require(text::parse(text::print(document)) == document, "a text does not survive printing and reading");
  if (document.find("plan") != nullptr) attempt([&] { check_plan(parse_plan(source)); });
  const text::Section* section = document.find("graph");
  if (section == nullptr) return;
  const Graph read = graph_from_text(*section);
  check_graph(read);
  const auto graph = std::make_shared<const Graph>(reinplace(apply_corrections(read)));
  check_graph(*graph);
  attempt([&] { read_parts(document, graph); });
  if (document.find("plan") != nullptr) return;
  // One plan for each text, for speed.
  const bool split = source.size() % 4 != 0;
  attempt([&] {
    make_plan(graph,
              split ? *make_nanoflow({{"min_tokens", text::Value::integral(0)}}) : *make_sequential({}));
  });
}

size_t give(const std::string& text, uint8_t* data, size_t limit) {
  const size_t size = std::min(text.size(), limit);
  std::memcpy(data, text.data(), size);
  return size;
}

}  // namespace

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t limit);

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  attempt([&] { read_all({reinterpret_cast<const char*>(data), size}); });
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t limit, unsigned seed) {
  std::minstd_rand random(seed);
  if (random() % 16 == 0) return LLVMFuzzerMutate(data, size, limit);
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  return give(fuzz::mutate(text, text, random), data, limit);
}

extern "C" size_t LLVMFuzzerCustomCrossOver(const uint8_t* first, size_t first_size, const uint8_t* second,
                                            size_t second_size, uint8_t* out, size_t limit, unsigned seed) {
  std::minstd_rand random(seed);
  return give(fuzz::mutate({reinterpret_cast<const char*>(first), first_size},
                           {reinterpret_cast<const char*>(second), second_size}, random),
              out, limit);
}
