// The loop of every pixel likelihood: loss and gradient in one pass over a prediction and its target.
//
// A likelihood is its terms: a struct with `terms(prediction, x, loss, slope)`, which sets the loss of one element and
// its derivative in the prediction, in float or double; where one is not asked for, the compiler leaves it out. (Two
// references, not a struct: see kl_of in latent.h.)
#pragma once

#include "block.h"

namespace fastvae {

struct Pixels {
  Source prediction, target;
  Sink grad;
};

}  // namespace fastvae

// Declare and define a likelihood's kernel, after its struct Terms in namespace fastvae::FASTVAE_ISA. Over elements
// [begin, end): the sum of the loss, and scale * slope into grad.
#define FASTVAE_PIXEL_KERNEL(name)                                                                                \
  FASTVAE_KERNEL(double, name, const fastvae::Pixels& op, int64_t begin, int64_t end, fastvae::Want want,         \
                 double scale)                                                                                    \
  double fastvae::FASTVAE_ISA::name(const Pixels& op, int64_t begin, int64_t end, Want want, double scale) {      \
    return pixels<Terms>(op, begin, end, want, scale);                                                            \
  }

namespace fastvae::FASTVAE_ISA {
namespace {

template <typename Terms, typename A, bool kLoss, bool kGrad>
double pixels(const Pixels& op, int64_t begin, int64_t end, A scale) {
  alignas(64) A p_buffer[kBlock], x_buffer[kBlock], g_buffer[kBlock];
  double total = 0.0;
  for_blocks(begin, end, [&](int64_t at, int count) {
    const A* __restrict prediction = load(op.prediction, at, count, p_buffer);
    const A* __restrict target = load(op.target, at, count, x_buffer);
    A* __restrict grad = kGrad ? place(op.grad, at, g_buffer) : g_buffer;
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; ++i) {
      A loss, slope;
      Terms::terms(prediction[i], target[i], loss, slope);
      if constexpr (kLoss) sum += loss;
      if constexpr (kGrad) grad[i] = scale * slope;
    }
    if constexpr (kGrad) store(op.grad, at, count, grad);
    total += static_cast<double>(sum);
  });
  return total;
}

template <typename Terms, typename A>
double pixels(const Pixels& op, int64_t begin, int64_t end, Want want, double scale) {
  const A factor = static_cast<A>(scale);
  if (want == Want::loss) return pixels<Terms, A, true, false>(op, begin, end, factor);
  if (want == Want::grad) return pixels<Terms, A, false, true>(op, begin, end, factor);
  return pixels<Terms, A, true, true>(op, begin, end, factor);
}

template <typename Terms>
double pixels(const Pixels& op, int64_t begin, int64_t end, Want want, double scale) {
  return op.prediction.dtype == Dtype::f64 ? pixels<Terms, double>(op, begin, end, want, scale)
                                           : pixels<Terms, float>(op, begin, end, want, scale);
}

}  // namespace
}  // namespace fastvae::FASTVAE_ISA
