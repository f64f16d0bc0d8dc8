// The sample and its KL in one pass each way.
#include "latent.h"

namespace fastvae {

// The gradients that reach the backward. The term of an absent one is left out, not multiplied by zero (0 * inf).
struct Incoming {
  bool z, kl;
};

}  // namespace fastvae

FASTVAE_KERNEL(double, reparameterize_kl, const fastvae::Latent& op, int64_t begin, int64_t end)
FASTVAE_KERNEL(void, reparameterize_kl_backward, const fastvae::Latent& op, int64_t begin, int64_t end,
               fastvae::Incoming incoming, double weight)

namespace fastvae::FASTVAE_ISA {
namespace {

template <typename A>
void range(const Latent& op, int64_t begin, int64_t end, Incoming incoming, double weight) {
  const A factor = static_cast<A>(weight);
  if (incoming.z && incoming.kl) latent_backward<A, true, true, false>(op, begin, end, factor);
  else if (incoming.z) latent_backward<A, true, false, false>(op, begin, end, factor);
  else latent_backward<A, false, true, false>(op, begin, end, factor);
}

}  // namespace

double reparameterize_kl(const Latent& op, int64_t begin, int64_t end) {
  return op.mu.dtype == Dtype::f64 ? latent_forward<double, true, true>(op, begin, end)
                                   : latent_forward<float, true, true>(op, begin, end);
}

void reparameterize_kl_backward(const Latent& op, int64_t begin, int64_t end, Incoming incoming, double weight) {
  if (op.mu.dtype == Dtype::f64) range<double>(op, begin, end, incoming, weight);
  else range<float>(op, begin, end, incoming, weight);
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include <cstring>

#include "latent_operator.h"

namespace fastvae {
namespace {

std::tuple<Tensor, Tensor> forward(const Tensor& mu, Latent op, const Reduce& reduce) {
  const Isa chosen = isa();
  const Tensor z = dense_like(mu);
  op.z = sink(z);
  const Tensor kl = reduce.sum(mu.scalar_type(), kGrain, 1.0, 0.0, [&](int64_t begin, int64_t end) {
    return FASTVAE_RUN(chosen, reparameterize_kl, op, begin, end);
  });
  return {z, kl};
}

std::tuple<Tensor, Tensor> backward(const std::optional<Tensor>& grad_z, const std::optional<Tensor>& grad_kl,
                                    const Tensor& mu, Latent op, const Reduce& reduce) {
  const Isa chosen = isa();
  const Incoming incoming{grad_z.has_value(), grad_kl.has_value()};
  std::optional<Factors> factors;
  if (grad_kl) factors.emplace(reduce, *grad_kl);
  const Tensor grad_mu = dense_like(mu), grad_logvar = dense_like(mu);
  op.grad_mu = sink(grad_mu);
  op.grad_logvar = sink(grad_logvar);
  if (grad_z) {
    STD_TORCH_CHECK(grad_z->scalar_type() == mu.scalar_type(), "expected mu, logvar and grad_z of one dtype");
    STD_TORCH_CHECK(grad_z->is_contiguous(), "expected a dense grad_z");
    op.grad_z = source(*grad_z, mu);
  }
  // Without the KL's gradient, the gradient of mu is a copy of grad_z. With neither, autograd does not call backward.
  const int64_t bytes = mu.numel() * (op.mu.dtype == Dtype::f64 ? 8 : op.mu.dtype == Dtype::f32 ? 4 : 2);
  if (!grad_kl && bytes) {
    if (grad_z) {
      std::memcpy(op.grad_mu.data, op.grad_z.data, bytes);
    } else {
      std::memset(op.grad_mu.data, 0, bytes);
      std::memset(op.grad_logvar.data, 0, bytes);
    }
  }
  if (grad_z || grad_kl) {
    reduce.for_chunks(kGrain, [&](int64_t begin, int64_t end, int64_t span, int64_t) {
      FASTVAE_RUN(chosen, reparameterize_kl_backward, op, begin, end, incoming, factors ? (*factors)[span] : 0.0);
    });
  }
  return {grad_mu, grad_logvar};
}

// The schema's arguments, packed into records here for both passes; backward has two gradients before them.
template <auto pass, typename... Gradients>
struct Entry {
  static std::tuple<Tensor, Tensor> run(const Gradients&... gradients, const Tensor& mu, const Tensor& logvar,
                                        const std::optional<Tensor>& eps, const std::optional<Tensor>& state,
                                        int64_t row_offset, int64_t stream, double low, double high,
                                        int64_t reduction, double weight, const std::optional<Tensor>& weight_tensor) {
    const Noise noise = make_noise(mu, eps, state, row_offset, stream);
    return pass(gradients..., mu, latent(mu, logvar, {low, high}, noise), {mu, reduction, weight, weight_tensor});
  }
};

using Gradient = std::optional<Tensor>;

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("reparameterize_kl", TORCH_BOX((&fastvae::Entry<fastvae::forward>::run)));
  m.impl("reparameterize_kl_backward",
         TORCH_BOX((&fastvae::Entry<fastvae::backward, fastvae::Gradient, fastvae::Gradient>::run)));
}
#endif
