// K samples of each row and log q(z | x) - log p(z) of each, from one read of mu and logvar and one exponential;
// backward draws the noise again.
#include "block.h"
#include "noise.h"

namespace fastvae {

// Elements of mu are (batch, event); those of z, its gradient and the noise (batch, samples, event).
struct Samples {
  Source mu, logvar;
  Noise noise;
  Source grad_z;
  const void* grad_ratio;  // (batch, samples), dense, in the type that is computed in
  Sink z, grad_mu, grad_logvar;
  int64_t event, samples;
};

// The gradients that reach the backward, and the estimator (see fastvae/ops/reparameterize_log_ratio.py).
struct Estimator {
  bool z, ratio;            // the gradients that are present
  bool constant, weighted;  // log q has constant parameters; each sample is weighted by its share of the row's gradient
};

}  // namespace fastvae

// Over columns [begin, end) of a row. Forward adds each sample's part of the log ratio to partial[k * step].
FASTVAE_KERNEL(void, reparameterize_log_ratio, const fastvae::Samples& op, int64_t row, int64_t begin, int64_t end,
               double* partial, int64_t step)
FASTVAE_KERNEL(void, reparameterize_log_ratio_backward, const fastvae::Samples& op, int64_t row, int64_t begin,
               int64_t end, fastvae::Estimator estimator)

namespace fastvae::FASTVAE_ISA {
namespace {

// Calls body(k, take, first) for the samples k .. k + take of `count` columns from `at`, which are the elements from
// `first` on. Short events take many samples at a time, because a draw of a few numbers costs as much as one of 64.
template <typename F>
FASTVAE_INLINE void for_samples(const Samples& op, int64_t row, int64_t at, int count, F body) {
  const int64_t most = count == op.event ? kBlock / count : 1;
  for (int64_t k = 0; k < op.samples; k += most) {
    const int64_t left = op.samples - k;
    body(k, static_cast<int>(left < most ? left : most), (row * op.samples + k) * op.event + at);
  }
}

template <typename A>
void forward(const Samples& op, int64_t row, int64_t begin, int64_t end, double* partial, int64_t step) {
  alignas(64) A mu_buffer[kBlock], logvar_buffer[kBlock], deviation[kBlock], z_buffer[kBlock];
  Draw<A> draw;
  for_blocks(begin, end, [&](int64_t at, int count) {
    const A* __restrict mu = load(op.mu, row * op.event + at, count, mu_buffer);
    const A* __restrict logvar = load(op.logvar, row * op.event + at, count, logvar_buffer);
    A logs = 0;
#pragma omp simd reduction(+ : logs)
    for (int i = 0; i < count; ++i) {
      deviation[i] = exp(A(0.5) * logvar[i]);
      logs += logvar[i];
    }
    for_samples(op, row, at, count, [&](int64_t k, int take, int64_t first) {
      const A* block_eps = draw(op.noise, first, take * count);
      A* block_z = place(op.z, first, z_buffer);
      for (int j = 0; j < take; ++j) {
        const A* __restrict eps = block_eps + j * count;
        A* __restrict z = block_z + j * count;
        A sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int i = 0; i < count; ++i) {
          z[i] = fma(deviation[i], eps[i], mu[i]);
          sum += (z[i] - eps[i]) * (z[i] + eps[i]);
        }
        partial[(k + j) * step] += 0.5 * (static_cast<double>(sum) - static_cast<double>(logs));
      }
      store(op.z, first, take * count, block_z);
    });
  });
}

// With u = f * grad_z + h * z, where h = f * grad_ratio and f = 1, or a sample's share of its row's gradient:
// the gradient of z is t = u, or t = u - h * eps / deviation where the parameters of log q are constants. Then
// grad_mu = sum t and grad_logvar = sum (t * deviation * eps - h) / 2, without the h if they are constants.
template <typename A, bool kZ, bool kRatio, bool kConstant>
void backward(const Samples& op, int64_t row, int64_t begin, int64_t end, bool weighted) {
  alignas(64) A mu_buffer[kBlock], logvar_buffer[kBlock], grad_z_buffer[kBlock];
  alignas(64) A deviation[kBlock], precision[kBlock], to_mu[kBlock], to_logvar[kBlock];
  Draw<A> draw;
  const A* grad_ratio = kRatio ? static_cast<const A*>(op.grad_ratio) + row * op.samples : nullptr;
  double total = 0.0;
  if constexpr (kRatio) {
    for (int64_t k = 0; k < op.samples; ++k) total += static_cast<double>(grad_ratio[k]);
  }
  const A past = kRatio && !kConstant ? static_cast<A>(total) : A(0);
  for_blocks(begin, end, [&](int64_t at, int count) {
    const A* __restrict mu = load(op.mu, row * op.event + at, count, mu_buffer);
    const A* __restrict logvar = load(op.logvar, row * op.event + at, count, logvar_buffer);
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      deviation[i] = exp(A(0.5) * logvar[i]);
      if constexpr (kConstant) precision[i] = 1 / deviation[i];
      to_mu[i] = to_logvar[i] = 0;
    }
    for_samples(op, row, at, count, [&](int64_t k, int take, int64_t first) {
      const A* block_eps = draw(op.noise, first, take * count);
      const A* block_grad = kZ ? load(op.grad_z, first, take * count, grad_z_buffer) : nullptr;
      for (int j = 0; j < take; ++j) {
        A f = 1;
        if (weighted) f = total == 0.0 ? A(0) : static_cast<A>(static_cast<double>(grad_ratio[k + j]) / total);
        const A h = kRatio ? f * grad_ratio[k + j] : A(0);
        const A* __restrict eps = block_eps + j * count;
        const A* __restrict grad_z = kZ ? block_grad + j * count : nullptr;
#pragma omp simd
        for (int i = 0; i < count; ++i) {
          A of_z = 0;
          if constexpr (kZ) of_z = f * grad_z[i];
          if constexpr (kRatio) of_z = fma(h, fma(deviation[i], eps[i], mu[i]), of_z);
          if constexpr (kConstant) of_z = fma(-h, eps[i] * precision[i], of_z);
          to_mu[i] += of_z;
          to_logvar[i] = fma(of_z, eps[i], to_logvar[i]);
        }
      }
    });
    A* grad_mu = place(op.grad_mu, row * op.event + at, to_mu);
    A* grad_logvar = place(op.grad_logvar, row * op.event + at, to_logvar);
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      grad_mu[i] = to_mu[i];
      grad_logvar[i] = A(0.5) * fma(deviation[i], to_logvar[i], -past);
    }
    store(op.grad_mu, row * op.event + at, count, grad_mu);
    store(op.grad_logvar, row * op.event + at, count, grad_logvar);
  });
}

