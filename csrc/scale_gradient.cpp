// Multiply a gradient that the forward wrote by the gradient of its loss, which is usually 1.
#include "block.h"

FASTVAE_KERNEL(void, scale_gradient, const fastvae::Source& in, const fastvae::Sink& out, int64_t begin, int64_t end,
               double factor)

namespace fastvae::FASTVAE_ISA {
namespace {

template <typename A>
void range(const Source& in, const Sink& out, int64_t begin, int64_t end, A factor) {
  alignas(64) A in_buffer[kBlock], out_buffer[kBlock];
  for_blocks(begin, end, [&](int64_t at, int count) {
    const A* gradient = load(in, at, count, in_buffer);
    A* scaled = place(out, at, out_buffer);
#pragma omp simd
    for (int i = 0; i < count; ++i) scaled[i] = gradient[i] * factor;
    store(out, at, count, scaled);
  });
}

}  // namespace

void scale_gradient(const Source& in, const Sink& out, int64_t begin, int64_t end, double factor) {
  if (in.dtype == Dtype::f64) return range<double>(in, out, begin, end, factor);
  range<float>(in, out, begin, end, static_cast<float>(factor));
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include "operator.h"

namespace fastvae {
namespace {

constexpr int64_t kGrain = 32768;

void scale_gradient_(const Tensor& gradient, const Tensor& grad_output) {
  const double factor = value_at(grad_output, 0);
  if (factor == 1.0) return;
  STD_TORCH_CHECK(gradient.is_contiguous(), "expected a dense gradient");
  const Isa chosen = isa();
  const Source in{gradient.data_ptr(), dtype_of(gradient), 1, 1};
  const Sink out = sink(gradient);
  const Reduce elements(gradient, kSum, 1.0, std::nullopt);
  elements.for_chunks(kGrain, [&](int64_t begin, int64_t end, int64_t, int64_t) {
    FASTVAE_RUN(chosen, scale_gradient, in, out, begin, end, factor);
  });
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) { m.impl("scale_gradient_", TORCH_BOX(&fastvae::scale_gradient_)); }
#endif
