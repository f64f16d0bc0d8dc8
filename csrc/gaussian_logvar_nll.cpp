// Gaussian likelihood with a log-variance for each pixel: loss and both gradients in one pass.
#include "pixel.h"

namespace fastvae::FASTVAE_ISA {
namespace {

// Twice the loss, and the slopes of the loss; the half and the constant are applied to sums.
struct Terms {
  template <typename A>
  FASTVAE_INLINE void terms(A mean, A logvar, A x, A& loss, A& mean_slope, A& logvar_slope) {
    const A precision = exp(A(-0.5) * logvar);  // of the deviation: that of the variance overflows sooner
    const A error = (mean - x) * precision, square = error * error;
    loss = square + logvar;
    mean_slope = error * precision;
    logvar_slope = fma(A(-0.5), square, A(0.5));
  }
};

}  // namespace
}  // namespace fastvae::FASTVAE_ISA

FASTVAE_PIXEL_KERNEL(gaussian_logvar_nll)

#ifdef FASTVAE_REGISTER
#include <cmath>
#include <numbers>

#include "pixel_operator.h"

namespace fastvae {
namespace {

Likelihood likelihood(bool full) {
  const double constant = full ? 0.5 * std::log(2.0 * std::numbers::pi) : 0.0;
  return {FASTVAE_CHOSEN(isa(), gaussian_logvar_nll), 16384, 0.5, 1.0, constant};
}

std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& mean, const Tensor& logvar, const Tensor& target, bool full,
                                           int64_t reduction, double weight,
                                           const std::optional<Tensor>& weight_tensor, bool with_grad) {
  return pair_forward(likelihood(full), mean, logvar, target, reduction, weight, weight_tensor, with_grad);
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& mean, const Tensor& logvar,
                                    const Tensor& target, bool full, int64_t reduction, double weight,
                                    const std::optional<Tensor>& weight_tensor) {
  return pair_backward(likelihood(full), grad_output, mean, logvar, target, reduction, weight, weight_tensor);
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("gaussian_logvar_nll", TORCH_BOX(&fastvae::forward));
  m.impl("gaussian_logvar_nll_backward", TORCH_BOX(&fastvae::backward));
}
#endif
