// Discretised logistic likelihood of 8-bit pixels: loss and both gradients in one pass.
#include "logistic.h"
#include "pixel.h"

namespace fastvae::FASTVAE_ISA {
namespace {

struct Terms {
  template <typename A>
  FASTVAE_INLINE void terms(A mean, A log_scale, A x, A& loss, A& mean_slope, A& log_scale_slope) {
    A log_prob, d_mean, d_log_scale;
    logistic_bin(mean, log_scale, x, log_prob, d_mean, d_log_scale);
    loss = -log_prob;
    mean_slope = -d_mean;
    log_scale_slope = -d_log_scale;
  }
};

}  // namespace
}  // namespace fastvae::FASTVAE_ISA

FASTVAE_PIXEL_KERNEL(discretized_logistic_nll)

#ifdef FASTVAE_REGISTER
#include "pixel_operator.h"

namespace fastvae {
namespace {

Likelihood likelihood() { return {FASTVAE_CHOSEN(isa(), discretized_logistic_nll), 8192}; }

std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& mean, const Tensor& log_scale, const Tensor& target,
                                           int64_t reduction, double weight,
                                           const std::optional<Tensor>& weight_tensor, bool with_grad) {
  return pair_forward(likelihood(), mean, log_scale, target, reduction, weight, weight_tensor, with_grad);
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& mean, const Tensor& log_scale,
                                    const Tensor& target, int64_t reduction, double weight,
                                    const std::optional<Tensor>& weight_tensor) {
  return pair_backward(likelihood(), grad_output, mean, log_scale, target, reduction, weight, weight_tensor);
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("discretized_logistic_nll", TORCH_BOX(&fastvae::forward));
  m.impl("discretized_logistic_nll_backward", TORCH_BOX(&fastvae::backward));
}
#endif
