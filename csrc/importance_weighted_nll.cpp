// The importance-weighted bound of each row, -log mean_k exp(-nll_k - log_ratio_k), and its gradients.
#include "block.h"

namespace fastvae {

struct Bound {
  Source nll, log_ratio;  // (batch, samples), dense
  Sink grad_nll, grad_log_ratio;
  int64_t samples;
  double log_samples;
};

}  // namespace fastvae

// The sum of the losses of rows [begin, end), and their gradients times `factor`. If `losses` is given, each loss is
// also written there. If `outputs` is given, in the type of the computation, a row's gradients are also times its own.
FASTVAE_KERNEL(double, importance_weighted_nll, const fastvae::Bound& op, int64_t begin, int64_t end,
               fastvae::Want want, double factor, const void* outputs, double* losses)

namespace fastvae::FASTVAE_ISA {
namespace {

template <typename A>
constexpr A kInfinity = static_cast<A>(__builtin_inf());

// Log-weights are measured from the largest, unless that is infinite: inf - inf would be NaN.
template <typename A>
FASTVAE_INLINE A origin(A least) {
  return least == kInfinity<A> || least == -kInfinity<A> ? A(0) : least;
}

// nll + log_ratio of samples [at, at + count) of the flattened inputs into `value`; returns the least, NaNs aside.
template <typename A>
FASTVAE_INLINE A values(const Bound& op, int64_t at, int count, A* buffers, A* __restrict value) {
  const A* __restrict nll = load(op.nll, at, count, buffers);
  const A* __restrict log_ratio = load(op.log_ratio, at, count, buffers + kBlock);
  A least = kInfinity<A>;
#pragma omp simd reduction(min : least)
  for (int i = 0; i < count; ++i) {
    value[i] = nll[i] + log_ratio[i];
    least = value[i] < least ? value[i] : least;
  }
  return least;
}

// exp(from - value) in place of each value; returns their sum.
template <typename A>
FASTVAE_INLINE A exponentials(int count, A from, A* __restrict value) {
  A sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int i = 0; i < count; ++i) {
    value[i] = exp(from - value[i]);
    sum += value[i];
  }
  return sum;
}

template <typename A>
FASTVAE_INLINE void write(const Sink& sink, int64_t at, int count, A scale, const A* __restrict value, A* buffer) {
  A* __restrict grad = place(sink, at, buffer);
#pragma omp simd
  for (int i = 0; i < count; ++i) grad[i] = scale * value[i];
  store(sink, at, count, grad);
}

template <typename A, bool kGrad>
double rows(const Bound& op, int64_t begin, int64_t end, A factor, const A* outputs, double* losses) {
  alignas(64) A buffers[2 * kBlock], value[kBlock];
  const bool whole = op.samples <= kBlock;
  double total = 0.0;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t first = row * op.samples, last = first + op.samples;
    A least = kInfinity<A>, sum = 0;
    for_blocks(first, last, [&](int64_t at, int count) {
      const A before = least, block = values(op, at, count, buffers, value);
      least = block < least ? block : least;
      // Samples without weight leave the sum 0 (or NaN), wherever it is measured from.
      if (before != kInfinity<A>) sum *= exp(origin(least) - origin(before));
      sum += exponentials(count, origin(least), value);
    });
    const A from = origin(least);
    const A bound = sum != sum ? sum : from == least ? from - log(sum) : least;
    const double loss = static_cast<double>(bound) + op.log_samples;
    total += loss;
    if (losses) losses[row] = loss;
    if constexpr (kGrad) {
      const A scale = (outputs ? factor * outputs[row] : factor) / sum;
      for_blocks(first, last, [&](int64_t at, int count) {
        if (!whole) {
          values(op, at, count, buffers, value);
          exponentials(count, from, value);
        }
        write(op.grad_nll, at, count, scale, value, buffers);
        write(op.grad_log_ratio, at, count, scale, value, buffers);
      });
    }
  }
  return total;
}

template <typename A>
double rows(const Bound& op, int64_t begin, int64_t end, Want want, double factor, const void* outputs,
            double* losses) {
  const auto* given = static_cast<const A*>(outputs);
  return want == Want::loss ? rows<A, false>(op, begin, end, static_cast<A>(factor), given, losses)
                            : rows<A, true>(op, begin, end, static_cast<A>(factor), given, losses);
}

}  // namespace

