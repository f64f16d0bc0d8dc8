// Binary cross-entropy on logits: loss and gradient in one pass.
#include "block.h"

namespace fastvae {

struct BernoulliNll {
  Source logits, target;
  Sink grad;
};

}  // namespace fastvae

// Over elements [begin, end): the sum of the loss, and scale * (sigmoid(logits) - target) into grad.
FASTVAE_KERNEL(double, bernoulli_nll, const BernoulliNll& op, int64_t begin, int64_t end, Want want, double scale)

namespace fastvae::FASTVAE_ISA {
namespace {

template <typename A, bool kLoss, bool kGrad>
double range(const BernoulliNll& op, int64_t begin, int64_t end, A scale) {
  alignas(64) A l_buffer[kBlock], x_buffer[kBlock], g_buffer[kBlock];
  double total = 0.0;
  for_blocks(begin, end, [&](int64_t at, int count) {
    const A* __restrict logits = load(op.logits, at, count, l_buffer);
    const A* __restrict target = load(op.target, at, count, x_buffer);
    A* __restrict grad = kGrad ? place(op.grad, at, g_buffer) : g_buffer;
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; ++i) {
      const A l = logits[i], x = target[i];
      const A u = exp(l > 0 ? -l : l);  // in [0, 1]: nothing here overflows
      if constexpr (kLoss) sum += fma(-l, x, l > 0 ? l : 0) + log1p_unit(u);
      if constexpr (kGrad) {
        // The smaller side of the sigmoid; 1 - x, not 1 - tail - x, keeps the digits of a confident, right decoder.
        const A tail = u / (1 + u);
        grad[i] = scale * (l > 0 ? (1 - x) - tail : tail - x);
      }
    }
    if constexpr (kGrad) store(op.grad, at, count, grad);
    total += static_cast<double>(sum);
  });
  return total;
}

template <typename A>
double range(const BernoulliNll& op, int64_t begin, int64_t end, Want want, double scale) {
  const A factor = static_cast<A>(scale);
  if (want == Want::loss) return range<A, true, false>(op, begin, end, factor);
  if (want == Want::grad) return range<A, false, true>(op, begin, end, factor);
  return range<A, true, true>(op, begin, end, factor);
}

}  // namespace

double bernoulli_nll(const BernoulliNll& op, int64_t begin, int64_t end, Want want, double scale) {
  return op.logits.dtype == Dtype::f64 ? range<double>(op, begin, end, want, scale)
                                       : range<float>(op, begin, end, want, scale);
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include "operator.h"

namespace fastvae {
namespace {

constexpr int64_t kGrain = 16384;

std::tuple<Tensor, Tensor> forward(const Tensor& logits, const Tensor& target, int64_t reduction, double weight,
                                   const std::optional<Tensor>& weight_tensor, bool with_grad) {
  const Isa chosen = isa();
  const Reduce reduce(logits, reduction, weight, weight_tensor);
  const Want want = with_grad && reduction != kNone ? Want::both : Want::loss;
  const Tensor grad = dense_like(logits, want == Want::both);
  const BernoulliNll op{source(logits, logits), source(target, logits), sink(grad)};
  const double scale = reduce.factor();
  const Tensor loss = reduce.sum(logits.scalar_type(), kGrain, 1.0, 0.0, [&](int64_t begin, int64_t end) {
    return FASTVAE_RUN(chosen, bernoulli_nll, op, begin, end, want, scale);
  });
  return {loss, grad};
}

Tensor backward(const Tensor& grad_output, const Tensor& logits, const Tensor& target, int64_t reduction,
                double weight, const std::optional<Tensor>& weight_tensor) {
  const Isa chosen = isa();
  const Reduce reduce(logits, reduction, weight, weight_tensor);
  const Factors factors(reduce, grad_output);
  const Tensor grad = dense_like(logits);
  const BernoulliNll op{source(logits, logits), source(target, logits), sink(grad)};
  reduce.for_chunks(kGrain, [&](int64_t begin, int64_t end, int64_t span, int64_t) {
    FASTVAE_RUN(chosen, bernoulli_nll, op, begin, end, Want::grad, factors[span]);
  });
  return grad;
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("bernoulli_nll", TORCH_BOX(&fastvae::forward));
  m.impl("bernoulli_nll_backward", TORCH_BOX(&fastvae::backward));
}
#endif
