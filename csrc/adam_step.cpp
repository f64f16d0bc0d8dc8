// One step of Adam or AdamW for many parameters, in one pass over memory that also writes the low-precision copies.
//
// With bf16 gradients and copies it moves 28 bytes an element: 14 read (gradient 2; weight and moments 4 each) and 14
// written (weight and moments 4 each; copy 2).
#include "block.h"

namespace fastvae {

// One parameter. Its tensors have the same strides, so that they are ranges of `count` elements.
struct AdamTensor {
  void *weight, *exp_avg, *exp_avg_sq;
  Dtype dtype;  // of those three
  Source gradient;
  Sink working;       // no data: no copy
  int64_t first, count;  // its first unit among those of all parameters, its elements
  double size, eps;      // the update is size * exp_avg / (sqrt(exp_avg_sq) + eps), both corrected for the bias
};

struct Adam {
  const AdamTensor* tensors;
  double unscale;  // what gradients are multiplied by
  double gain1;    // 1 - beta1
  double beta2, gain2;
  double decay;  // of weights into the gradient, or, decoupled, of weights
  bool decoupled;
};

// Threads share the parameters in units of one cache line of bf16: their loads stay aligned, wherever they begin.
constexpr int64_t kAdamUnit = 32;

}  // namespace fastvae

// Update units [begin, end) of all parameters. `at` is the parameter that holds the first of these units.
FASTVAE_KERNEL(void, adam_step, const fastvae::Adam& op, int64_t at, int64_t begin, int64_t end)

namespace fastvae::FASTVAE_ISA {
namespace {

enum class Decay { none, into_gradient, decoupled };

FASTVAE_INLINE float root(float x) { return __builtin_sqrtf(x); }
FASTVAE_INLINE double root(double x) { return __builtin_sqrt(x); }

template <Decay D, typename A>
[[gnu::noinline]] static void update(int count, const A* __restrict gradient, A* __restrict weight,
                                     A* __restrict exp_avg, A* __restrict exp_avg_sq, A unscale, A gain1, A beta2,
                                     A gain2, A decay, A size, A eps) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    A w = weight[i], g = gradient[i] * unscale;
    if constexpr (D == Decay::into_gradient) g = fma(decay, w, g);
    if constexpr (D == Decay::decoupled) w = fma(-decay, w, w);
    const A m = fma(gain1, g - exp_avg[i], exp_avg[i]);
    const A v = fma(beta2, exp_avg_sq[i], gain2 * g * g);
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    weight[i] = w - size * m / (root(v) + eps);
  }
}

template <typename A>
void range(const Adam& op, const AdamTensor& tensor, int64_t begin, int64_t end) {
  alignas(64) A buffer[kBlock];
  const auto step = op.decay == 0.0 ? update<Decay::none, A>
                    : op.decoupled  ? update<Decay::decoupled, A>
                                    : update<Decay::into_gradient, A>;
  for_blocks(begin, end, [&](int64_t at, int count) {
    A* weight = static_cast<A*>(tensor.weight) + at;
    step(count, load(tensor.gradient, at, count, buffer), weight, static_cast<A*>(tensor.exp_avg) + at,
         static_cast<A*>(tensor.exp_avg_sq) + at, static_cast<A>(op.unscale), static_cast<A>(op.gain1),
         static_cast<A>(op.beta2), static_cast<A>(op.gain2), static_cast<A>(op.decay), static_cast<A>(tensor.size),
         static_cast<A>(tensor.eps));
    if (tensor.working.data != nullptr) store(tensor.working, at, count, weight);
  });
}

}  // namespace