template <typename A>
void backward(const Samples& op, int64_t row, int64_t begin, int64_t end, Estimator estimator) {
  if (!estimator.ratio) return backward<A, true, false, false>(op, row, begin, end, false);
  const bool weighted = estimator.weighted;
  if (estimator.z && estimator.constant) backward<A, true, true, true>(op, row, begin, end, weighted);
  else if (estimator.z) backward<A, true, true, false>(op, row, begin, end, weighted);
  else if (estimator.constant) backward<A, false, true, true>(op, row, begin, end, weighted);
  else backward<A, false, true, false>(op, row, begin, end, weighted);
}

}  // namespace

void reparameterize_log_ratio(const Samples& op, int64_t row, int64_t begin, int64_t end, double* partial,
                              int64_t step) {
  if (op.mu.dtype == Dtype::f64) forward<double>(op, row, begin, end, partial, step);
  else forward<float>(op, row, begin, end, partial, step);
}

void reparameterize_log_ratio_backward(const Samples& op, int64_t row, int64_t begin, int64_t end,
                                       Estimator estimator) {
  if (op.mu.dtype == Dtype::f64) backward<double>(op, row, begin, end, estimator);
  else backward<float>(op, row, begin, end, estimator);
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include "latent_operator.h"

namespace fastvae {
namespace {

constexpr int64_t kStl = 1, kDreg = 2;  // the codes of fastvae/ops/reparameterize_log_ratio.py; 0 is iwae

Samples samples_of(const Tensor& mu, const Tensor& logvar, const std::optional<Tensor>& eps,
                   const std::optional<Tensor>& state, int64_t row_offset, int64_t stream, int64_t samples) {
  STD_TORCH_CHECK(samples > 0 && mu.scalar_type() == logvar.scalar_type() &&
                      (!eps || (eps->scalar_type() == mu.scalar_type() && eps->numel() == mu.numel() * samples)),
                  "expected mu, logvar and eps of one dtype, and an eps for each sample");
  Samples op{};
  op.mu = source(mu, mu);
  op.logvar = source(logvar, mu);
  op.event = event_of(mu);
  op.samples = samples;
  // A row of noise holds all samples of its row of mu.
  op.noise = make_noise(eps ? *eps : mu, eps, state, row_offset * samples, stream);
  return op;
}

// The chunks of columns in a row. They depend on the shape alone.
int64_t chunks_of(const Samples& op) { return (op.event + kChunk - 1) / kChunk; }

// Calls body(row, begin, end, chunk) for every chunk of every row.
template <typename F>
void for_chunks(const Samples& op, int64_t batch, const F& body) {
  const int64_t per_row = chunks_of(op), size = op.samples * (op.event < kChunk ? op.event : kChunk);
  const auto run = [&](int64_t first, int64_t last) {
    for (int64_t unit = first; unit < last; ++unit) {
      const int64_t chunk = unit % per_row, begin = chunk * kChunk, end = begin + kChunk;
      body(unit / per_row, begin, end < op.event ? end : op.event, chunk);
    }
  };
  if (batch * per_row * size <= kGrain) return run(0, batch * per_row);
  torch::stable::parallel_for(0, batch * per_row, (kGrain + size - 1) / size, run);
}

std::tuple<Tensor, Tensor> forward(const Tensor& mu, const Tensor& logvar, const std::optional<Tensor>& eps,
                                   const std::optional<Tensor>& state, int64_t row_offset, int64_t stream,
                                   int64_t samples) {
  const Isa chosen = isa();
  Samples op = samples_of(mu, logvar, eps, state, row_offset, stream, samples);
  constexpr int64_t kMaxDim = 64;
  STD_TORCH_CHECK(mu.dim() < kMaxDim, "more than 63 dimensions");
  int64_t sizes[kMaxDim] = {batch_of(mu), samples};
  for (int64_t d = 1; d < mu.dim(); ++d) sizes[d + 1] = mu.size(d);
  const Tensor z = dense(sizes, mu.dim() + 1, mu.scalar_type());
  const bool wide = mu.scalar_type() == ScalarType::Double;
  const Tensor ratio = dense(sizes, 2, wide ? ScalarType::Double : ScalarType::Float);
  op.z = sink(z);
  const int64_t rows = sizes[0] * samples, per_row = chunks_of(op);
  const std::unique_ptr<double[]> partial(new double[rows * per_row]());
  for_chunks(op, sizes[0], [&](int64_t row, int64_t begin, int64_t end, int64_t chunk) {
    FASTVAE_RUN(chosen, reparameterize_log_ratio, op, row, begin, end,
                partial.get() + row * samples * per_row + chunk, per_row);
  });
  for (int64_t row = 0; row < rows; ++row) {
    double total = 0.0;
    for (int64_t chunk = 0; chunk < per_row; ++chunk) total += partial[row * per_row + chunk];
    if (wide) static_cast<double*>(ratio.data_ptr())[row] = total;
    else static_cast<float*>(ratio.data_ptr())[row] = static_cast<float>(total);
  }
  return {z, ratio};
}

std::tuple<Tensor, Tensor> backward(const std::optional<Tensor>& grad_z, const std::optional<Tensor>& grad_ratio,
                                    const Tensor& mu, const Tensor& logvar, const std::optional<Tensor>& eps,
                                    const std::optional<Tensor>& state, int64_t row_offset, int64_t stream,
                                    int64_t samples, int64_t estimator) {
  const Isa chosen = isa();
  const ScalarType wide = mu.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  STD_TORCH_CHECK(grad_z || grad_ratio, "expected a gradient");
  STD_TORCH_CHECK(!grad_z || (grad_z->is_contiguous() && grad_z->scalar_type() == mu.scalar_type() &&
                              grad_z->numel() == mu.numel() * samples),
                  "expected a dense grad_z (B, K, ...) of mu's dtype");
  STD_TORCH_CHECK(!grad_ratio || (grad_ratio->is_contiguous() && grad_ratio->scalar_type() == wide &&
                                  grad_ratio->numel() == batch_of(mu) * samples),
                  "expected a dense grad_ratio (B, K) in fp32 or fp64");
  const Tensor grad_mu = dense_like(mu), grad_logvar = dense_like(mu);
  Samples op = samples_of(mu, logvar, eps, state, row_offset, stream, samples);
  op.grad_mu = sink(grad_mu);
  op.grad_logvar = sink(grad_logvar);
  if (grad_z) op.grad_z = source(*grad_z, *grad_z);
  if (grad_ratio) op.grad_ratio = grad_ratio->data_ptr();
  const Estimator chosen_estimator{grad_z.has_value(), grad_ratio.has_value(), estimator == kStl || estimator == kDreg,
                                   estimator == kDreg};
  for_chunks(op, batch_of(mu), [&](int64_t row, int64_t begin, int64_t end, int64_t) {
    FASTVAE_RUN(chosen, reparameterize_log_ratio_backward, op, row, begin, end, chosen_estimator);
  });
  return {grad_mu, grad_logvar};
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("reparameterize_log_ratio", TORCH_BOX(&fastvae::forward));
  m.impl("reparameterize_log_ratio_backward", TORCH_BOX(&fastvae::backward));
}
#endif
