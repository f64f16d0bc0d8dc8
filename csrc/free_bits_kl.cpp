// Sums over the batch of the KL(N(mu, exp(logvar)) || N(0, I)) of groups of columns, and their gradients.
//
// Rows shorter than a block are processed several at a time: a panel is as many whole rows as fit a block, or one row,
// and each place in it has an accumulator. So loops are long whatever the event, and contain no division.
#include "latent.h"

namespace fastvae {

struct GroupKl {
  Source mu, logvar;  // same event
  Sink grad_mu, grad_logvar;
  int64_t elements, panel;
  const void* factors;  // of the gradients, one a place of the panel, in the type that is computed in
};

}  // namespace fastvae

// Over panels [begin, end): the sums of the KL at places [first, first + count), count <= kBlock.
FASTVAE_KERNEL(void, gaussian_kl_columns, const fastvae::GroupKl& op, int64_t begin, int64_t end, int64_t first,
               int count, double* sums)
// Over elements [begin, end): the gradients.
FASTVAE_KERNEL(void, gaussian_kl_columns_backward, const fastvae::GroupKl& op, int64_t begin, int64_t end)

namespace fastvae::FASTVAE_ISA {
namespace {

constexpr int kFlush = 16;  // panels that are added in float, before their sum is added in double

template <typename A>
[[gnu::noinline]] static void add(const A* __restrict mu, const A* __restrict logvar, int count, A* __restrict sums) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const Exponential<A> h = exponential(A(0.5) * logvar[i]);
    sums[i] += kl_of(mu[i], h.expm1, h.excess);
  }
}

template <typename A>
[[gnu::noinline]] static void flush(A* __restrict sums, int count, double* __restrict totals) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    totals[i] += static_cast<double>(sums[i]);
    sums[i] = 0;
  }
}

template <typename A>
void columns(const GroupKl& op, int64_t begin, int64_t end, int64_t first, int count, double* totals) {
  alignas(64) A mu_buffer[kBlock], logvar_buffer[kBlock], sums[kBlock];
  for (int i = 0; i < count; ++i) {
    sums[i] = 0;
    totals[i] = 0;
  }
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t at = panel * op.panel + first, left = op.elements - at;  // the last panel may be short
    const int here = left >= count ? count : left > 0 ? static_cast<int>(left) : 0;
    add(load(op.mu, at, here, mu_buffer), load(op.logvar, at, here, logvar_buffer), here, sums);
    if ((panel - begin + 1) % kFlush == 0) flush(sums, count, totals);
  }
  flush(sums, count, totals);
}

template <typename A>
void gradients(const GroupKl& op, int64_t begin, int64_t end) {
  alignas(64) A mu_buffer[kBlock], logvar_buffer[kBlock], grad_mu_buffer[kBlock], grad_logvar_buffer[kBlock];
  for (int64_t at = begin; at < end;) {
    const int64_t place_in_panel = at % op.panel, left = end - at, whole = op.panel - place_in_panel;
    const int64_t most = whole < left ? whole : left;
    const int count = most < kBlock ? static_cast<int>(most) : kBlock;
    const A* __restrict factor = static_cast<const A*>(op.factors) + place_in_panel;
    const A* __restrict mu = load(op.mu, at, count, mu_buffer);
    const A* __restrict logvar = load(op.logvar, at, count, logvar_buffer);
    A* __restrict grad_mu = place(op.grad_mu, at, grad_mu_buffer);
    A* __restrict grad_logvar = place(op.grad_logvar, at, grad_logvar_buffer);
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      const A expm1 = exponential(A(0.5) * logvar[i]).expm1;
      grad_mu[i] = factor[i] * mu[i];
      grad_logvar[i] = A(0.5) * factor[i] * (expm1 * (expm1 + 2));
    }
    store(op.grad_mu, at, count, grad_mu);
    store(op.grad_logvar, at, count, grad_logvar);
    at += count;
  }
}

}  // namespace

void gaussian_kl_columns(const GroupKl& op, int64_t begin, int64_t end, int64_t first, int count, double* sums) {
  if (op.mu.dtype == Dtype::f64) columns<double>(op, begin, end, first, count, sums);
  else columns<float>(op, begin, end, first, count, sums);
}

