#include "torch/call.h"

#include <ATen/ScalarOps.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/jit_type.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>

#include "dynaflow/fusion.h"

namespace dynaflow {

struct CallBuilder::Context {
  const Run& run;
  const OpLaunch& launch;
  const Op& op;
  Call& call;

  Source constant(c10::IValue value) {
    call.constants.push_back(std::move(value));
    return {Source::Kind::kConstant, static_cast<int32_t>(call.constants.size()) - 1};
  }
  [[noreturn]] void fail(const c10::Argument& formal, const std::string& why) const {
    throw PlanError(formatted("op '{}' ({}): argument '{}' of type {} {}", op.name, op.target, formal.name(),
                              formal.type()->str(), why));
  }
};

namespace {

c10::OperatorHandle find_operator(const Op& op, const std::string& target) {
  const size_t first = target.find('.');
  const size_t last = target.rfind('.');
  if (first == std::string::npos || first == last) {
    throw PlanError(formatted("op '{}': '{}' is not of the form namespace.name.overload", op.name, target));
  }
  const std::string name = target.substr(0, first) + "::" + target.substr(first + 1, last - first - 1);
  const std::string overload = target.substr(last + 1);
  auto handle = c10::Dispatcher::singleton().findSchema({name, overload == "default" ? "" : overload});
  if (!handle) {
    throw PlanError(formatted("op '{}': torch has no operator {}; import the library that registers it first",
                              op.name, target));
  }
  return *handle;
}

/// What PyTorch makes of a Python number given for a tensor: it does not take part in type promotion.
at::Tensor wrapped_number(const at::Scalar& value, std::optional<c10::ScalarType> dtype = std::nullopt) {
  c10::InferenceMode normal(false);
  at::Tensor tensor = c10::scalar_to_tensor(value);
  // A number of the result's own type promotes nothing; marked, a Python mode could not read it.
  if (dtype) return tensor.to(*dtype);
  tensor.unsafeGetTensorImpl()->set_wrapped_number(true);
  return tensor;
}

c10::IValue named_constant(const NamedConstant& constant) {
  if (constant.kind == "dtype") return static_cast<int64_t>(scalar_type(dtype_from_name(constant.name)));
  if (constant.kind == "device") return c10::Device(constant.name);
  if (constant.kind == "layout" && constant.name == "strided")
    return static_cast<int64_t>(c10::Layout::Strided);
  if (constant.kind == "memory_format") {
    using c10::MemoryFormat;
    if (constant.name == "contiguous_format") return static_cast<int64_t>(MemoryFormat::Contiguous);
    if (constant.name == "preserve_format") return static_cast<int64_t>(MemoryFormat::Preserve);
    if (constant.name == "channels_last") return static_cast<int64_t>(MemoryFormat::ChannelsLast);
    if (constant.name == "channels_last_3d") return static_cast<int64_t>(MemoryFormat::ChannelsLast3d);
  }
  throw PlanError(formatted("the torch adapter does not know {}(\"{}\")", constant.kind, constant.name));
}

/// The slots' positions in OpLaunch::inputs: argument i's first tensor is the result's i-th element.
std::vector<size_t> first_inputs(const ArgList& args) {
  std::vector<size_t> result;
  size_t count = 0;
  for (const Arg& arg : args) {
    result.push_back(count);
    if (std::holds_alternative<ValueRef>(arg.data)) ++count;
    if (const auto* list = std::get_if<ArgList>(&arg.data)) {
      count +=
          std::ranges::count_if(*list, [](const Arg& a) { return std::holds_alternative<ValueRef>(a.data); });
    }
  }
  return result;
}

const c10::Type& strip_optional(const c10::Type& type) {
  const c10::Type* result = &type;
  while (result->kind() == c10::TypeKind::OptionalType) {
    result = result->castRaw<c10::OptionalType>()->getElementType().get();
  }
  return *result;
}

}  // namespace

c10::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::kBool:
      return c10::ScalarType::Bool;
    case DType::kUInt8:
      return c10::ScalarType::Byte;
    case DType::kInt8:
      return c10::ScalarType::Char;
    case DType::kInt16:
      return c10::ScalarType::Short;
    case DType::kInt32:
      return c10::ScalarType::Int;
    case DType::kInt64:
      return c10::ScalarType::Long;
    case DType::kFloat16:
      return c10::ScalarType::Half;
    case DType::kBFloat16:
      return c10::ScalarType::BFloat16;
    case DType::kFloat32:
      return c10::ScalarType::Float;
    case DType::kFloat64:
      return c10::ScalarType::Double;
    case DType::kComplex64:
      return c10::ScalarType::ComplexFloat;
    case DType::kComplex128:
      return c10::ScalarType::ComplexDouble;
  }
  throw InternalError("unknown dtype");
}

