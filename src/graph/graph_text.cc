#include <algorithm>
#include <map>

#include "dynaflow/graph.h"

namespace dynaflow {

namespace {

using text::Line;
using text::Section;

constexpr std::pair<OpKind, const char*> kOpKinds[] = {
    {OpKind::kView, "view"}, {OpKind::kCollective, "collective"}, {OpKind::kOpaque, "opaque"}};
constexpr std::pair<Origin, const char*> kOrigins[] = {
    {Origin::kInput, "input"}, {Origin::kParameter, "parameter"}, {Origin::kConstant, "constant"}};

text::Value sizes_to_text(const std::vector<SizeExpr>& sizes) {
  std::vector<text::Value> items;
  for (const SizeExpr& size : sizes) items.push_back(size.to_text());
  return text::Value::list(std::move(items));
}

text::Value meta_to_text(const TensorMeta& meta) {
  std::vector<text::Value> items = {text::Value::identifier(std::string(dtype_name(meta.dtype))),
                                    sizes_to_text(meta.shape)};
  const bool offset = !(meta.offset == SizeExpr(0));
  if (offset || meta.strides != contiguous_strides(meta.shape)) items.push_back(sizes_to_text(meta.strides));
  if (offset) items.push_back(meta.offset.to_text());
  return text::Value::call("tensor", std::move(items));
}

text::Value arg_to_text(const Graph& graph, const Arg& arg) {
  return dynaflow::arg_to_text(arg, [&](ValueId id) { return graph.values[id].name; });
}

text::Value refs_to_text(const Graph& graph, const std::vector<ValueId>& ids) {
  std::vector<text::Value> items;
  for (ValueId id : ids)
    items.push_back(id == kNoId ? text::Value::none() : text::Value::ref(graph.values[id].name));
  return text::Value::list(std::move(items));
}

void effects_to_text(const Graph& graph, const Effects& effects, std::vector<text::Attr>& attrs) {
  if (!effects.writes.empty()) attrs.emplace_back("writes", refs_to_text(graph, effects.writes));
  if (effects.random) attrs.emplace_back("random", text::Value::boolean(true));
  if (effects.host_sync) attrs.emplace_back("host_sync", text::Value::boolean(true));
  if (effects.reads_context) attrs.emplace_back("reads_context", text::Value::boolean(true));
}

Line op_to_text(const Graph& graph, const Op& op) {
  Line line;
  line.kind = op.target;
  std::vector<text::Value> metas;
  std::vector<ValueId> aliases;
  bool shared = false;
  for (ValueId id : op.outputs) {
    line.results.push_back(graph.values[id].name);
    metas.push_back(meta_to_text(graph.values[id].meta));
    aliases.push_back(graph.values[id].alias_of);
    shared |= aliases.back() != kNoId;
  }
  for (const Arg& arg : op.args) line.args.push_back(arg_to_text(graph, arg));
  line.attrs.emplace_back("out", text::Value::list(std::move(metas)));
  if (line.results.empty() || op.name != line.results[0])
    line.attrs.emplace_back("name", text::Value::string(op.name));
  for (const auto& [kind, name] : kOpKinds)
    if (kind == op.kind) line.attrs.emplace_back("kind", text::Value::identifier(name));
  if (shared) line.attrs.emplace_back("alias", refs_to_text(graph, aliases));
  effects_to_text(graph, op.effects, line.attrs);
  const auto string_attr = [&](const char* key, const std::string& value) {
    if (!value.empty()) line.attrs.emplace_back(key, text::Value::string(value));
  };
  string_attr("out_target", op.out_target);
  string_attr("inplace_target", op.inplace_target);
  string_attr("functional", op.functional);
  if (op.by_rows) line.attrs.emplace_back("by_rows", text::Value::boolean(true));
  string_attr("group", op.group);
  string_attr("module", op.module);
  string_attr("type", op.module_type);
  if (!op.marks.empty()) {
    std::vector<text::Value> marks;
    for (const std::string& mark : op.marks) marks.push_back(text::Value::string(mark));
    line.attrs.emplace_back("marks", text::Value::list(std::move(marks)));
  }
  return line;
}

Line symbol_to_text(const Symbol& symbol) {
  Line line;
  line.results = {symbol.name};
  line.kind = "symbol";
  line.attrs.emplace_back("min", text::Value::integral(symbol.min));
  if (symbol.max != INT64_MAX) line.attrs.emplace_back("max", text::Value::integral(symbol.max));
  line.attrs.emplace_back("hint", text::Value::integral(symbol.hint));
  if (symbol.input != kNoId) line.attrs.emplace_back("input", text::Value::integral(symbol.input));
  return line;
}

/// The values of [begin, end) that no op makes.
void origins_to_text(const Graph& graph, size_t begin, size_t end, std::vector<Line>& lines) {
  for (size_t id = begin; id < end; ++id) {
    const Value& value = graph.values[id];
    for (const auto& [origin, name] : kOrigins) {
      if (origin != value.origin) continue;
      Line line;
      line.results = {value.name};
      line.kind = name;
      line.args = {text::Value::integral(value.index), meta_to_text(value.meta)};
      lines.push_back(std::move(line));
    }
  }
}

/// Builds a graph line by line; names are resolved as they are defined.
class GraphReader {
 public:
  Graph read(const Section& section) {
    if (!section.header.kind.empty()) {
      graph_.name = section.header.kind;
      if (const text::Value* batch = section.header.find("batch")) graph_.batch_symbol = batch->as_name();
      if (const text::Value* tokens = section.header.find("tokens"))
        graph_.tokens = SizeExpr::from_text(*tokens);
    }
    for (const Line& line : section.lines) read_line(line);
    check(graph_);
    return std::move(graph_);
  }

