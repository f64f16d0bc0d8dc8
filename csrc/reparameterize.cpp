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

Tensor forward(const Tensor& mu, const Tensor& logvar, const std::optional<Tensor>& eps,
               const std::optional<Tensor>& state, int64_t row_offset, int64_t stream, double low, double high) {
  STD_TORCH_CHECK(mu.scalar_type() == logvar.scalar_type(), "expected mu and logvar of one dtype");
  const Isa chosen = isa();
  const Tensor z = dense_like(mu);
  Latent op{};
  op.mu = source(mu, mu), op.logvar = source(logvar, mu), op.clamp = {low, high}, op.z = sink(z);
  op.noise = noise(mu, eps, state, row_offset, stream);
  const Reduce elements(mu, kSum, 1.0, std::nullopt);
  elements.for_chunks(kGrain, [&](int64_t begin, int64_t end, int64_t, int64_t) {
    FASTVAE_RUN(chosen, reparameterize, op, begin, end);
  });
  return z;
}

Tensor backward(const Tensor& grad_z, const Tensor& logvar, const std::optional<Tensor>& eps,
                const std::optional<Tensor>& state, int64_t row_offset, int64_t stream, double low, double high) {
  STD_TORCH_CHECK(grad_z.scalar_type() == logvar.scalar_type(), "expected grad_z and logvar of one dtype");
  const Isa chosen = isa();
  const Tensor grad_logvar = dense_like(logvar);
  Latent op{};
  op.grad_z = source(grad_z, logvar), op.logvar = source(logvar, logvar), op.clamp = {low, high};
  op.grad_logvar = sink(grad_logvar);
  op.noise = noise(logvar, eps, state, row_offset, stream);
  const Reduce elements(logvar, kSum, 1.0, std::nullopt);
  elements.for_chunks(kGrain, [&](int64_t begin, int64_t end, int64_t, int64_t) {
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
