// The latent terms share their inputs, their noise and one exponential: reparameterize, gaussian_kl and both in one.
#pragma once

#include "block.h"
#include "noise.h"

namespace fastvae {

// Bounds of logvar: -inf and inf if there are none.
struct Clamp {
  double low, high;

  bool active() const { return low > -__builtin_inf() || high < __builtin_inf(); }
};

struct Latent {
  Source mu, logvar;  // same event
  Clamp clamp;
  Noise noise;
  Source grad_z;
  Sink z, grad_mu, grad_logvar;
};

}  // namespace fastvae

namespace fastvae::FASTVAE_ISA {
namespace {

// 0.5 * (mu^2 + expm1(logvar) - logvar) from expm1 and excess of half = logvar / 2. With expm1(2 half) =
// expm1(half) * (expm1(half) + 2), the terms that cancel near 0 cancel on paper. (Scalars, not the struct: a struct
// that is passed on keeps GCC from vectorising the loop, which cost a factor of 8: 8192 x 256, AVX-512, Zen 4.)
template <typename A>
FASTVAE_INLINE A kl_of(A mu, A expm1, A excess) {
  return A(0.5) * fma(mu, mu, fma(expm1, expm1, 2 * excess));
}

// The clamp is two separate loops over a block in L1, not a part of the kernels' loops: it costs nothing if unused.
// Comparisons are written so that a NaN stays.
template <typename A>
[[gnu::noinline]] static const A* clamped(const Clamp& clamp, const A* __restrict logvar, int count,
                                          A* __restrict buffer) {
  const A low = static_cast<A>(clamp.low), high = static_cast<A>(clamp.high);
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const A raised = low > logvar[i] ? low : logvar[i];
    buffer[i] = high < raised ? high : raised;
  }
  return buffer;
}

// No gradient outside the bounds. On them there is one, and that of a NaN stays NaN.
template <typename A>
[[gnu::noinline]] static void mask(const A* __restrict logvar, const A* __restrict clamped, int count,
                                   A* __restrict grad) {
#pragma omp simd
  for (int i = 0; i < count; ++i) grad[i] = logvar[i] < clamped[i] || logvar[i] > clamped[i] ? A(0) : grad[i];
}

// Over elements [begin, end): z if kSample; the return value is the sum of the KL if kKl.
template <typename A, bool kSample, bool kKl>
double latent_forward(const Latent& op, int64_t begin, int64_t end) {
  alignas(64) A mu_buffer[kBlock], logvar_buffer[kBlock], clamp_buffer[kBlock], z_buffer[kBlock];
  Draw<A> draw;
  const bool clamps = op.clamp.active();
  double total = 0.0;
  for_blocks(begin, end, [&](int64_t at, int count) {
    const A* __restrict mu = load(op.mu, at, count, mu_buffer);
    const A* raw = load(op.logvar, at, count, logvar_buffer);
    const A* __restrict logvar = clamps ? clamped(op.clamp, raw, count, clamp_buffer) : raw;
    const A* __restrict eps = kSample ? draw(op.noise, at, count) : nullptr;
    A* __restrict z = kSample ? place(op.z, at, z_buffer) : z_buffer;
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; ++i) {
      const Exponential<A> h = exponential(A(0.5) * logvar[i]);
      if constexpr (kSample) z[i] = fma(h.exp, eps[i], mu[i]);
      if constexpr (kKl) sum += kl_of(mu[i], h.expm1, h.excess);
    }
    if constexpr (kSample) store(op.z, at, count, z);
    total += static_cast<double>(sum);
  });
  return total;
}

// Over elements [begin, end): the gradients. kSample adds those of grad_z (with no KL, grad_mu is grad_z: not
// written), kKl those of the KL times `weight`; the return value is the sum of the KL if kValue.
template <typename A, bool kSample, bool kKl, bool kValue>
double latent_backward(const Latent& op, int64_t begin, int64_t end, A weight) {
  alignas(64) A mu_buffer[kBlock], logvar_buffer[kBlock], grad_z_buffer[kBlock];
  alignas(64) A clamp_buffer[kBlock], grad_mu_buffer[kBlock], grad_logvar_buffer[kBlock];
  Draw<A> draw;
  const bool clamps = op.clamp.active();
  double total = 0.0;
  for_blocks(begin, end, [&](int64_t at, int count) {
    const A* __restrict mu = kKl ? load(op.mu, at, count, mu_buffer) : nullptr;
    const A* raw = load(op.logvar, at, count, logvar_buffer);
    const A* __restrict logvar = clamps ? clamped(op.clamp, raw, count, clamp_buffer) : raw;
    const A* __restrict grad_z = kSample ? load(op.grad_z, at, count, grad_z_buffer) : nullptr;
    const A* __restrict eps = kSample ? draw(op.noise, at, count) : nullptr;
    A* __restrict grad_mu = kKl ? place(op.grad_mu, at, grad_mu_buffer) : nullptr;
    A* __restrict grad_logvar = place(op.grad_logvar, at, grad_logvar_buffer);
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; ++i) {
      const Exponential<A> h = exponential(A(0.5) * logvar[i]);
      A of_mu = 0, of_logvar = 0;
      if constexpr (kSample) {
        of_mu = grad_z[i];
        of_logvar = h.exp * eps[i] * grad_z[i];
      }
      if constexpr (kKl) {
        of_mu = fma(weight, mu[i], of_mu);
        of_logvar = fma(weight, h.expm1 * (h.expm1 + 2), of_logvar);
        grad_mu[i] = of_mu;
      }
      grad_logvar[i] = A(0.5) * of_logvar;
      if constexpr (kValue) sum += kl_of(mu[i], h.expm1, h.excess);
    }
    if constexpr (kKl) store(op.grad_mu, at, count, grad_mu);
    if (clamps) mask(raw, logvar, count, grad_logvar);
    store(op.grad_logvar, at, count, grad_logvar);
    total += static_cast<double>(sum);
  });
  return total;
}

}  // namespace
}  // namespace fastvae::FASTVAE_ISA
