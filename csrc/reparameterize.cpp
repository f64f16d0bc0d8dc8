// z = mu + exp(logvar / 2) * eps; backward draws the noise again.
#include "latent.h"

FASTVAE_KERNEL(void, reparameterize, const fastvae::Latent& op, int64_t begin, int64_t end)
FASTVAE_KERNEL(void, reparameterize_backward, const fastvae::Latent& op, int64_t begin, int64_t end)

namespace fastvae::FASTVAE_ISA {

void reparameterize(const Latent& op, int64_t begin, int64_t end) {
  if (op.logvar.dtype == Dtype::f64) latent_forward<double, true, false>(op, begin, end);
  else latent_forward<float, true, false>(op, begin, end);
}

void reparameterize_backward(const Latent& op, int64_t begin, int64_t end) {
  if (op.logvar.dtype == Dtype::f64) latent_backward<double, true, false, false>(op, begin, end, 0);
  else latent_backward<float, true, false, false>(op, begin, end, 0);
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include "latent_operator.h"

namespace fastvae {
namespace {

template <typename F>
void for_elements(const Tensor& like, const F& body) {
  const Reduce elements(like, kSum, 1.0, std::nullopt);
  elements.for_chunks(kGrain, [&](int64_t begin, int64_t end, int64_t, int64_t) { body(begin, end); });
}

Tensor forward(const Tensor& mu, const Tensor& logvar, const std::optional<Tensor>& eps,
               const std::optional<Tensor>& state, int64_t row_offset, int64_t stream, double low, double high) {
  const Isa chosen = isa();
  const Tensor z = dense_like(mu);
  Latent op = latent(mu, logvar, {low, high}, make_noise(mu, eps, state, row_offset, stream));
  op.z = sink(z);
  for_elements(mu, [&](int64_t begin, int64_t end) { FASTVAE_RUN(chosen, reparameterize, op, begin, end); });
  return z;
}

// The gradient of logvar; the gradient of mu is grad_z.
Tensor backward(const Tensor& grad_z, const Tensor& logvar, const std::optional<Tensor>& eps,
                const std::optional<Tensor>& state, int64_t row_offset, int64_t stream, double low, double high) {
  STD_TORCH_CHECK(grad_z.scalar_type() == logvar.scalar_type(), "expected grad_z and logvar of one dtype");
  const Isa chosen = isa();
  const Tensor grad_logvar = dense_like(logvar);
  Latent op = latent(logvar, logvar, {low, high}, make_noise(logvar, eps, state, row_offset, stream));
  op.grad_z = source(grad_z, logvar);
  op.grad_logvar = sink(grad_logvar);
  for_elements(logvar, [&](int64_t begin, int64_t end) {
    FASTVAE_RUN(chosen, reparameterize_backward, op, begin, end);
  });
  return grad_logvar;
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("reparameterize", TORCH_BOX(&fastvae::forward));
  m.impl("reparameterize_backward", TORCH_BOX(&fastvae::backward));
}
#endif
