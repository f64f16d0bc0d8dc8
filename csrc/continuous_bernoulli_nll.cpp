// Continuous Bernoulli likelihood on logits: loss and gradient in one pass.
#include "pixel.h"

namespace fastvae::FASTVAE_ISA {
namespace {

// In a = |l| and y, the pixel where l is negative, else its complement, the loss is a y + log m(a) with m(a) =
// (1 - exp(-a)) / a, and the slope y + (log m)'(a), or its opposite for a negative l. Near 0 by series: log m(a) is
// -a / 2 + log(sinh(a / 2) / (a / 2)), of which the second part is even.
struct Terms {
  template <typename A>
  FASTVAE_INLINE void terms(A l, A x, A& loss, A& slope) {
    // Below this the series is used, above it the closed form. Both are equally good here: 1e-7 in float, 1e-15 in
    // double.
    constexpr A kNear = sizeof(A) == 4 ? A(1) : A(0.25);
    const bool negative = l < 0;
    const A a = negative ? -l : l, y = negative ? x : 1 - x, square = a * a;
    A even = A(1.0 / 479001600);
    even = fma(even, square, A(-1.0 / 9676800));
    even = fma(even, square, A(1.0 / 181440));
    even = fma(even, square, A(-1.0 / 2880));
    even = fma(even, square, A(1.0 / 24)) * square;
    A odd = A(1.0 / 47900160);
    odd = fma(odd, square, A(-1.0 / 1209600));
    odd = fma(odd, square, A(1.0 / 30240));
    odd = fma(odd, square, A(-1.0 / 720));
    odd = fma(odd, square, A(1.0 / 12)) * a;
    const A u = exp_minus(a), rest = 1 - u, inverse = 1 / a;
    const A log_mass = a < kNear ? even - A(0.5) * a : log(rest * inverse);
    const A derivative = a < kNear ? odd - A(0.5) : u / rest - inverse;
    loss = fma(a, y, log_mass);
    slope = negative ? -(y + derivative) : y + derivative;
  }
};

}  // namespace
}  // namespace fastvae::FASTVAE_ISA

FASTVAE_PIXEL_KERNEL(continuous_bernoulli_nll)

#ifdef FASTVAE_REGISTER
#include "pixel_operator.h"

namespace fastvae {
namespace {

Likelihood likelihood() { return {FASTVAE_CHOSEN(isa(), continuous_bernoulli_nll), 16384}; }

std::tuple<Tensor, Tensor> forward(const Tensor& logits, const Tensor& target, int64_t reduction, double weight,
                                   const std::optional<Tensor>& weight_tensor, bool with_grad) {
  return pixel_forward(likelihood(), pixels(logits, target), logits, reduction, weight, weight_tensor, with_grad);
}

Tensor backward(const Tensor& grad_output, const Tensor& logits, const Tensor& target, int64_t reduction,
                double weight, const std::optional<Tensor>& weight_tensor) {
  return pixel_backward(likelihood(), pixels(logits, target), grad_output, logits, reduction, weight, weight_tensor);
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("continuous_bernoulli_nll", TORCH_BOX(&fastvae::forward));
  m.impl("continuous_bernoulli_nll_backward", TORCH_BOX(&fastvae::backward));
}
#endif
