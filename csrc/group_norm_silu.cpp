// SiLU of a group norm, in channels_last, and the gradient of both in one pass over what lies in the cache.
//
// An image is read three times (mean, variance, output) and its gradient twice, but from L1 or L2, where an image of a
// VAE's layers fits: memory is read and written once. Backward computes the normalised values again, so that the two
// intermediate tensors, which torch keeps, are never written.
#include "group_norm_silu.h"

namespace fastvae::FASTVAE_ISA {
namespace {

template <Dtype D>
void forward(const GroupNormSilu& op, int64_t image, float* scratch) {
  using T = typename Stored<D>::type;
  const T* __restrict x = static_cast<const T*>(op.x) + image * op.size();
  T* __restrict output = static_cast<T*>(op.output) + image * op.size();
  float *mean = op.mean + image * op.groups, *rstd = op.rstd + image * op.groups;
  float *__restrict first = scratch, *__restrict centre = scratch + op.row();
  float* __restrict bias = scratch + 2 * op.row();
  const double count = static_cast<double>(op.size() / op.groups);
  clear(first, op.row());
  for_rows(op, [&](int64_t at, int64_t length) {
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) first[i] += Stored<D>::load(x[at + i]);
  });
  for (int64_t g = 0; g < op.groups; ++g) mean[g] = static_cast<float>(sum_of_group(op, first, g) / count);
  fill(op, centre, [&](int64_t, int64_t g) { return mean[g]; });
  clear(first, op.row());
  for_rows(op, [&](int64_t at, int64_t length) {
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const float centred = Stored<D>::load(x[at + i]) - centre[i];
      first[i] = fma(centred, centred, first[i]);
    }
  });
  for (int64_t g = 0; g < op.groups; ++g) {
    rstd[g] = static_cast<float>(1.0 / sqrt(sum_of_group(op, first, g) / count + op.eps));
  }
  fill(op, first, [&](int64_t c, int64_t g) { return rstd[g] * op.weight[c]; });
  fill(op, bias, [&](int64_t c, int64_t) { return op.bias[c]; });
  for_rows(op, [&](int64_t at, int64_t length) {
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const float v = fma(Stored<D>::load(x[at + i]) - centre[i], first[i], bias[i]);
      output[at + i] = Stored<D>::store(v * sigmoid(v));
    }
  });
}

