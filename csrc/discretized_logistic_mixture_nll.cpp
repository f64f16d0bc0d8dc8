// Mixture of discretized logistics: loss and the gradient of all parameters while a tile of pixels is in the cache.
#include "logistic.h"
#include "pixel_planes.h"

namespace fastvae {

struct Mixture {
  // `mixtures` logits; channels * mixtures means, then as many log-scales; for colour, 3 * mixtures coefficients
  Planes parameters;
  const void* target;  // uint8 (B, channels, pixels)
  int channels, mixtures;
  int width;  // pixels a tile
};

}  // namespace fastvae

// Over pixels [begin, end): the sum of the loss, and scale * gradient. The scratch holds `width` pixels of all
// parameters and of one more plane a component.
FASTVAE_KERNEL(double, discretized_logistic_mixture_nll, const fastvae::Mixture& op, int64_t begin, int64_t end,
               fastvae::Want want, double scale, void* scratch)

namespace fastvae::FASTVAE_ISA {
namespace {

template <typename A>
struct Pixels3 {
  alignas(64) A x[3][kBlock];  // the target over 255
  alignas(64) A coupling[3][kBlock], slope[3][kBlock];  // tanh of a component's coefficients, and its derivative
};

// tanh(c) and its derivative: from the exponential of -2 |c|, so that small ones keep their digits.
template <typename A>
FASTVAE_INLINE void couple(const A* coefficient, int count, A* __restrict value, A* __restrict slope) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const A c = coefficient[i], twice = c > 0 ? -2 * c : 2 * c;
    const Exponential<A> u = exponential(twice);
    const A reciprocal = 1 / (2 + u.expm1), size = -u.expm1 * reciprocal;
    value[i] = c > 0 ? size : -size;
    slope[i] = 4 * u.exp * reciprocal * reciprocal;
  }
}

// Adds the log-probability of channel kC in component k to `joint`. Its derivatives are written in the place of the
// parameters' gradients.
template <typename A, int kC, bool kGrad>
FASTVAE_INLINE void channel(const Mixture& op, const Tile<A>& tile, const Pixels3<A>& p, int k, A* __restrict joint) {
  constexpr A floor = A(-7.693147180559945);  // -7 - log 2
  const int m = op.mixtures, mean_at = m + kC * m + k, scale_at = mean_at + op.channels * m;
  const int pairs_at = m + 2 * op.channels * m + k, count = tile.count;
  const A *mean = tile.in(mean_at), *log_scale = tile.in(scale_at);
  A *to_mean = kGrad ? tile.out(mean_at) : nullptr, *to_scale = kGrad ? tile.out(scale_at) : nullptr;
  A *to_red = kGrad && kC > 0 ? tile.out(pairs_at + (kC - 1) * m) : nullptr;  // the coefficient from red to here
  A *to_green = kGrad && kC > 1 ? tile.out(pairs_at + 2 * m) : nullptr;
  constexpr int kRed = kC > 0 ? kC - 1 : 0;
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const A red = p.x[0][i] - A(0.5), green = p.x[1][i] - A(0.5);
    A centre = mean[i];
    if constexpr (kC > 0) centre += p.coupling[kRed][i] * red;
    if constexpr (kC > 1) centre += p.coupling[2][i] * green;
    const A s = log_scale[i], clamped = s < floor ? floor : s;
    A log_prob, d_mean, d_log_scale;
    logistic_bin(centre, clamped, p.x[kC][i], log_prob, d_mean, d_log_scale);
    joint[i] += log_prob;
    if constexpr (kGrad) {
      to_mean[i] = d_mean;
      to_scale[i] = s < floor ? A(0) : d_log_scale;
    }
    if constexpr (kGrad && kC > 0) to_red[i] = d_mean * red * p.slope[kRed][i];
    if constexpr (kGrad && kC > 1) to_green[i] = d_mean * green * p.slope[2][i];
  }
}

// Raise `highest` to `values`, pixel by pixel.
template <typename A>
FASTVAE_INLINE void raise(const A* values, int count, A* __restrict highest) {
#pragma omp simd
  for (int i = 0; i < count; ++i) highest[i] = values[i] > highest[i] ? values[i] : highest[i];
}

