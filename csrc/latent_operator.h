// The entry points of the latent operators: their noise arguments, and the grains that suit a noise draw.
#pragma once

#include "latent.h"
#include "operator.h"

namespace fastvae {

constexpr int64_t kGrain = 8192;

inline Noise noise(const Tensor& like, const std::optional<Tensor>& eps, const std::optional<Tensor>& state,
                   int64_t row_offset, int64_t stream) {
  if (eps) {
    STD_TORCH_CHECK(eps->is_contiguous() && eps->scalar_type() == like.scalar_type(), "expected eps like mu, dense");
    return {true, source(*eps, like), {0, 0}, 0, 0, 0};
  }
  STD_TORCH_CHECK(state && state->is_cpu() && state->is_contiguous() && state->numel() == 2 &&
                      state->scalar_type() == ScalarType::Long,
                  "expected eps or a state [seed, step]");
  const auto* words = static_cast<const int64_t*>(state->data_ptr());
  const auto seed = static_cast<uint64_t>(words[0]);
  return {false,
          {},
          {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)},
          static_cast<uint32_t>(words[1]),
          static_cast<uint32_t>(stream),
          static_cast<uint64_t>(row_offset) * static_cast<uint64_t>(event_of(like))};
}

}  // namespace fastvae