template <Dtype D>
void backward(const GroupNormSilu& op, int64_t image, float* scratch) {
  using T = typename Stored<D>::type;
  const int64_t row = op.row();
  const T* __restrict x = static_cast<const T*>(op.x) + image * op.size();
  const T* __restrict gradient = static_cast<const T*>(op.gradient) + image * op.size();
  T* grad_x = static_cast<T*>(op.output) + image * op.size();
  const float *mean = op.mean + image * op.groups, *rstd = op.rstd + image * op.groups;
  float *__restrict scale = scratch, *bias = scratch + row, *__restrict centre = scratch + 2 * row;
  float *__restrict grad_bias = scratch + 3 * row, *__restrict grad_weight = scratch + 4 * row;
  float* __restrict slope = scratch + 5 * row;
  float* grad_norm;  // the gradient of SiLU's input: in grad_x itself if that is fp32
  if constexpr (D == Dtype::f32) grad_norm = grad_x;
  else grad_norm = scratch + kBackwardRows * row;
  fill(op, scale, [&](int64_t c, int64_t g) { return rstd[g] * op.weight[c]; });
  fill(op, bias, [&](int64_t c, int64_t) { return op.bias[c]; });
  fill(op, centre, [&](int64_t, int64_t g) { return mean[g]; });
  clear(grad_bias, row);
  clear(grad_weight, row);
  for_rows(op, [&](int64_t at, int64_t length) {
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const float centred = Stored<D>::load(x[at + i]) - centre[i];
      const float v = fma(centred, scale[i], bias[i]), s = sigmoid(v);
      const float through = Stored<D>::load(gradient[at + i]) * (s * fma(v, 1.0f - s, 1.0f));
      grad_norm[at + i] = through;
      grad_bias[i] += through;
      grad_weight[i] = fma(through, centred, grad_weight[i]);
    }
  });
  // The gradients through the group's mean and deviation are lines in x: shift + slope * (x - mean).
  float *grad_bias_sum = op.sums + image * 2 * op.channels, *grad_weight_sum = grad_bias_sum + op.channels;
  const int64_t width = op.channels / op.groups;
  const double count = static_cast<double>(op.size() / op.groups);
  for (int64_t c = 0; c < op.channels; ++c) {
    grad_bias_sum[c] = static_cast<float>(sum_of_channel(op, grad_bias, c));
    grad_weight_sum[c] = static_cast<float>(sum_of_channel(op, grad_weight, c) * static_cast<double>(rstd[c / width]));
  }
  float* shift = bias;
  for (int64_t g = 0; g < op.groups; ++g) {
    double to_mean = 0.0, to_deviation = 0.0;
    for (int64_t c = g * width; c < (g + 1) * width; ++c) {
      to_mean += static_cast<double>(op.weight[c]) * static_cast<double>(grad_bias_sum[c]);
      to_deviation += static_cast<double>(op.weight[c]) * static_cast<double>(grad_weight_sum[c]);
    }
    const double r = static_cast<double>(rstd[g]);
    grad_bias[g] = static_cast<float>(-r * to_mean / count);
    grad_weight[g] = static_cast<float>(-r * r * to_deviation / count);
  }
  fill(op, shift, [&](int64_t, int64_t g) { return grad_bias[g]; });
  fill(op, slope, [&](int64_t, int64_t g) { return grad_weight[g]; });
  for_rows(op, [&](int64_t at, int64_t length) {
#pragma omp simd
    for (int64_t i = 0; i < length; ++i) {
      const float centred = Stored<D>::load(x[at + i]) - centre[i];
      grad_x[at + i] = Stored<D>::store(fma(grad_norm[at + i], scale[i], fma(centred, slope[i], shift[i])));
    }
  });
}

}  // namespace

void group_norm_silu(const GroupNormSilu& op, int64_t begin, int64_t end, float* scratch) {
  const auto one = op.dtype == Dtype::f32 ? forward<Dtype::f32> : forward<Dtype::bf16>;
  for (int64_t image = begin; image < end; ++image) one(op, image, scratch);
}

