// The loop of every pixel likelihood: loss and gradients in one pass over one or two predictions and a target.
//
// A likelihood is defined by its terms, in float or double. The compiler leaves out results that are not used:
//   terms(prediction, x, loss, slope)                          one prediction a pixel
//   terms(first, second, x, loss, first_slope, second_slope)   two (a mean and a scale, say)
// They set the loss of one element and its derivatives. (References, not a struct: see kl_of in latent.h.)
#pragma once

#include "block.h"
#include "noise.h"

namespace fastvae {

struct Pixels {
  Source prediction, second;  // second: only where the terms take two
  Source target;
  Sink grad, second_grad;
  bool binarize;  // draw each pixel of a uint8 target: 1 with probability x / 255
  Noise noise;    // for that
};

}  // namespace fastvae

// Declare and define a likelihood's kernel, after its struct Terms in namespace fastvae::FASTVAE_ISA. Over elements
// [begin, end): the sum of the loss, and scale * slope into each gradient.
#define FASTVAE_PIXEL_KERNEL(name)                                                                                \
  FASTVAE_KERNEL(double, name, const fastvae::Pixels& op, int64_t begin, int64_t end, fastvae::Want want,         \
                 double scale)                                                                                    \
  double fastvae::FASTVAE_ISA::name(const Pixels& op, int64_t begin, int64_t end, Want want, double scale) {      \
    return op.prediction.dtype == Dtype::f64 ? pixels<Terms, double>(op, begin, end, want, scale)                 \
                                             : pixels<Terms, float>(op, begin, end, want, scale);                 \
  }

namespace fastvae::FASTVAE_ISA {
namespace {

// Terms that take two predictions.
template <typename Terms, typename A>
concept Pair = requires(A a) { Terms::terms(a, a, a, a, a, a); };

// kBytes: a dense uint8 target, converted where it is used and not through a buffer.
template <typename Terms, typename A, bool kLoss, bool kGrad, bool kBytes>
double pixels(const Pixels& op, int64_t begin, int64_t end, A scale) {
  constexpr bool kPair = Pair<Terms, A>;
  alignas(64) A p_buffer[kBlock], x_buffer[kBlock], g_buffer[kBlock];
  alignas(64) A second_buffer[kPair ? kBlock : 1], second_g_buffer[kPair ? kBlock : 1];
  Binarized<A> binarized;
  double total = 0.0;
  for_blocks(begin, end, [&](int64_t at, int count) {
    const A* __restrict first = load(op.prediction, at, count, p_buffer);
    const A* __restrict second = kPair ? load(op.second, at, count, second_buffer) : nullptr;
    const uint8_t* __restrict bytes = kBytes ? static_cast<const uint8_t*>(op.target.data) + at : nullptr;
    const A* __restrict target = kBytes        ? nullptr
                                 : op.binarize ? binarized(op.noise, op.target, at, count)
                                               : load(op.target, at, count, x_buffer);
    A* __restrict grad = kGrad ? place(op.grad, at, g_buffer) : g_buffer;
    A* __restrict second_grad = kGrad && kPair ? place(op.second_grad, at, second_g_buffer) : second_g_buffer;
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; ++i) {
      A x, loss, slope;
      if constexpr (kBytes) x = Stored<Dtype::u8>::load(bytes[i]);
      else x = target[i];
      if constexpr (kPair) {
        A second_slope;
        Terms::terms(first[i], second[i], x, loss, slope, second_slope);
        if constexpr (kGrad) second_grad[i] = scale * second_slope;
      } else {
        Terms::terms(first[i], x, loss, slope);
      }
      if constexpr (kLoss) sum += loss;
      if constexpr (kGrad) grad[i] = scale * slope;
    }
    if constexpr (kGrad) store(op.grad, at, count, grad);
    if constexpr (kGrad && kPair) store(op.second_grad, at, count, second_grad);
    total += static_cast<double>(sum);
  });
  return total;
}

template <typename Terms, typename A, bool kLoss, bool kGrad>
double pixels(const Pixels& op, int64_t begin, int64_t end, double scale) {
  const A factor = static_cast<A>(scale);
  if constexpr (sizeof(A) == 4) {
    if (op.target.dtype == Dtype::u8 && !op.binarize) {
      return pixels<Terms, A, kLoss, kGrad, true>(op, begin, end, factor);
    }
  }
  return pixels<Terms, A, kLoss, kGrad, false>(op, begin, end, factor);
}

template <typename Terms, typename A>
double pixels(const Pixels& op, int64_t begin, int64_t end, Want want, double scale) {
  if (want == Want::loss) return pixels<Terms, A, true, false>(op, begin, end, scale);
  if (want == Want::grad) return pixels<Terms, A, false, true>(op, begin, end, scale);
  return pixels<Terms, A, true, true>(op, begin, end, scale);
}

}  // namespace
}  // namespace fastvae::FASTVAE_ISA
