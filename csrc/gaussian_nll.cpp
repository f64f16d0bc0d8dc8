// Gaussian likelihood with one fixed variance: loss and gradient in one pass.
#include "pixel.h"

namespace fastvae::FASTVAE_ISA {
namespace {

// The squared error and half its slope; the variance and the constant are applied to sums and to factors.
struct Terms {
  template <typename A>
  FASTVAE_INLINE void terms(A mean, A x, A& loss, A& slope) {
    const A error = mean - x;
    loss = error * error;
    slope = error;
  }
};

}  // namespace
}  // namespace fastvae::FASTVAE_ISA

FASTVAE_PIXEL_KERNEL(gaussian_nll)

#ifdef FASTVAE_REGISTER
#include <cmath>
#include <numbers>

#include "pixel_operator.h"

namespace fastvae {
namespace {

Likelihood likelihood(double variance, bool full) {
  const double constant = full ? 0.5 * std::log(2.0 * std::numbers::pi * variance) : 0.0;
  return {FASTVAE_CHOSEN(isa(), gaussian_nll), 32768, 0.5 / variance, variance, constant};
}

std::tuple<Tensor, Tensor> forward(const Tensor& mean, const Tensor& target, double variance, bool full,
                                   int64_t reduction, double weight, const std::optional<Tensor>& weight_tensor,
                                   bool with_grad) {
  return pixel_forward(likelihood(variance, full), pixels(mean, target), mean, reduction, weight, weight_tensor,
                       with_grad);
}

Tensor backward(const Tensor& grad_output, const Tensor& mean, const Tensor& target, double variance, bool full,
                int64_t reduction, double weight, const std::optional<Tensor>& weight_tensor) {
  return pixel_backward(likelihood(variance, full), pixels(mean, target), grad_output, mean, reduction, weight,
                        weight_tensor);
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("gaussian_nll", TORCH_BOX(&fastvae::forward));
  m.impl("gaussian_nll_backward", TORCH_BOX(&fastvae::backward));
}
#endif
