// KL(N(mu, exp(logvar)) || N(0, I)): value and gradients in one pass.
#include "latent.h"

// Over elements [begin, end): the sum of the KL, and its gradients times weight.
FASTVAE_KERNEL(double, gaussian_kl, const fastvae::Latent& op, int64_t begin, int64_t end, fastvae::Want want,
               double weight)

namespace fastvae::FASTVAE_ISA {
namespace {

template <typename A>
double range(const Latent& op, int64_t begin, int64_t end, Want want, double weight) {
  const A factor = static_cast<A>(weight);
  if (want == Want::loss) return latent_forward<A, false, true>(op, begin, end);
  if (want == Want::grad) return latent_backward<A, false, true, false>(op, begin, end, factor);
  return latent_backward<A, false, true, true>(op, begin, end, factor);
}

}  // namespace

double gaussian_kl(const Latent& op, int64_t begin, int64_t end, Want want, double weight) {
  return op.mu.dtype == Dtype::f64 ? range<double>(op, begin, end, want, weight)
                                   : range<float>(op, begin, end, want, weight);
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include "latent_operator.h"

namespace fastvae {
namespace {

Latent pass_over(const Tensor& mu, const Tensor& logvar, Clamp clamp, const Tensor& grad_mu,
                 const Tensor& grad_logvar) {
  Latent op = latent(mu, logvar, clamp, {});
  op.grad_mu = sink(grad_mu);
  op.grad_logvar = sink(grad_logvar);
  return op;
}

std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& mu, const Tensor& logvar, double low, double high,
                                           int64_t reduction, double weight,
                                           const std::optional<Tensor>& weight_tensor, bool with_grad) {
  const Isa chosen = isa();
  const Reduce reduce(mu, reduction, weight, weight_tensor);
  const Want want = with_grad && reduction != kNone ? Want::both : Want::loss;
  const Tensor grad_mu = dense_like(mu, want == Want::both), grad_logvar = dense_like(mu, want == Want::both);
  const Latent op = pass_over(mu, logvar, {low, high}, grad_mu, grad_logvar);
  const double factor = reduce.factor();
  const Tensor loss = reduce.sum(mu.scalar_type(), kGrain, 1.0, 0.0, [&](int64_t begin, int64_t end) {
    return FASTVAE_RUN(chosen, gaussian_kl, op, begin, end, want, factor);
  });
  return {loss, grad_mu, grad_logvar};
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& mu, const Tensor& logvar, double low,
                                    double high, int64_t reduction, double weight,
                                    const std::optional<Tensor>& weight_tensor) {
  const Isa chosen = isa();
  const Reduce reduce(mu, reduction, weight, weight_tensor);
  const Factors factors(reduce, grad_output);
  const Tensor grad_mu = dense_like(mu), grad_logvar = dense_like(mu);
  const Latent op = pass_over(mu, logvar, {low, high}, grad_mu, grad_logvar);
  reduce.for_chunks(kGrain, [&](int64_t begin, int64_t end, int64_t span, int64_t) {
    FASTVAE_RUN(chosen, gaussian_kl, op, begin, end, Want::grad, factors[span]);
  });
  return {grad_mu, grad_logvar};
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("gaussian_kl", TORCH_BOX(&fastvae::forward));
  m.impl("gaussian_kl_backward", TORCH_BOX(&fastvae::backward));
}
#endif
