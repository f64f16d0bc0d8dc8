// KL between two diagonal Gaussians, the second a learned prior: value and four gradients in one pass.
#include "block.h"

namespace fastvae {

struct PriorKl {
  Source mu, logvar, prior_mu, prior_logvar;  // same event; a row stride of 0 where one row serves the batch
  Sink grad_mu, grad_logvar, grad_prior_mu, grad_prior_logvar;
};

}  // namespace fastvae

// Over elements [begin, end): the sum of the KL, and its gradients times weight.
FASTVAE_KERNEL(double, gaussian_prior_kl, const fastvae::PriorKl& op, int64_t begin, int64_t end, fastvae::Want want,
               double weight)

namespace fastvae::FASTVAE_ISA {
namespace {

template <typename A, bool kLoss, bool kGrad>
double pass(const PriorKl& op, int64_t begin, int64_t end, A weight) {
  // Four blocks in, four out: 16 KiB of floats. The gradients' blocks are not touched if no gradient is wanted.
  alignas(64) A buffers[8][kBlock];
  double total = 0.0;
  for_blocks(begin, end, [&](int64_t at, int count) {
    const A* __restrict mu = load(op.mu, at, count, buffers[0]);
    const A* __restrict logvar = load(op.logvar, at, count, buffers[1]);
    const A* __restrict prior_mu = load(op.prior_mu, at, count, buffers[2]);
    const A* __restrict prior_logvar = load(op.prior_logvar, at, count, buffers[3]);
    A* __restrict grad_mu = kGrad ? place(op.grad_mu, at, buffers[4]) : nullptr;
    A* __restrict grad_logvar = kGrad ? place(op.grad_logvar, at, buffers[5]) : nullptr;
    A* __restrict grad_prior_mu = kGrad ? place(op.grad_prior_mu, at, buffers[6]) : nullptr;
    A* __restrict grad_prior_logvar = kGrad ? place(op.grad_prior_logvar, at, buffers[7]) : nullptr;
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; ++i) {
      // Halves of the exponents, for range, and for digits near 0: see kl_of in latent.h.
      const A precision = exp(A(-0.5) * prior_logvar[i]);
      const A error = (mu[i] - prior_mu[i]) * precision;
      const Exponential<A> h = exponential(A(0.5) * (logvar[i] - prior_logvar[i]));
      if constexpr (kLoss) sum += A(0.5) * fma(error, error, fma(h.expm1, h.expm1, 2 * h.excess));
      if constexpr (kGrad) {
        const A of_mu = weight * (error * precision), of_logvar = A(0.5) * h.expm1 * (h.expm1 + 2);
        grad_mu[i] = of_mu;
        grad_prior_mu[i] = -of_mu;
        grad_logvar[i] = weight * of_logvar;
        grad_prior_logvar[i] = -weight * fma(A(0.5) * error, error, of_logvar);
      }
    }
    if constexpr (kGrad) {
      store(op.grad_mu, at, count, grad_mu);
      store(op.grad_logvar, at, count, grad_logvar);
      store(op.grad_prior_mu, at, count, grad_prior_mu);
      store(op.grad_prior_logvar, at, count, grad_prior_logvar);
    }
    total += static_cast<double>(sum);
  });
  return total;
}

template <typename A>
double range(const PriorKl& op, int64_t begin, int64_t end, Want want, double weight) {
  const A factor = static_cast<A>(weight);
  if (want == Want::loss) return pass<A, true, false>(op, begin, end, factor);
  if (want == Want::grad) return pass<A, false, true>(op, begin, end, factor);
  return pass<A, true, true>(op, begin, end, factor);
}

}  // namespace

double gaussian_prior_kl(const PriorKl& op, int64_t begin, int64_t end, Want want, double weight) {
  return op.mu.dtype == Dtype::f64 ? range<double>(op, begin, end, want, weight)
                                   : range<float>(op, begin, end, want, weight);
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include "operator.h"

namespace fastvae {
namespace {

constexpr int64_t kGrain = 8192;

struct Gradients {
  Tensor mu, logvar, prior_mu, prior_logvar;

  Gradients(const Tensor& like, bool wanted)
      : mu(dense_like(like, wanted)), logvar(dense_like(like, wanted)), prior_mu(dense_like(like, wanted)),
        prior_logvar(dense_like(like, wanted)) {}
};

PriorKl prior_kl(const Tensor& mu, const Tensor& logvar, const Tensor& prior_mu, const Tensor& prior_logvar,
                 const Gradients& grad) {
  for (const Tensor* tensor : {&logvar, &prior_mu, &prior_logvar})
    STD_TORCH_CHECK(tensor->scalar_type() == mu.scalar_type(), "expected four tensors of one dtype");
  return {source(mu, mu),  source(logvar, mu), source(prior_mu, mu), source(prior_logvar, mu),
          sink(grad.mu),   sink(grad.logvar),  sink(grad.prior_mu),  sink(grad.prior_logvar)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> forward(const Tensor& mu, const Tensor& logvar,
                                                           const Tensor& prior_mu, const Tensor& prior_logvar,
                                                           int64_t reduction, double weight,
                                                           const std::optional<Tensor>& weight_tensor,
                                                           bool with_grad) {
  const auto kernel = FASTVAE_CHOSEN(isa(), gaussian_prior_kl);
  const Reduce reduce(mu, reduction, weight, weight_tensor);
  const Want want = with_grad && reduction != kNone ? Want::both : Want::loss;
  const Gradients grad(mu, want == Want::both);
  const PriorKl op = prior_kl(mu, logvar, prior_mu, prior_logvar, grad);
  const double factor = reduce.factor();
  const Tensor loss = reduce.sum(mu.scalar_type(), kGrain, 1.0, 0.0, [&](int64_t begin, int64_t end) {
    return kernel(op, begin, end, want, factor);
  });
  return {loss, grad.mu, grad.logvar, grad.prior_mu, grad.prior_logvar};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& mu, const Tensor& logvar,
                                                    const Tensor& prior_mu, const Tensor& prior_logvar,
                                                    int64_t reduction, double weight,
                                                    const std::optional<Tensor>& weight_tensor) {
  const auto kernel = FASTVAE_CHOSEN(isa(), gaussian_prior_kl);
  const Reduce reduce(mu, reduction, weight, weight_tensor);
  const Factors factors(reduce, grad_output);
  const Gradients grad(mu, true);
  const PriorKl op = prior_kl(mu, logvar, prior_mu, prior_logvar, grad);
  reduce.for_chunks(kGrain, [&](int64_t begin, int64_t end, int64_t span, int64_t) {
    kernel(op, begin, end, Want::grad, factors[span]);
  });
  return {grad.mu, grad.logvar, grad.prior_mu, grad.prior_logvar};
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("gaussian_prior_kl", TORCH_BOX(&fastvae::forward));
  m.impl("gaussian_prior_kl_backward", TORCH_BOX(&fastvae::backward));
}
#endif
