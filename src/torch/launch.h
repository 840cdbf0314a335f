#pragma once
#include <c10/core/DispatchKeySet.h>

namespace dynaflow {

/// Capture has lowered autograd and autocast already: kernels are called below them.
constexpr c10::DispatchKeySet kLowered =
    c10::autograd_dispatch_keyset_with_ADInplaceOrView | c10::autocast_dispatch_keyset;

}  // namespace dynaflow