 private:
  void read_line(const Line& line) {
    if (line.kind == "symbol") return read_symbol(line);
    if (line.kind == "equal") return read_equal(line);
    if (line.kind == "output") {
      for (const text::Value& value : line.args) graph_.outputs.push_back(read_arg(value));
      return;
    }
    for (const auto& [origin, name] : kOrigins)
      if (line.kind == name) return read_origin(line, origin);
    read_op(line);
  }

  void read_symbol(const Line& line) {
    if (line.results.size() != 1) line.fail("a symbol has one name: %s0 = symbol() {...}");
    Symbol symbol;
    symbol.name = line.results[0];
    if (const text::Value* min = line.find("min")) symbol.min = min->as_int();
    if (const text::Value* max = line.find("max")) symbol.max = max->as_int();
    symbol.hint = line.at("hint").as_int();
    if (const text::Value* input = line.find("input")) symbol.input = narrow(*input);
    graph_.symbols.push_back(std::move(symbol));
  }

  void read_equal(const Line& line) {
    if (line.args.size() != 2) line.fail("equal takes two sizes");
    graph_.guards.push_back({SizeExpr::from_text(line.args[0]), SizeExpr::from_text(line.args[1])});
  }

  void read_origin(const Line& line, Origin origin) {
    if (line.results.size() != 1 || line.args.size() != 2)
      line.fail(formatted("expected %name = {}(index, tensor(type, [sizes]))", line.kind));
    Value value;
    value.origin = origin;
    value.index = narrow(line.args[0]);
    value.meta = metas_.share(read_meta(line.args[1]));
    define(line, line.results[0], std::move(value));
  }

