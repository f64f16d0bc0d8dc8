// The key of a draw as it lies in a tensor.
#pragma once

#include "noise.h"
#include "operator.h"

namespace fastvae {

// `state` is [seed, step]; `first` the global index of element 0.
inline Noise noise_of_key(const Tensor& state, int64_t first, int64_t stream) {
  STD_TORCH_CHECK(state.is_cpu() && state.is_contiguous() && state.numel() == 2 &&
                      state.scalar_type() == ScalarType::Long,
                  "expected a state [seed, step] in int64 on the CPU");
  const auto* words = static_cast<const int64_t*>(state.data_ptr());
  const auto seed = static_cast<uint64_t>(words[0]);
  return {false,
          {},
          {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
          static_cast<uint32_t>(words[1]),
          static_cast<uint32_t>(stream),
          static_cast<uint64_t>(first)};
}

}  // namespace fastvae
