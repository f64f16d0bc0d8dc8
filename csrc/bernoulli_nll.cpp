// Binary cross-entropy on logits: loss and gradient in one pass.
#include "pixel.h"

FASTVAE_KERNEL(double, bernoulli_nll, const fastvae::Pixels& op, int64_t begin, int64_t end, fastvae::Want want,
               double scale)

namespace fastvae::FASTVAE_ISA {
namespace {

// In |l| and y, the pixel where l is negative, else its complement: loss = |l| y + log(1 + exp(-|l|)), and the slope is
// (sigmoid(-|l|) - y) for a negative l, and its opposite otherwise. This takes fewer operations than the textbook's
// form, and keeps the digits of a confident, right decoder.
struct Terms {
  FASTVAE_INLINE void terms(double l, double x, double& loss, double& slope) {
    const double a = __builtin_fabs(l), u = exp_minus(a), tail = u / (1 + u), y = l < 0 ? x : 1 - x;
    slope = l < 0 ? tail - y : y - tail;
    loss = fma(a, y, __builtin_log1p(u));
  }
};

FASTVAE_INLINE float pixel(float x) { return x; }
FASTVAE_INLINE float pixel(uint8_t x) { return Stored<Dtype::u8>::load(x); }

// Arithmetic bounds this loop, not memory, so fp32 has its own. It adds logarithms by multiplying: an element of
// s = prod(1 + u) - 1 is one fma (1.7 times as fast as a logarithm each), small u keep their digits, and each column
// takes one logarithm at the end.
constexpr int kColumns = 64, kRows = 64;  // 2**64 is far from the overflow of s
struct Sums {
  alignas(64) float product[kColumns], linear[kColumns];

  double total() const {
    float logarithms = 0, products = 0;
#pragma omp simd reduction(+ : logarithms, products)
    for (int i = 0; i < kColumns; ++i) {
      const float s = product[i], w = 1 + s;
      logarithms += log(w) + (s - (w - 1)) / w;  // the second term is what rounding took from w; a NaN stays in it
      products += linear[i];
    }
    return static_cast<double>(logarithms) + static_cast<double>(products);
  }
};

template <bool kLoss, bool kGrad, typename X>
FASTVAE_INLINE void row(const float* __restrict logits, const X* __restrict target, float* __restrict grad, int count,
                        float scale, Sums& sums) {
  float* __restrict product = sums.product;
  float* __restrict linear = sums.linear;
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const float l = logits[i], a = __builtin_fabsf(l), u = exp_minus(a);
    const uint32_t sign = as_bits(l) & 0x80000000u;
    const float x = pixel(target[i]), y = sign ? x : 1 - x;
    if constexpr (kLoss) {
      product[i] = fma(u, 1 + product[i], product[i]);
      linear[i] = fma(a, y, linear[i]);
    }
    if constexpr (kGrad) grad[i] = as_float(as_bits(scale * (y - u / (1 + u))) ^ sign);
  }
}

template <bool kLoss, bool kGrad, typename X>
double bernoulli(const Pixels& op, int64_t begin, int64_t end, double scale) {
  constexpr bool kBytes = sizeof(X) == 1;
  alignas(64) float l_buffer[kBlock], x_buffer[kBlock], g_buffer[kBlock];
  Binarized<float> binarized;
  double total = 0.0;
  const float factor = static_cast<float>(scale);
  for (int64_t from = begin; from < end; from += kRows * kColumns) {
    const int64_t to = end - from < kRows * kColumns ? end : from + kRows * kColumns;
    Sums sums{};
    for_blocks(from, to, [&](int64_t at, int count) {
      const float* logits = load(op.prediction, at, count, l_buffer);
      const X* target;
      if constexpr (kBytes) target = static_cast<const uint8_t*>(op.target.data) + at;
      else target = op.binarize ? binarized(op.noise, op.target, at, count) : load(op.target, at, count, x_buffer);
      float* grad = kGrad ? place(op.grad, at, g_buffer) : g_buffer;
      int i = 0;
      for (; i + kColumns <= count; i += kColumns) {
        row<kLoss, kGrad>(logits + i, target + i, grad + i, kColumns, factor, sums);
      }
      if (i < count) row<kLoss, kGrad>(logits + i, target + i, grad + i, count - i, factor, sums);
      if constexpr (kGrad) store(op.grad, at, count, grad);
    });
    if constexpr (kLoss) total += sums.total();
  }
  return total;
}

template <typename X>
double bernoulli(const Pixels& op, int64_t begin, int64_t end, Want want, double scale) {
  if (want == Want::loss) return bernoulli<true, false, X>(op, begin, end, scale);
  if (want == Want::grad) return bernoulli<false, true, X>(op, begin, end, scale);
  return bernoulli<true, true, X>(op, begin, end, scale);
}

}  // namespace

double bernoulli_nll(const Pixels& op, int64_t begin, int64_t end, Want want, double scale) {
  if (op.prediction.dtype == Dtype::f64) return pixels<Terms, double>(op, begin, end, want, scale);
  if (op.target.dtype == Dtype::u8 && !op.binarize) return bernoulli<uint8_t>(op, begin, end, want, scale);
  return bernoulli<float>(op, begin, end, want, scale);
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include "noise_operator.h"
#include "pixel_operator.h"

namespace fastvae {
namespace {

Likelihood likelihood() { return {FASTVAE_CHOSEN(isa(), bernoulli_nll), 16384}; }

Pixels inputs(const Tensor& logits, const Tensor& target, const std::optional<Tensor>& state, int64_t row_offset,
              int64_t stream) {
  Pixels op = pixels(logits, target);
  if (state) {
    STD_TORCH_CHECK(op.target.dtype == Dtype::u8 && target.is_contiguous(),
                    "expected a dense uint8 target to binarize");
    op.binarize = true;
    op.noise = make_noise(logits, std::nullopt, state, row_offset, stream);
  }
  return op;
}

std::tuple<Tensor, Tensor> forward(const Tensor& logits, const Tensor& target, const std::optional<Tensor>& state,
                                   int64_t row_offset, int64_t stream, int64_t reduction, double weight,
                                   const std::optional<Tensor>& weight_tensor, bool with_grad) {
  return pixel_forward(likelihood(), inputs(logits, target, state, row_offset, stream), logits, reduction, weight,
                       weight_tensor, with_grad);
}

Tensor backward(const Tensor& grad_output, const Tensor& logits, const Tensor& target,
                const std::optional<Tensor>& state, int64_t row_offset, int64_t stream, int64_t reduction,
                double weight, const std::optional<Tensor>& weight_tensor) {
  return pixel_backward(likelihood(), inputs(logits, target, state, row_offset, stream), grad_output, logits,
                        reduction, weight, weight_tensor);
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("bernoulli_nll", TORCH_BOX(&fastvae::forward));
  m.impl("bernoulli_nll_backward", TORCH_BOX(&fastvae::backward));
}
#endif
