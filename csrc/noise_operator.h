// Noise as a schema passes it (eps, state, row_offset, stream), made into the one record that kernels read.
#pragma once

#include "noise.h"
#include "operator.h"

namespace fastvae {

// The noise of a tensor (B, ...) shaped as `like`: `eps`, or where that is absent a draw by the key `state`, which is
// [seed, step]. `row_offset` is the place of row 0 in the global batch.
inline Noise make_noise(const Tensor& like, const std::optional<Tensor>& eps, const std::optional<Tensor>& state,
                        int64_t row_offset, int64_t stream) {
  Noise noise{};
  if (eps) {
    STD_TORCH_CHECK(eps->is_contiguous() && eps->scalar_type() == like.scalar_type(), "expected eps like mu, dense");
    noise.explicit_eps = true;
    noise.eps = source(*eps, like);
    return noise;
  }
  STD_TORCH_CHECK(state, "expected eps or a state [seed, step]");
  STD_TORCH_CHECK(state->is_cpu() && state->is_contiguous() && state->numel() == 2 &&
                      state->scalar_type() == ScalarType::Long,
                  "expected a state [seed, step] in int64 on the CPU");
  const auto* words = static_cast<const int64_t*>(state->data_ptr());
  const auto seed = static_cast<uint64_t>(words[0]);
  noise.key[0] = static_cast<uint32_t>(seed);
  noise.key[1] = static_cast<uint32_t>(seed >> 32);
  noise.step = static_cast<uint32_t>(words[1]);
  noise.stream = static_cast<uint32_t>(stream);
  noise.first = static_cast<uint64_t>(row_offset * event_of(like));
  return noise;
}

}  // namespace fastvae
