// Laplace likelihood with one fixed scale: loss and gradient in one pass.
#include "pixel.h"

namespace fastvae::FASTVAE_ISA {
namespace {

// The absolute error; the scale and the constant are applied to sums and to factors.
struct Terms {
  template <typename A>
  FASTVAE_INLINE void terms(A location, A x, A& loss, A& slope) {
    const A error = location - x;
    loss = error < 0 ? -error : error;
    slope = error > 0 ? A(1) : error < 0 ? A(-1) : error;  // 0 at 0; a NaN stays
  }
};

}  // namespace
}  // namespace fastvae::FASTVAE_ISA

FASTVAE_PIXEL_KERNEL(laplace_nll)

#ifdef FASTVAE_REGISTER
#include <cmath>

#include "pixel_operator.h"

namespace fastvae {
namespace {

Likelihood likelihood(double scale, bool full) {
  return {FASTVAE_CHOSEN(isa(), laplace_nll), 32768, 1.0 / scale, scale, full ? std::log(2.0 * scale) : 0.0};
}

std::tuple<Tensor, Tensor> forward(const Tensor& location, const Tensor& target, double scale, bool full,
                                   int64_t reduction, double weight, const std::optional<Tensor>& weight_tensor,
                                   bool with_grad) {
  return pixel_forward(likelihood(scale, full), pixels(location, target), location, reduction, weight, weight_tensor,
                       with_grad);
}

Tensor backward(const Tensor& grad_output, const Tensor& location, const Tensor& target, double scale, bool full,
                int64_t reduction, double weight, const std::optional<Tensor>& weight_tensor) {
  return pixel_backward(likelihood(scale, full), pixels(location, target), grad_output, location, reduction, weight,
                        weight_tensor);
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("laplace_nll", TORCH_BOX(&fastvae::forward));
  m.impl("laplace_nll_backward", TORCH_BOX(&fastvae::backward));
}
#endif