c10::IValue bind_value(const BoundValue& value, const std::vector<int64_t>& registers) {
  const auto at = [&](size_t i) { return registers[static_cast<size_t>(value.registers[i])]; };
  switch (value.kind) {
    case BoundValue::Kind::kInt:
      return at(0);
    case BoundValue::Kind::kFloat:
      return static_cast<double>(at(0));
    case BoundValue::Kind::kTensor:
      return wrapped_number(at(0));
    case BoundValue::Kind::kIntList: {
      c10::List<int64_t> list;
      for (size_t i = 0; i < value.registers.size(); ++i) list.push_back(at(i));
      return list;
    }
    case BoundValue::Kind::kFloatList: {
      c10::List<double> list;
      for (size_t i = 0; i < value.registers.size(); ++i) list.push_back(static_cast<double>(at(i)));
      return list;
    }
  }
  throw InternalError("unknown kind of bound value");
}

Source CallBuilder::bind(BoundValue::Kind kind, const Context& context, const std::vector<SizeExpr>& sizes) {
  BoundValue value{kind, {}};
  for (const SizeExpr& size : sizes) {
    value.registers.push_back(binder_.reg(
        on_parts(*plan_.graph, size, context.run.first_part, context.run.last_part, plan_.cut.parts)));
  }
  bound_.push_back(std::move(value));
  return {Source::Kind::kBound, static_cast<int32_t>(bound_.size()) - 1};
}

/// The number has the dtype that the kernel would convert it to in every run, where that is float32. (Kernels
/// of 16-bit types read the number itself, at a higher precision.)
std::optional<c10::ScalarType> CallBuilder::number_dtype(const Op& op) const {
  const auto is_float = [this](ValueId value) {
    return plan_.graph->values.at(static_cast<size_t>(value)).meta->dtype == DType::kFloat32;
  };
  const std::vector<ValueId> inputs = op_inputs(op);
  // A comparison's result says nothing about the type that it compares in.
  const bool compares =
      !op.outputs.empty() && !inputs.empty() &&
      plan_.graph->values.at(static_cast<size_t>(op.outputs[0])).meta->dtype == DType::kBool;
  const bool found = compares ? is_float(inputs[0]) : !op.outputs.empty() && is_float(op.outputs[0]);
  return found ? std::optional(c10::ScalarType::Float) : std::nullopt;
}

Source CallBuilder::convert_number(Context& context, c10::TypeKind kind, const Arg& actual) {
  const bool as_tensor = kind == c10::TypeKind::TensorType;
  const bool as_float = kind == c10::TypeKind::FloatType;
  const auto dtype = number_dtype(context.op);
  if (const auto* flag = std::get_if<bool>(&actual.data)) {
    return context.constant(as_tensor ? c10::IValue(wrapped_number(*flag)) : c10::IValue(*flag));
  }
  if (const auto* real = std::get_if<double>(&actual.data)) {
    return context.constant(as_tensor ? c10::IValue(wrapped_number(*real, dtype)) : c10::IValue(*real));
  }
  const SizeExpr& size = std::get<SizeExpr>(actual.data);
  const auto integer = size.constant();
  if (!integer) {
    return bind(as_tensor  ? BoundValue::Kind::kTensor
                : as_float ? BoundValue::Kind::kFloat
                           : BoundValue::Kind::kInt,
                context, {size});
  }
  if (as_tensor) return context.constant(wrapped_number(*integer, dtype));
  if (as_float) return context.constant(static_cast<double>(*integer));
  if (kind == c10::TypeKind::BoolType) return context.constant(*integer != 0);
  return context.constant(*integer);
}

Source CallBuilder::tensor_list(Context& context, bool optional, const ArgList& items, size_t first_input) {
  std::vector<SlotId> slots;
  for (const Arg& item : items) {
    const bool tensor = std::holds_alternative<ValueRef>(item.data);
    slots.push_back(tensor ? context.launch.inputs.at(first_input++) : kNoId);
  }
  context.call.lists.push_back(std::move(slots));
  return {optional ? Source::Kind::kOptionalTensorList : Source::Kind::kTensorList,
          static_cast<int32_t>(context.call.lists.size()) - 1};
}

Source CallBuilder::convert_sizes(Context& context, const c10::Argument& formal, bool real,
                                  const ArgList& items) {
  std::vector<SizeExpr> sizes;
  c10::List<double> reals;
  c10::List<int64_t> integers;
  bool constant = true;
  for (const Arg& item : items) {
    if (const auto* value = std::get_if<double>(&item.data); value && real) {
      reals.push_back(*value);
      continue;
    }
    const auto* size = std::get_if<SizeExpr>(&item.data);
    if (!size) context.fail(formal, "was given a list element that is not a number");
    sizes.push_back(*size);
    constant = constant && size->constant();
    if (size->constant()) {
      integers.push_back(*size->constant());
      reals.push_back(static_cast<double>(*size->constant()));
    }
  }
  if (constant) return context.constant(real ? c10::IValue(reals) : c10::IValue(integers));
  if (sizes.size() != items.size()) context.fail(formal, "mixes floats with dynamic sizes");
  return bind(real ? BoundValue::Kind::kFloatList : BoundValue::Kind::kIntList, context, sizes);
}