  void read_op(const Line& line) {
    Op op;
    op.target = names_.share(line.kind);
    for (const text::Value& value : line.args) op.args.push_back(read_arg(value));
    read_op_attrs(line, op);
    const std::vector<text::Value>& metas = line.at("out").as_list();
    if (metas.size() != line.results.size())
      line.fail(formatted("{} results but 'out' describes {}", line.results.size(), metas.size()));
    const text::Value* aliases = line.find("alias");
    if (aliases != nullptr && aliases->as_list().size() != metas.size())
      aliases->fail("one alias (or none) for each result");
    for (size_t i = 0; i < metas.size(); ++i) {
      Value value;
      value.op = static_cast<OpId>(graph_.ops.size());
      value.index = static_cast<int32_t>(i);
      value.meta = metas_.share(read_meta(metas[i]));
      if (aliases != nullptr && aliases->items[i].kind != text::Value::Kind::kNone)
        value.alias_of = lookup(aliases->items[i]);
      op.outputs.push_back(define(line, line.results[i], std::move(value)));
    }
    graph_.ops.push_back(std::move(op));
  }

  void read_op_attrs(const Line& line, Op& op) {
    op.name = line.results.empty() ? "" : line.results[0];
    for (const auto& [key, value] : line.attrs) {
      if (key == "name")
        op.name = value.as_string();
      else if (key == "kind")
        op.kind = read_kind(value);
      else if (key == "out_target")
        op.out_target = names_.share(value.as_string());
      else if (key == "inplace_target")
        op.inplace_target = names_.share(value.as_string());
      else if (key == "functional")
        op.functional = names_.share(value.as_string());
      else if (key == "group")
        op.group = names_.share(value.as_string());
      else if (key == "module")
        op.module = names_.share(value.as_string());
      else if (key == "type")
        op.module_type = names_.share(value.as_string());
      else if (key == "random")
        op.effects.random = value.as_bool();
      else if (key == "host_sync")
        op.effects.host_sync = value.as_bool();
      else if (key == "by_rows")
        op.by_rows = value.as_bool();
      else if (key == "reads_context")
        op.effects.reads_context = value.as_bool();
      else if (key == "writes")
        for (const text::Value& ref : value.as_list()) op.effects.writes.push_back(lookup(ref));
      else if (key == "marks")
        for (const text::Value& mark : value.as_list()) op.marks.push_back(mark.as_string());
      else if (key != "out" && key != "alias")
        line.fail(formatted("unknown attribute '{}' of an op", key));
    }
    if (op.name.empty()) line.fail("an op without results needs name=\"...\"");
  }

  static OpKind read_kind(const text::Value& value) {
    for (const auto& [kind, name] : kOpKinds)
      if (value.as_name() == name) return kind;
    value.fail("view, collective or opaque");
  }

  Arg read_arg(const text::Value& value) {
    return arg_from_text(value, [this](const text::Value& ref) { return lookup(ref); }, names_);
  }

  std::vector<SizeExpr> read_sizes(const text::Value& value) {
    std::vector<SizeExpr> sizes;
    for (const text::Value& item : value.as_list()) sizes.push_back(pool_.share(SizeExpr::from_text(item)));
    return sizes;
  }

  TensorMeta read_meta(const text::Value& value) {
    if (value.kind != text::Value::Kind::kCall || value.name != "tensor" || value.items.size() < 2 ||
        value.items.size() > 4)
      value.fail("tensor(type, [sizes], [strides], offset)");
    TensorMeta meta;
    meta.dtype = dtype_from_name(value.items[0].as_name());
    meta.shape = read_sizes(value.items[1]);
    meta.strides = value.items.size() > 2 ? read_sizes(value.items[2]) : contiguous_strides(meta.shape);
    pool_.share_all(meta.strides);
    if (value.items.size() > 3) meta.offset = SizeExpr::from_text(value.items[3]);
    return meta;
  }

  static int32_t narrow(const text::Value& value) {
    if (value.as_int() < 0 || value.as_int() > INT32_MAX) value.fail("a small index");
    return static_cast<int32_t>(value.as_int());
  }

  ValueId lookup(const text::Value& value) {
    const auto found = by_name_.find(value.as_ref());
    if (found == by_name_.end()) value.fail("a value defined above");
    return found->second;
  }

