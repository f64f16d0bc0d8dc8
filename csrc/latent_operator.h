// The entry points of the latent operators: their noise arguments, and the grains that suit a noise draw.
#pragma once

#include "latent.h"
#include "noise_operator.h"
#include "operator.h"

namespace fastvae {

constexpr int64_t kGrain = 8192;

inline Noise noise(const Tensor& like, const std::optional<Tensor>& eps, const std::optional<Tensor>& state,
                   int64_t row_offset, int64_t stream) {
  if (eps) {
    STD_TORCH_CHECK(eps->is_contiguous() && eps->scalar_type() == like.scalar_type(), "expected eps like mu, dense");
    return {true, source(*eps, like), {0, 0}, 0, 0, 0};
  }
  STD_TORCH_CHECK(state, "expected eps or a state [seed, step]");
  return noise_of_key(*state, row_offset * event_of(like), stream);
}

}  // namespace fastvae