Source CallBuilder::convert_list(Context& context, const c10::Argument& formal, const c10::Type& element,
                                 const ArgList& items, size_t first_input) {
  switch (strip_optional(element).kind()) {
    case c10::TypeKind::TensorType:
      return tensor_list(context, element.kind() == c10::TypeKind::OptionalType, items, first_input);
    case c10::TypeKind::IntType:
    case c10::TypeKind::SymIntType:
      return convert_sizes(context, formal, false, items);
    case c10::TypeKind::FloatType:
      return convert_sizes(context, formal, true, items);
    case c10::TypeKind::BoolType: {
      c10::List<bool> flags;
      for (const Arg& item : items) flags.push_back(std::get<bool>(item.data));
      return context.constant(flags);
    }
    case c10::TypeKind::StringType: {
      c10::List<std::string> strings;
      for (const Arg& item : items) strings.push_back(std::get<std::string>(item.data));
      return context.constant(strings);
    }
    default:
      context.fail(formal, "is a list that the torch adapter cannot pass");
  }
}

Source CallBuilder::convert(Context& context, const c10::Argument& formal, const Arg& actual,
                            size_t first_input) {
  const c10::Type& type = strip_optional(*formal.type());
  if (std::holds_alternative<std::monostate>(actual.data)) return context.constant(c10::IValue());
  if (const auto* constant = std::get_if<NamedConstant>(&actual.data)) {
    return context.constant(named_constant(*constant));
  }
  if (type.kind() == c10::TypeKind::ListType) {
    const c10::Type& element = *type.castRaw<c10::ListType>()->getElementType();
    if (const auto* list = std::get_if<ArgList>(&actual.data)) {
      return convert_list(context, formal, element, *list, first_input);
    }
    // `int[2] stride=1`: one value stands for all.
    const ArgList repeated(static_cast<size_t>(formal.N().value_or(1)), actual);
    return convert_list(context, formal, element, repeated, first_input);
  }
  if (std::holds_alternative<ArgList>(actual.data)) context.fail(formal, "was given a list");
  if (std::holds_alternative<ValueRef>(actual.data)) {
    if (type.kind() != c10::TypeKind::TensorType) context.fail(formal, "was given a tensor");
    return {Source::Kind::kSlot, context.launch.inputs.at(first_input)};
  }
  if (const auto* string = std::get_if<std::string>(&actual.data)) return context.constant(*string);
  return convert_number(context, type.kind(), actual);
}

Call CallBuilder::build_compiled(const Op& op, const OpLaunch& launch) const {
  const auto found = compiled_.find(op.target);
  if (found == compiled_.end() || !is_told(launch.delivery))
    throw PlanError(formatted("op '{}': the kernel {} was not compiled", op.name, op.target));
  Call call{std::nullopt, found->second, {}, {}, {}};
  for (const std::vector<SlotId>* slots : {&launch.inputs, &launch.outputs})
    for (const SlotId slot : *slots) call.sources.push_back({Source::Kind::kSlot, slot});
  return call;
}

Call CallBuilder::build(const Run& run, const OpLaunch& launch, bool out) {
  const Op& op = plan_.op(launch.op);
  if (is_compiled(op)) return build_compiled(op, launch);
  const c10::OperatorHandle target = find_operator(op, op.target);
  Call call{out ? find_operator(op, op.out_target) : target, nullptr, {}, {}, {}};
  Context context{run, launch, op, call};
  const auto& named = target.schema().arguments();
  if (op.args.size() != named.size()) {
    throw PlanError(formatted("op '{}' has {} arguments where {} takes {}", op.name, op.args.size(),
                              op.target, named.size()));
  }
  const std::vector<size_t> inputs = first_inputs(op.args);
  size_t next_output = 0;
  for (const c10::Argument& formal : call.handle->schema().arguments()) {
    if (out && formal.is_out()) {
      const SlotId slot = next_output < launch.outputs.size() ? launch.outputs[next_output] : kNoId;
      if (slot == kNoId) context.fail(formal, "has no slot to write to");
      call.sources.push_back({Source::Kind::kSlot, slot});
      ++next_output;
      continue;
    }
    const auto match = std::ranges::find(named, formal.name(), &c10::Argument::name);
    if (match != named.end()) {
      const auto i = static_cast<size_t>(match - named.begin());
      call.sources.push_back(convert(context, formal, op.args[i], inputs[i]));
    } else if (formal.default_value()) {
      call.sources.push_back(context.constant(*formal.default_value()));
    } else {
      context.fail(formal, "of the out= overload is not among the op's own");
    }
  }
  return call;
}

}  // namespace dynaflow