void gaussian_kl_columns_backward(const GroupKl& op, int64_t begin, int64_t end) {
  if (op.mu.dtype == Dtype::f64) gradients<double>(op, begin, end);
  else gradients<float>(op, begin, end);
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include "operator.h"

namespace fastvae {
namespace {

constexpr int64_t kGrain = 8192;
constexpr int64_t kPanels = 32;  // at least, in a chunk: their sums, 8 bytes a place, are then 3 % of what was read
constexpr int64_t kChunks = 64;  // at most

GroupKl group_kl(const Tensor& mu, const Tensor& logvar, int64_t groups) {
  STD_TORCH_CHECK(mu.scalar_type() == logvar.scalar_type(), "expected mu and logvar of one dtype");
  GroupKl op{};
  op.mu = source(mu, mu);
  op.logvar = source(logvar, mu);
  const int64_t event = op.mu.event;
  STD_TORCH_CHECK(groups >= 0 && (groups == 0 ? event == 0 : event % groups == 0), "expected groups of one size");
  op.elements = batch_of(mu) * event;
  op.panel = event > 0 && event < kBlock ? kBlock / event * event : event;
  return op;
}

// The allowance of a group's sum over the batch: the threshold of its mean, times the batch.
struct Charge {
  double allowance, factor;

  Charge(const Tensor& mu, double threshold, int64_t reduction, double weight,
         const std::optional<Tensor>& weight_tensor)
      : allowance(threshold * static_cast<double>(batch_of(mu))),
        factor(Reduce(mu, reduction, weight, weight_tensor).factor()) {
    STD_TORCH_CHECK(reduction != kNone, "a mean over the batch has no value for each sample");
  }
};

std::tuple<Tensor, Tensor> forward(const Tensor& mu, const Tensor& logvar, int64_t groups, double threshold,
                                   int64_t reduction, double weight, const std::optional<Tensor>& weight_tensor) {
  const Charge charge(mu, threshold, reduction, weight, weight_tensor);
  const auto kernel = FASTVAE_CHOSEN(isa(), gaussian_kl_columns);
  const GroupKl op = group_kl(mu, logvar, groups);
  const bool wide = mu.scalar_type() == ScalarType::Double;
  const ScalarType kind = wide ? ScalarType::Double : ScalarType::Float;
  const Tensor loss = dense(&groups, 0, kind), sums = dense(&groups, 1, kind);
  const int64_t panels = op.elements > 0 ? (op.elements + op.panel - 1) / op.panel : 0;

  // Chunks of panels, which depend on the shape alone, times blocks of places; each writes its own part of `partial`.
  const int64_t most = (panels + kChunks - 1) / kChunks, chunk = most < kPanels ? kPanels : most;
  const int64_t chunks = (panels + chunk - 1) / chunk, blocks = (op.panel + kBlock - 1) / kBlock;
  const std::unique_ptr<double[]> partial(new double[chunks * op.panel]);
  const auto run = [&](int64_t first, int64_t last) {
    for (int64_t at = first; at < last; ++at) {
      const int64_t k = at / blocks, place = at % blocks * kBlock, left = op.panel - place;
      const int64_t begin = k * chunk, end = begin + chunk < panels ? begin + chunk : panels;
      kernel(op, begin, end, place, left < kBlock ? static_cast<int>(left) : kBlock,
             partial.get() + k * op.panel + place);
    }
  };
  if (op.elements <= kGrain) run(0, chunks * blocks);
  else torch::stable::parallel_for(0, chunks * blocks, (kGrain * chunks * blocks + op.elements - 1) / op.elements, run);

  // Add, in order, all chunks to the first, then the panel's rows, and then the columns of each group.
  for (int64_t k = 1; k < chunks; ++k)
    for (int64_t i = 0; i < op.panel; ++i) partial[i] += partial[k * op.panel + i];
  const int64_t event = op.mu.event, size = groups > 0 && chunks > 0 ? event / groups : 0;
  for (int64_t row = event; row < op.panel && chunks > 0; row += event)
    for (int64_t i = 0; i < event; ++i) partial[i] += partial[row + i];
  double total = 0.0;
  for (int64_t group = 0; group < groups; ++group) {
    double sum = 0.0;
#pragma omp simd reduction(+ : sum)
    for (int64_t column = group * size; column < (group + 1) * size; ++column) sum += partial[column];
    total += sum < charge.allowance ? charge.allowance : sum;  // a NaN is not less
    if (wide) static_cast<double*>(sums.data_ptr())[group] = sum;
    else static_cast<float*>(sums.data_ptr())[group] = static_cast<float>(sum);
  }
  total *= charge.factor;
  if (wide) *static_cast<double*>(loss.data_ptr()) = total;
  else *static_cast<float*>(loss.data_ptr()) = static_cast<float>(total);
  return {loss, sums};
}

// The factor of each column's gradient: 0 if its group is within its allowance. A NaN is not, and keeps its gradient.
template <typename A>
std::unique_ptr<A[]> factors_of(const Tensor& sums, const GroupKl& op, int64_t groups, double allowance, double scale) {
  std::unique_ptr<A[]> factors(new A[op.panel]);
  const int64_t event = op.mu.event, size = event / groups;
  for (int64_t group = 0; group < groups; ++group) {
    const A factor = value_at(sums, group) <= allowance ? A(0) : static_cast<A>(scale);
    for (int64_t column = group * size; column < (group + 1) * size; ++column) factors[column] = factor;
  }
  for (int64_t at = event; at < op.panel; ++at) factors[at] = factors[at - event];
  return factors;
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& sums, const Tensor& mu,
                                    const Tensor& logvar, int64_t groups, double threshold, int64_t reduction,
                                    double weight, const std::optional<Tensor>& weight_tensor) {
  const Charge charge(mu, threshold, reduction, weight, weight_tensor);
  const auto kernel = FASTVAE_CHOSEN(isa(), gaussian_kl_columns_backward);
  const Tensor grad_mu = dense_like(mu), grad_logvar = dense_like(mu);
  GroupKl op = group_kl(mu, logvar, groups);
  op.grad_mu = sink(grad_mu);
  op.grad_logvar = sink(grad_logvar);
  const bool wide = mu.scalar_type() == ScalarType::Double;
  STD_TORCH_CHECK(sums.is_contiguous() && sums.numel() == groups, "expected one sum a group");
  const double scale = value_at(grad_output, 0) * charge.factor;
  if (op.elements == 0) return {grad_mu, grad_logvar};
  std::unique_ptr<double[]> doubles;
  std::unique_ptr<float[]> floats;
  if (wide) {
    doubles = factors_of<double>(sums, op, groups, charge.allowance, scale);
    op.factors = doubles.get();
  } else {
    floats = factors_of<float>(sums, op, groups, charge.allowance, scale);
    op.factors = floats.get();
  }
  const auto run = [&](int64_t begin, int64_t end) { kernel(op, begin, end); };
  if (op.elements <= kGrain) run(0, op.elements);
  else torch::stable::parallel_for(0, op.elements, kGrain, run);
  return {grad_mu, grad_logvar};
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("free_bits_kl", TORCH_BOX(&fastvae::forward));
  m.impl("free_bits_kl_backward", TORCH_BOX(&fastvae::backward));
}
#endif