template <typename A, bool kColour, bool kGrad>
double mixture(const Mixture& op, int64_t begin, int64_t end, A scale, A* scratch) {
  Pixels3<A> p;
  alignas(64) A prior_top[kBlock], prior_sum[kBlock], top[kBlock], sum[kBlock];
  const int m = op.mixtures;
  const int64_t planes = op.parameters.count, pixels = op.parameters.pixels;
  double total = 0.0;
  for_tiles(op.parameters, scratch, op.width, begin, end, [&](const Tile<A>& tile, int64_t at) {
    const int count = tile.count;
    for (int c = 0; c < op.channels; ++c) {
      const auto* data = static_cast<const uint8_t*>(op.target) + c * pixels;
      load(Source{data, Dtype::u8, pixels, op.channels * pixels}, at, count, p.x[c]);
    }
    for (int64_t plane = 0; plane < planes; ++plane) tile.load(plane);
    for (int i = 0; i < count; ++i) {
      prior_top[i] = top[i] = -__builtin_inf();
      prior_sum[i] = sum[i] = 0;
    }
    for (int k = 0; k < m; ++k) raise(tile.in(k), count, prior_top);

    // joint: the logarithm of a component's share times the probability that it gives the pixel.
    for (int k = 0; k < m; ++k) {
      A* __restrict joint = tile.spare(planes + k);
      const A* logit = tile.in(k);
#pragma omp simd
      for (int i = 0; i < count; ++i) {
        joint[i] = logit[i] - prior_top[i];
        prior_sum[i] += exp(joint[i]);
      }
      if constexpr (kColour) {
        for (int j = 0; j < 3; ++j) couple(tile.in(7 * m + j * m + k), count, p.coupling[j], p.slope[j]);
      }
      channel<A, 0, kGrad>(op, tile, p, k, joint);
      if constexpr (kColour) {
        channel<A, 1, kGrad>(op, tile, p, k, joint);
        channel<A, 2, kGrad>(op, tile, p, k, joint);
      }
      raise(joint, count, top);
    }
    for (int k = 0; k < m; ++k) {
      A* __restrict joint = tile.spare(planes + k);
#pragma omp simd
      for (int i = 0; i < count; ++i) {
        joint[i] = exp(joint[i] - top[i]);
        sum[i] += joint[i];
      }
    }
    A loss = 0;
#pragma omp simd reduction(+ : loss)
    for (int i = 0; i < count; ++i) {
      // log does not carry NaN; the last term does.
      loss += log(prior_sum[i]) - top[i] - log(sum[i]) + 0 * (prior_sum[i] + sum[i]);
      prior_sum[i] = scale / prior_sum[i];
      sum[i] = -scale / sum[i];
    }
    total += static_cast<double>(loss);
    if constexpr (!kGrad) return;
    for (int k = 0; k < m; ++k) {
      A* __restrict share = tile.spare(planes + k);  // -scale times the component's responsibility for the pixel
      const A* logit = tile.in(k);
      A* grad = tile.out(k);
#pragma omp simd
      for (int i = 0; i < count; ++i) {
        share[i] *= sum[i];
        grad[i] = prior_sum[i] * exp(logit[i] - prior_top[i]) + share[i];
      }
      tile.store(k);
      for (int64_t plane = m + k; plane < planes; plane += m) {
        A* to = tile.out(plane);
#pragma omp simd
        for (int i = 0; i < count; ++i) to[i] *= share[i];
        tile.store(plane);
      }
    }
  });
  return total;
}

template <typename A>
double mixture(const Mixture& op, int64_t begin, int64_t end, Want want, double scale, void* scratch) {
  const A factor = static_cast<A>(scale);
  A* buffer = static_cast<A*>(scratch);
  if (op.channels == 1) {
    return want == Want::loss ? mixture<A, false, false>(op, begin, end, factor, buffer)
                              : mixture<A, false, true>(op, begin, end, factor, buffer);
  }
  return want == Want::loss ? mixture<A, true, false>(op, begin, end, factor, buffer)
                            : mixture<A, true, true>(op, begin, end, factor, buffer);
}

}  // namespace

double discretized_logistic_mixture_nll(const Mixture& op, int64_t begin, int64_t end, Want want, double scale,
                                        void* scratch) {
  return op.parameters.dtype == Dtype::f64 ? mixture<double>(op, begin, end, want, scale, scratch)
                                           : mixture<float>(op, begin, end, want, scale, scratch);
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include "pixel_planes_operator.h"

namespace fastvae {
namespace {

PlaneKernel<Mixture> kernel(const Tensor& parameters, const Tensor& target, int64_t mixtures, const Tensor& grad) {
  STD_TORCH_CHECK(target.scalar_type() == ScalarType::Byte && target.dim() > 1,
                  "expected a target (B, C, ...) in uint8");
  const int64_t channels = target.size(1);
  STD_TORCH_CHECK(channels == 1 || channels == 3, "expected 1 or 3 channels");
  const Planes planes = planes_of(parameters, target, channels, grad);
  STD_TORCH_CHECK(planes.count == mixtures * (channels == 3 ? 10 : 3), "expected the parameters of all components");
  return {FASTVAE_CHOSEN(isa(), discretized_logistic_mixture_nll),
          {planes, target.data_ptr(), static_cast<int>(channels), static_cast<int>(mixtures), tile_of(planes.count)},
          planes.count + mixtures, 4 * planes.count};
}

std::tuple<Tensor, Tensor> forward(const Tensor& parameters, const Tensor& target, int64_t mixtures,
                                   int64_t reduction, double weight, const std::optional<Tensor>& weight_tensor,
                                   bool with_grad) {
  const bool both = with_grad && reduction != kNone;
  const Tensor grad = dense_like(parameters, both);
  const Tensor loss = planes_forward(kernel(parameters, target, mixtures, grad), parameters, target, target.size(1),
                                     reduction, weight, weight_tensor, both);
  return {loss, grad};
}

Tensor backward(const Tensor& grad_output, const Tensor& parameters, const Tensor& target, int64_t mixtures,
                int64_t reduction, double weight, const std::optional<Tensor>& weight_tensor) {
  const Tensor grad = dense_like(parameters);
  planes_backward(kernel(parameters, target, mixtures, grad), grad_output, target, target.size(1), reduction, weight,
                  weight_tensor);
  return grad;
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("discretized_logistic_mixture_nll", TORCH_BOX(&fastvae::forward));
  m.impl("discretized_logistic_mixture_nll_backward", TORCH_BOX(&fastvae::backward));
}
#endif
