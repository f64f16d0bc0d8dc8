// The entry points of the pixel likelihoods.
#pragma once

#include "operator.h"
#include "pixel.h"

namespace fastvae {

// A likelihood's kernel for this machine, and the loss in its terms: loss_scale * terms + constant an element, of
// which the slope is that of the terms over `divisor`.
struct Likelihood {
  double (*kernel)(const Pixels& op, int64_t begin, int64_t end, Want want, double scale);
  int64_t grain;  // elements a thread, at least
  double loss_scale = 1.0, divisor = 1.0, constant = 0.0;
};

inline std::tuple<Tensor, Tensor> pixel_forward(const Likelihood& likelihood, const Tensor& prediction,
                                                const Tensor& target, int64_t reduction, double weight,
                                                const std::optional<Tensor>& weight_tensor, bool with_grad) {
  const Reduce reduce(prediction, reduction, weight, weight_tensor);
  const Want want = with_grad && reduction != kNone ? Want::both : Want::loss;
  const Tensor grad = dense_like(prediction, want == Want::both);
  const Pixels op{source(prediction, prediction), source(target, prediction), sink(grad)};
  const double scale = reduce.factor() / likelihood.divisor;
  const Tensor loss =
      reduce.sum(prediction.scalar_type(), likelihood.grain, likelihood.loss_scale, likelihood.constant,
                 [&](int64_t begin, int64_t end) { return likelihood.kernel(op, begin, end, want, scale); });
  return {loss, grad};
}

inline Tensor pixel_backward(const Likelihood& likelihood, const Tensor& grad_output, const Tensor& prediction,
                             const Tensor& target, int64_t reduction, double weight,
                             const std::optional<Tensor>& weight_tensor) {
  const Reduce reduce(prediction, reduction, weight, weight_tensor);
  const Factors factors(reduce, grad_output);
  const Tensor grad = dense_like(prediction);
  const Pixels op{source(prediction, prediction), source(target, prediction), sink(grad)};
  reduce.for_chunks(likelihood.grain, [&](int64_t begin, int64_t end, int64_t span, int64_t) {
    likelihood.kernel(op, begin, end, Want::grad, factors[span] / likelihood.divisor);
  });
  return grad;
}

}  // namespace fastvae