double importance_weighted_nll(const Bound& op, int64_t begin, int64_t end, Want want, double factor,
                               const void* outputs, double* losses) {
  return op.nll.dtype == Dtype::f64 ? rows<double>(op, begin, end, want, factor, outputs, losses)
                                    : rows<float>(op, begin, end, want, factor, outputs, losses);
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include <cmath>

#include "operator.h"

namespace fastvae {
namespace {

// Samples a thread, at least: an exponential or two each.
constexpr int64_t kGrain = 16384;

Bound bound(const Tensor& nll, const Tensor& log_ratio, const Tensor& grad_nll, const Tensor& grad_log_ratio) {
  STD_TORCH_CHECK(nll.dim() == 2 && nll.size(1) > 0 && nll.scalar_type() == log_ratio.scalar_type() &&
                      nll.is_contiguous() && log_ratio.is_contiguous(),
                  "expected dense nll and log_ratio (B, K) of one dtype");
  return {source(nll, nll), source(log_ratio, nll), sink(grad_nll), sink(grad_log_ratio), nll.size(1),
          std::log(static_cast<double>(nll.size(1)))};
}

// Calls body(begin, end, chunk) for chunks of whole rows, which depend on the shape alone; returns their number.
template <typename F>
int64_t for_rows(const Tensor& nll, const F& body) {
  const int64_t batch = nll.size(0), samples = nll.size(1), size = samples < kChunk ? kChunk / samples : 1;
  const int64_t chunks = (batch + size - 1) / size;
  const auto run = [&](int64_t first, int64_t last) {
    for (int64_t chunk = first; chunk < last; ++chunk) {
      const int64_t begin = chunk * size, end = begin + size;
      body(begin, end < batch ? end : batch, chunk);
    }
  };
  if (batch * samples <= kGrain) run(0, chunks);
  else torch::stable::parallel_for(0, chunks, (kGrain + size * samples - 1) / (size * samples), run);
  return chunks;
}

std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& nll, const Tensor& log_ratio, int64_t reduction,
                                           double weight, const std::optional<Tensor>& weight_tensor,
                                           bool with_grad) {
  const Isa chosen = isa();
  const Reduce reduce(nll, reduction, weight, weight_tensor);
  const Want want = with_grad && reduction != kNone ? Want::both : Want::loss;
  const Tensor grad_nll = dense_like(nll, want == Want::both), grad_log_ratio = dense_like(nll, want == Want::both);
  const Bound op = bound(nll, log_ratio, grad_nll, grad_log_ratio);
  const bool per_row = reduction == kNone;
  // The sums of chunks, no more than rows, or the losses of the rows themselves.
  const std::unique_ptr<double[]> parts(new double[reduce.batch]);
  const int64_t chunks = for_rows(nll, [&](int64_t begin, int64_t end, int64_t chunk) {
    const double sum = FASTVAE_RUN(chosen, importance_weighted_nll, op, begin, end, want, reduce.factor(), nullptr,
                                   per_row ? parts.get() : nullptr);
    if (!per_row) parts[chunk] = sum;
  });
  return {reduce.total(nll.scalar_type(), parts.get(), per_row ? 1 : chunks, 1.0, 0.0), grad_nll, grad_log_ratio};
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& nll, const Tensor& log_ratio,
                                    int64_t reduction, double weight, const std::optional<Tensor>& weight_tensor) {
  const Isa chosen = isa();
  const Reduce reduce(nll, reduction, weight, weight_tensor);
  const Factors factors(reduce, grad_output);
  const Tensor grad_nll = dense_like(nll), grad_log_ratio = dense_like(nll);
  const Bound op = bound(nll, log_ratio, grad_nll, grad_log_ratio);
  const bool per_row = reduction == kNone;
  STD_TORCH_CHECK((grad_output.scalar_type() == ScalarType::Double) == (op.nll.dtype == Dtype::f64),
                  "expected a gradient of the loss's dtype");
  const double factor = per_row ? reduce.factor() : factors[0];
  for_rows(nll, [&](int64_t begin, int64_t end, int64_t) {
    FASTVAE_RUN(chosen, importance_weighted_nll, op, begin, end, Want::grad, factor,
                per_row ? grad_output.data_ptr() : nullptr, nullptr);
  });
  return {grad_nll, grad_log_ratio};
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("importance_weighted_nll", TORCH_BOX(&fastvae::forward));
  m.impl("importance_weighted_nll_backward", TORCH_BOX(&fastvae::backward));
}
#endif
