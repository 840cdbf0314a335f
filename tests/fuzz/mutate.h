#pragma once
#include <random>
#include <string>
#include <string_view>

namespace dynaflow::fuzz {

/// A text near to `text` in the grammar of the text forms: lines or tokens are moved, dropped, doubled,
/// nested or replaced. Lines and tokens that come in are from `other`. A pure function of its arguments.
std::string mutate(std::string_view text, std::string_view other, std::minstd_rand& random);

}  // namespace dynaflow::fuzz
