// Gaussian likelihood with one fixed variance: loss and gradient in one pass.
#include "block.h"

namespace fastvae {

struct GaussianNll {
  Source mean, target;
  Sink grad;
};

}  // namespace fastvae

// Over elements [begin, end): the sum of squared errors, and scale * (mean - target) into grad.
FASTVAE_KERNEL(double, gaussian_nll, const GaussianNll& op, int64_t begin, int64_t end, Want want, double scale)

namespace fastvae::FASTVAE_ISA {
namespace {

template <typename A, bool kLoss, bool kGrad>
double range(const GaussianNll& op, int64_t begin, int64_t end, A scale) {
  alignas(64) A m_buffer[kBlock], x_buffer[kBlock], g_buffer[kBlock];
  double total = 0.0;
  for_blocks(begin, end, [&](int64_t at, int count) {
    const A* __restrict mean = load(op.mean, at, count, m_buffer);
    const A* __restrict target = load(op.target, at, count, x_buffer);
    A* __restrict grad = kGrad ? place(op.grad, at, g_buffer) : g_buffer;
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; ++i) {
      const A error = mean[i] - target[i];
      if constexpr (kLoss) sum += error * error;
      if constexpr (kGrad) grad[i] = scale * error;
    }
    if constexpr (kGrad) store(op.grad, at, count, grad);
    total += static_cast<double>(sum);
  });
  return total;
}

template <typename A>
double range(const GaussianNll& op, int64_t begin, int64_t end, Want want, double scale) {
  const A factor = static_cast<A>(scale);
  if (want == Want::loss) return range<A, true, false>(op, begin, end, factor);
  if (want == Want::grad) return range<A, false, true>(op, begin, end, factor);
  return range<A, true, true>(op, begin, end, factor);
}

}  // namespace

double gaussian_nll(const GaussianNll& op, int64_t begin, int64_t end, Want want, double scale) {
  return op.mean.dtype == Dtype::f64 ? range<double>(op, begin, end, want, scale)
                                       : range<float>(op, begin, end, want, scale);
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include <cmath>
#include <numbers>

#include "operator.h"

namespace fastvae {
namespace {

constexpr int64_t kGrain = 32768;

std::tuple<Tensor, Tensor> forward(const Tensor& mean, const Tensor& target, double variance, bool full,
                                   int64_t reduction, double weight, const std::optional<Tensor>& weight_tensor,
                                   bool with_grad) {
  const Isa chosen = isa();
  const Reduce reduce(mean, reduction, weight, weight_tensor);
  const Want want = with_grad && reduction != kNone ? Want::both : Want::loss;
  const Tensor grad = dense_like(mean, want == Want::both);
  const GaussianNll op{source(mean, mean), source(target, mean), sink(grad)};
  const double scale = reduce.factor() / variance;
  const double constant = full ? 0.5 * std::log(2.0 * std::numbers::pi * variance) : 0.0;
  const Tensor loss = reduce.sum(mean.scalar_type(), kGrain, 0.5 / variance, constant, [&](int64_t begin, int64_t end) {
    return FASTVAE_RUN(chosen, gaussian_nll, op, begin, end, want, scale);
  });
  return {loss, grad};
}

Tensor backward(const Tensor& grad_output, const Tensor& mean, const Tensor& target, double variance, bool,
                int64_t reduction, double weight, const std::optional<Tensor>& weight_tensor) {
  const Isa chosen = isa();
  const Reduce reduce(mean, reduction, weight, weight_tensor);
  const Factors factors(reduce, grad_output);
  const Tensor grad = dense_like(mean);
  const GaussianNll op{source(mean, mean), source(target, mean), sink(grad)};
  reduce.for_chunks(kGrain, [&](int64_t begin, int64_t end, int64_t span, int64_t) {
    FASTVAE_RUN(chosen, gaussian_nll, op, begin, end, Want::grad, factors[span] / variance);
  });
  return grad;
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("gaussian_nll", TORCH_BOX(&fastvae::forward));
  m.impl("gaussian_nll_backward", TORCH_BOX(&fastvae::backward));
}
#endif