void adam_step(const Adam& op, int64_t at, int64_t begin, int64_t end) {
  for (; begin < end; ++at) {
    const AdamTensor& tensor = op.tensors[at];
    const int64_t from = (begin - tensor.first) * kAdamUnit, most = (end - tensor.first) * kAdamUnit;
    const int64_t to = most < tensor.count ? most : tensor.count;
    if (tensor.dtype == Dtype::f64) range<double>(op, tensor, from, to);
    else range<float>(op, tensor, from, to);
    begin = tensor.first + (to + kAdamUnit - 1) / kAdamUnit;
  }
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include <algorithm>
#include <cmath>
#include <vector>

#include "operator.h"

namespace fastvae {
namespace {

constexpr int64_t kGrain = 16384;  // elements: 8 us of a Zen 4 core at 0.5 ns each (AVX-512, bf16, 100,000 in L2)

void expect_shape(const Tensor& tensor, const Tensor& weight) {
  STD_TORCH_CHECK(tensor.is_cpu() && tensor.layout() == weight.layout(), "expected dense tensors on the CPU");
  const auto sizes = tensor.sizes(), expected = weight.sizes();
  STD_TORCH_CHECK(std::equal(sizes.begin(), sizes.end(), expected.begin(), expected.end()),
                  "expected tensors of the weight's shape");
}

bool lies_alike(const Tensor& tensor, const Tensor& weight) {
  const auto sizes = weight.sizes(), strides = tensor.strides(), expected = weight.strides();
  for (size_t d = 0; d < sizes.size(); ++d)
    if (sizes[d] > 1 && strides[d] != expected[d]) return false;
  return true;
}

void* data_like(const Tensor& tensor, const Tensor& weight) {
  expect_shape(tensor, weight);
  STD_TORCH_CHECK(tensor.numel() == 0 || lies_alike(tensor, weight), "expected tensors with the weight's strides");
  return tensor.data_ptr();
}

// The gradient in the weight's order of elements. autograd lays out most gradients so; a copy serves the rest.
Tensor arranged(const Tensor& gradient, const Tensor& weight) {
  expect_shape(gradient, weight);
  if (gradient.numel() == 0 || lies_alike(gradient, weight)) return gradient;
  Tensor copy = torch::stable::empty_like(weight);
  return torch::stable::copy_(copy, gradient);
}

double number(const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.numel() == 1, "expected one number");
  return value_at(tensor, 0);
}

void advance(const Tensor& step) {
  const double value = number(step) + 1.0;
  if (step.scalar_type() == ScalarType::Double) *static_cast<double*>(step.data_ptr()) = value;
  else *static_cast<float*>(step.data_ptr()) = static_cast<float>(value);
}

void adam_step_(std::vector<Tensor> weights, std::vector<Tensor> exp_avgs, std::vector<Tensor> exp_avg_sqs,
                std::vector<Tensor> working, std::vector<Tensor> gradients, std::vector<Tensor> steps,
                std::optional<Tensor> lr_tensor, double lr, double beta1, double beta2, double eps,
                double weight_decay, bool decoupled, std::optional<Tensor> grad_scale,
                std::optional<Tensor> found_inf) {
  const size_t count = weights.size();
  STD_TORCH_CHECK(exp_avgs.size() == count && exp_avg_sqs.size() == count && gradients.size() == count &&
                      steps.size() == count && (working.empty() || working.size() == count),
                  "expected lists of one length");
  if (lr_tensor) lr = number(*lr_tensor);
  const Adam shared{nullptr, grad_scale ? 1.0 / number(*grad_scale) : 1.0, 1.0 - beta1, beta2, 1.0 - beta2,
                    decoupled ? lr * weight_decay : weight_decay, decoupled};

  std::vector<AdamTensor> tensors(count);
  int64_t units = 0;
  double last = -1.0, size = 0.0, root_correction = 0.0;
  for (size_t k = 0; k < count; ++k) {
    const Tensor& weight = weights[k];
    const Dtype dtype = dtype_of(weight);
    STD_TORCH_CHECK(dtype == Dtype::f32 || dtype == Dtype::f64, "expected fp32 or fp64 weights");
    STD_TORCH_CHECK(fills_memory(weight), "expected weights without gaps in memory");
    STD_TORCH_CHECK(dtype_of(exp_avgs[k]) == dtype && dtype_of(exp_avg_sqs[k]) == dtype,
                    "expected moments of the weight's dtype");
    const Dtype given = dtype_of(gradients[k]);
    STD_TORCH_CHECK(given == dtype || (dtype == Dtype::f32 && (given == Dtype::bf16 || given == Dtype::f16)),
                    "expected gradients of the weight's dtype, or bf16 or fp16 ones of fp32 weights");
    gradients[k] = arranged(gradients[k], weight);

    AdamTensor& tensor = tensors[k];
    tensor.weight = data_like(weight, weight);
    tensor.exp_avg = data_like(exp_avgs[k], weight);
    tensor.exp_avg_sq = data_like(exp_avg_sqs[k], weight);
    tensor.dtype = dtype;
    tensor.gradient = {gradients[k].data_ptr(), dtype_of(gradients[k]), 1, 1};
    if (!working.empty()) {
      tensor.working = {data_like(working[k], weight), dtype_of(working[k])};
      const Dtype low = tensor.working.dtype;
      STD_TORCH_CHECK(dtype == Dtype::f32 && (low == Dtype::bf16 || low == Dtype::f16),
                      "expected bf16 or fp16 copies of fp32 weights");
    }
    tensor.first = units;
    tensor.count = weight.numel();
    units += (tensor.count + kAdamUnit - 1) / kAdamUnit;

    // sqrt(v / c2) + eps is (sqrt(v) + eps sqrt(c2)) / sqrt(c2): corrected once here, not by a division an element.
    if (const double step = number(steps[k]) + 1.0; step != last) {
      last = step;
      root_correction = std::sqrt(1.0 - std::pow(beta2, step));
      size = lr / (1.0 - std::pow(beta1, step)) * root_correction;
    }
    tensor.size = size;
    tensor.eps = eps * root_correction;
  }

  // Everything is checked by now: a call does all of its work, or none.
  if (found_inf && number(*found_inf) != 0.0) return;
  for (const Tensor& step : steps) advance(step);
  Adam op = shared;
  op.tensors = tensors.data();
  const auto kernel = FASTVAE_CHOSEN(isa(), adam_step);
  const auto run = [&](int64_t begin, int64_t end) {
    const auto after = std::upper_bound(tensors.begin(), tensors.end(), begin,
                                        [](int64_t unit, const AdamTensor& tensor) { return unit < tensor.first; });
    kernel(op, after - tensors.begin() - 1, begin, end);
  };
  if (units * kAdamUnit <= kGrain) run(0, units);
  else torch::stable::parallel_for(0, units, kGrain / kAdamUnit, run);
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) { m.impl("adam_step_", TORCH_BOX(&fastvae::adam_step_)); }
#endif