void group_norm_silu_backward(const GroupNormSilu& op, int64_t begin, int64_t end, float* scratch) {
  const auto one = op.dtype == Dtype::f32 ? backward<Dtype::f32> : backward<Dtype::bf16>;
  for (int64_t image = begin; image < end; ++image) one(op, image, scratch);
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include "images_operator.h"

namespace fastvae {
namespace {

constexpr int64_t kGrain = 16384;  // elements: 10 us of a core at 0.6 ns each (AVX2, forward)

const float* channel_values(const Tensor& values, int64_t channels) {
  STD_TORCH_CHECK(values.is_cpu() && values.dim() == 1 && values.size(0) == channels && values.is_contiguous() &&
                      dtype_of(values) == Dtype::f32,
                  "expected a weight and a bias in fp32, dense, of one value a channel");
  return static_cast<const float*>(values.data_ptr());
}

float* group_values(const Tensor& values, const GroupNormSilu& op) {
  STD_TORCH_CHECK(values.is_cpu() && values.dim() == 2 && values.size(0) == op.images && values.size(1) == op.groups &&
                      values.is_contiguous() && dtype_of(values) == Dtype::f32,
                  "expected statistics (N, groups) in fp32, dense");
  return static_cast<float*>(values.data_ptr());
}

GroupNormSilu operands(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t groups) {
  check_images(x);
  GroupNormSilu op{};
  op.x = x.data_ptr();
  op.dtype = dtype_of(x);
  STD_TORCH_CHECK(op.dtype == Dtype::f32 || op.dtype == Dtype::bf16, "expected fp32 or bf16");
  op.images = x.size(0);
  op.channels = x.size(1);
  op.places = x.size(2) * x.size(3);
  op.groups = groups;
  STD_TORCH_CHECK(groups > 0 && op.channels > 0 && op.channels % groups == 0,
                  "expected groups that divide the channels");
  op.weight = channel_values(weight, op.channels);
  op.bias = channel_values(bias, op.channels);
  return op;
}

// Calls kernel(begin, end, scratch) in parallel over the images, each thread with its own scratch.
template <typename F>
void for_images(const GroupNormSilu& op, int64_t scratch, const F& kernel) {
  const auto run = [&](int64_t begin, int64_t end) {
    const std::unique_ptr<float[]> own(new float[static_cast<size_t>(scratch)]);
    kernel(begin, end, own.get());
  };
  if (op.images * op.size() <= kGrain) run(0, op.images);
  else torch::stable::parallel_for(0, op.images, (kGrain + op.size() - 1) / op.size(), run);
}

std::tuple<Tensor, Tensor, Tensor> group_norm_silu_(Tensor x, Tensor weight, Tensor bias, int64_t groups, double eps) {
  GroupNormSilu op = operands(x, weight, bias, groups);
  const int64_t sizes[2] = {op.images, groups};
  const Tensor output = empty_images_like(x), mean = dense(sizes, 2, ScalarType::Float),
               rstd = dense(sizes, 2, ScalarType::Float);
  op.output = output.data_ptr();
  op.eps = eps;
  op.mean = static_cast<float*>(mean.data_ptr());
  op.rstd = static_cast<float*>(rstd.data_ptr());
  const Isa chosen = isa();
  for_images(op, kForwardRows * op.row(), [&](int64_t begin, int64_t end, float* scratch) {
    FASTVAE_RUN(chosen, group_norm_silu, op, begin, end, scratch);
  });
  return {output, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor> group_norm_silu_backward_(Tensor gradient, Tensor x, Tensor mean, Tensor rstd,
                                                             Tensor weight, Tensor bias, int64_t groups) {
  GroupNormSilu op = operands(x, weight, bias, groups);
  check_images(gradient);
  for (int64_t d = 0; d < 4; ++d) {
    STD_TORCH_CHECK(gradient.size(d) == x.size(d) && dtype_of(gradient) == op.dtype,
                    "expected a gradient of the images' shape and dtype");
  }
  const Tensor grad_x = empty_images_like(x), grad_weight = dense(&op.channels, 1, ScalarType::Float),
               grad_bias = dense(&op.channels, 1, ScalarType::Float);
  const std::unique_ptr<float[]> sums(new float[static_cast<size_t>(op.images * 2 * op.channels)]);
  op.gradient = gradient.data_ptr();
  op.output = grad_x.data_ptr();
  op.sums = sums.get();
  op.mean = group_values(mean, op);
  op.rstd = group_values(rstd, op);
  const int64_t scratch = kBackwardRows * op.row() + (op.dtype == Dtype::f32 ? 0 : op.size());
  const Isa chosen = isa();
  for_images(op, scratch, [&](int64_t begin, int64_t end, float* own) {
    FASTVAE_RUN(chosen, group_norm_silu_backward, op, begin, end, own);
  });
  // Added in the order of the images: the same sum for any number of threads.
  float *to_weight = static_cast<float*>(grad_weight.data_ptr()), *to_bias = static_cast<float*>(grad_bias.data_ptr());
  const std::unique_ptr<double[]> totals(new double[static_cast<size_t>(2 * op.channels)]());
  for (int64_t image = 0; image < op.images; ++image) {
    const float* own = op.sums + image * 2 * op.channels;
    for (int64_t c = 0; c < 2 * op.channels; ++c) totals[c] += static_cast<double>(own[c]);
  }
  for (int64_t c = 0; c < op.channels; ++c) {
    to_bias[c] = static_cast<float>(totals[c]);
    to_weight[c] = static_cast<float>(totals[op.channels + c]);
  }
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("group_norm_silu", TORCH_BOX(&fastvae::group_norm_silu_));
  m.impl("group_norm_silu_backward", TORCH_BOX(&fastvae::group_norm_silu_backward_));
}
#endif
