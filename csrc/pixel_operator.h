// The entry points of the pixel likelihoods.
#pragma once

#include "operator.h"
#include "pixel.h"

namespace fastvae {

// A likelihood's kernel for this machine. The loss of an element is loss_scale * terms + constant, and its slopes are
// those of the terms divided by `divisor`.
struct Likelihood {
  double (*kernel)(const Pixels& op, int64_t begin, int64_t end, Want want, double scale);
  int64_t grain;  // elements a thread, at least
  double loss_scale = 1.0, divisor = 1.0, constant = 0.0;
};

inline Pixels pixels(const Tensor& prediction, const Tensor& target) {
  Pixels op{};
  op.prediction = source(prediction, prediction);
  op.target = source(target, prediction);
  return op;
}

inline Pixels pixels(const Tensor& prediction, const Tensor& second, const Tensor& target) {
  STD_TORCH_CHECK(second.scalar_type() == prediction.scalar_type(), "expected both predictions of one dtype");
  Pixels op = pixels(prediction, target);
  op.second = source(second, prediction);
  return op;
}

inline Tensor pixel_loss(const Likelihood& likelihood, const Reduce& reduce, ScalarType dtype, const Pixels& op,
                         Want want) {
  const double scale = reduce.factor() / likelihood.divisor;
  return reduce.sum(
      dtype, likelihood.grain, likelihood.loss_scale, likelihood.constant,
      [&](int64_t begin, int64_t end) { return likelihood.kernel(op, begin, end, want, scale); });
}

inline void pixel_gradients(const Likelihood& likelihood, const Reduce& reduce, const Tensor& grad_output,
                            const Pixels& op) {
  const Factors factors(reduce, grad_output);
  reduce.for_chunks(likelihood.grain, [&](int64_t begin, int64_t end, int64_t span, int64_t) {
    likelihood.kernel(op, begin, end, Want::grad, factors[span] / likelihood.divisor);
  });
}

inline Want wanted(bool with_grad, int64_t reduction) {
  return with_grad && reduction != kNone ? Want::both : Want::loss;
}

// One prediction a pixel.
inline std::tuple<Tensor, Tensor> pixel_forward(const Likelihood& likelihood, Pixels op, const Tensor& prediction,
                                                int64_t reduction, double weight,
                                                const std::optional<Tensor>& weight_tensor, bool with_grad) {
  const Reduce reduce(prediction, reduction, weight, weight_tensor);
  const Want want = wanted(with_grad, reduction);
  const Tensor grad = dense_like(prediction, want == Want::both);
  op.grad = sink(grad);
  return {pixel_loss(likelihood, reduce, prediction.scalar_type(), op, want), grad};
}

inline Tensor pixel_backward(const Likelihood& likelihood, Pixels op, const Tensor& grad_output,
                             const Tensor& prediction, int64_t reduction, double weight,
                             const std::optional<Tensor>& weight_tensor) {
  const Tensor grad = dense_like(prediction);
  op.grad = sink(grad);
  pixel_gradients(likelihood, {prediction, reduction, weight, weight_tensor}, grad_output, op);
  return grad;
}

// Two predictions a pixel.
inline std::tuple<Tensor, Tensor, Tensor> pair_forward(const Likelihood& likelihood, const Tensor& first,
                                                       const Tensor& second, const Tensor& target, int64_t reduction,
                                                       double weight, const std::optional<Tensor>& weight_tensor,
                                                       bool with_grad) {
  Pixels op = pixels(first, second, target);
  const Reduce reduce(first, reduction, weight, weight_tensor);
  const Want want = wanted(with_grad, reduction);
  const Tensor grad = dense_like(first, want == Want::both), second_grad = dense_like(first, want == Want::both);
  op.grad = sink(grad);
  op.second_grad = sink(second_grad);
  return {pixel_loss(likelihood, reduce, first.scalar_type(), op, want), grad, second_grad};
}

inline std::tuple<Tensor, Tensor> pair_backward(const Likelihood& likelihood, const Tensor& grad_output,
                                                const Tensor& first, const Tensor& second, const Tensor& target,
                                                int64_t reduction, double weight,
                                                const std::optional<Tensor>& weight_tensor) {
  Pixels op = pixels(first, second, target);
  const Tensor grad = dense_like(first), second_grad = dense_like(first);
  op.grad = sink(grad);
  op.second_grad = sink(second_grad);
  pixel_gradients(likelihood, {first, reduction, weight, weight_tensor}, grad_output, op);
  return {grad, second_grad};
}

}  // namespace fastvae