  ValueId define(const Line& line, const std::string& name, Value value) {
    value.name = name;
    const auto id = static_cast<ValueId>(graph_.values.size());
    if (!by_name_.emplace(name, id).second) line.fail(formatted("%{} is defined twice", name));
    graph_.values.push_back(std::move(value));
    return id;
  }

  ExprPool pool_;
  NamePool names_;
  MetaPool metas_;
  Graph graph_;
  std::map<std::string, ValueId> by_name_;
};

}  // namespace

text::Value arg_to_text(const Arg& arg, const std::function<std::string(ValueId)>& name_of) {
  using text::Value;
  struct Visitor {
    const std::function<std::string(ValueId)>& name_of;
    Value operator()(std::monostate) const { return Value::none(); }
    Value operator()(bool value) const { return Value::boolean(value); }
    Value operator()(const SizeExpr& value) const { return value.to_text(); }
    Value operator()(double value) const { return Value::floating(value); }
    Value operator()(const std::string& value) const { return Value::string(value); }
    Value operator()(const ValueRef& value) const { return Value::ref(name_of(value.id)); }
    Value operator()(const NamedConstant& value) const {
      return Value::call(value.kind, {Value::string(value.name)});
    }
    Value operator()(const ArgList& list) const {
      std::vector<Value> items;
      for (const Arg& item : list) items.push_back(arg_to_text(item, name_of));
      return Value::list(std::move(items));
    }
  };
  return std::visit(Visitor{name_of}, arg.data);
}

Arg arg_from_text(const text::Value& value, const std::function<ValueId(const text::Value&)>& lookup,
                  NamePool& names) {
  using Kind = text::Value::Kind;
  switch (value.kind) {
    case Kind::kNone:
      return {};
    case Kind::kBool:
      return {value.as_bool()};
    case Kind::kFloat:
      return {value.real};
    case Kind::kString:
      return {value.name};
    case Kind::kRef:
      return {ValueRef{lookup(value)}};
    case Kind::kList: {
      ArgList items;
      for (const text::Value& item : value.items) items.push_back(arg_from_text(item, lookup, names));
      return {std::move(items)};
    }
    case Kind::kCall:
      if (value.items.size() == 1 && value.items[0].kind == Kind::kString)
        return {NamedConstant{names.share(value.name), names.share(value.items[0].name)}};
      break;
    case Kind::kInt:
    case Kind::kName:
      break;
  }
  return {SizeExpr::from_text(value)};
}

Section to_text(const Graph& graph) {
  Section section;
  section.name = "graph";
  section.header.kind = graph.name.empty() ? "graph" : graph.name;
  if (!graph.batch_symbol.empty())
    section.header.attrs.emplace_back("batch", text::Value::identifier(graph.batch_symbol));
  section.header.attrs.emplace_back("tokens", graph.tokens.to_text());
  for (const Symbol& symbol : graph.symbols) section.lines.push_back(symbol_to_text(symbol));
  for (const SizeEquality& guard : graph.guards) {
    Line line;
    line.kind = "equal";
    line.args = {guard.left.to_text(), guard.right.to_text()};
    section.lines.push_back(std::move(line));
  }
  // In the order of definition, so that reading gives every value the same id again.
  size_t printed = 0;
  for (const Op& op : graph.ops) {
    const size_t end = op.outputs.empty() ? printed : static_cast<size_t>(op.outputs.front());
    origins_to_text(graph, printed, end, section.lines);
    printed = std::max(printed, end + op.outputs.size());
    section.lines.push_back(op_to_text(graph, op));
  }
  origins_to_text(graph, printed, graph.values.size(), section.lines);
  Line output;
  output.kind = "output";
  for (const Arg& arg : graph.outputs) output.args.push_back(arg_to_text(graph, arg));
  section.lines.push_back(std::move(output));
  return section;
}

Graph graph_from_text(const Section& section) { return GraphReader().read(section); }

std::string print(const Graph& graph) { return text::print(to_text(graph)); }

Graph parse_graph(std::string_view source) { return graph_from_text(text::parse(source).at("graph")); }

}  // namespace dynaflow
