// Shared by the entry points of the latent operators: their inputs, and the grain that suits a noise draw.
#pragma once

#include "latent.h"
#include "noise_operator.h"
#include "operator.h"

namespace fastvae {

constexpr int64_t kGrain = 8192;

// The inputs of a pass over (B, D). A pass that does not read mu is given logvar for it.
inline Latent latent(const Tensor& mu, const Tensor& logvar, Clamp clamp, const Noise& noise) {
  STD_TORCH_CHECK(mu.scalar_type() == logvar.scalar_type(), "expected mu and logvar of one dtype");
  Latent op{};
  op.mu = source(mu, mu);
  op.logvar = source(logvar, mu);
  op.clamp = clamp;
  op.noise = noise;
  return op;
}

}  // namespace fastvae
