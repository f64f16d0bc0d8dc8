// Shared by the entry points of all operators: views of torch's tensors, and the split of work and sums.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdint>
#include <memory>
#include <optional>
#include <tuple>

#include "block.h"
#include "torch_abi.h"

namespace fastvae {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The codes of fastvae/ops/_check.py.
enum Reduction : int64_t { kNone = 0, kSum = 1, kBatchmean = 2 };

// Elements of a partial sum: enough to hide a call, and few enough to share a 100 x 784 batch among 16 threads.
constexpr int64_t kChunk = 4096;

inline Dtype dtype_of(const Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float: return Dtype::f32;
    case ScalarType::Double: return Dtype::f64;
    case ScalarType::BFloat16: return Dtype::bf16;
    case ScalarType::Half: return Dtype::f16;
    case ScalarType::Byte: return Dtype::u8;
    default: STD_TORCH_CHECK(false, "unsupported dtype");
  }
}

inline int64_t batch_of(const Tensor& tensor) {
  STD_TORCH_CHECK(tensor.dim() > 0, "expected a tensor (B, ...)");
  return tensor.size(0);
}

inline int64_t event_of(const Tensor& tensor) {
  int64_t event = 1;
  for (int64_t d = 1; d < tensor.dim(); ++d) event *= tensor.size(d);
  return event;
}

// A tensor (B, ...) with dense rows and any row stride, which must have the shape of `like`.
inline Source source(const Tensor& tensor, const Tensor& like) {
  STD_TORCH_CHECK(tensor.is_cpu() && tensor.dim() == like.dim(), "expected tensors of one shape on the CPU");
  int64_t event = 1;
  for (int64_t d = tensor.dim() - 1; d > 0; --d) {
    STD_TORCH_CHECK(tensor.size(d) == like.size(d), "expected tensors of one shape");
    STD_TORCH_CHECK(tensor.size(d) <= 1 || tensor.stride(d) == event || tensor.numel() == 0, "expected dense rows");
    event *= tensor.size(d);
  }
  STD_TORCH_CHECK(batch_of(tensor) == batch_of(like), "expected tensors of one shape");
  return {tensor.data_ptr(), dtype_of(tensor), event, tensor.size(0) > 1 ? tensor.stride(0) : event};
}

inline Sink sink(const Tensor& tensor) { return {tensor.data_ptr(), dtype_of(tensor)}; }

// Advises the operating system to back a large new buffer with huge pages: a gradient of 50 MB in pages of 4 KB takes
// longer to hand out than its loss takes to compute. If the advice is refused, the pages are small.
inline void prefer_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t kHuge = uintptr_t{2} << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + kHuge - 1) & ~(kHuge - 1);
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) & ~(kHuge - 1);
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)data;
  (void)bytes;
#endif
}

// Calls the allocator itself: torch::stable::new_empty goes through the dispatcher, which is slow for a small batch.
inline Tensor dense(const int64_t* sizes, int64_t dim, ScalarType dtype) {
  constexpr int64_t kMaxDim = 64;
  STD_TORCH_CHECK(dim <= kMaxDim, "more than 64 dimensions");
  int64_t strides[kMaxDim], stride = 1;
  for (int64_t d = dim - 1; d >= 0; --d) {
    strides[d] = stride;
    stride *= sizes[d] > 1 ? sizes[d] : 1;
  }
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      dim, sizes, strides, torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)),
      aoti_torch_device_type_cpu(), 0, &handle));
  Tensor made(handle);
  constexpr int64_t kWorthAsking = int64_t{4} << 20;  // bytes
  const int64_t bytes = stride * static_cast<int64_t>(made.element_size());
  if (bytes >= kWorthAsking && made.numel() > 0) prefer_huge_pages(made.data_ptr(), bytes);
  return made;
}

inline Tensor dense_like(const Tensor& tensor, bool wanted = true) {
  const int64_t none = 0;
  return wanted ? dense(tensor.sizes().data(), tensor.dim(), tensor.scalar_type())
                : dense(&none, 1, tensor.scalar_type());
}

// One fp32 or fp64 value of a dense tensor.
inline double value_at(const Tensor& tensor, int64_t index) {
  STD_TORCH_CHECK(tensor.is_cpu() && index < tensor.numel(), "expected one value a row on the CPU");
  if (tensor.scalar_type() == ScalarType::Double) return static_cast<const double*>(tensor.data_ptr())[index];
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float, "expected fp32 or fp64");
  return static_cast<const float*>(tensor.data_ptr())[index];
}

// The reduction of a loss over (B, event). Chunks depend on the shape alone, never on the number of threads, and their
// sums are added in order: the same call gives the same bits.
struct Reduce {
  int64_t code, batch, event;
  double weight;
  int64_t chunk = kChunk;  // fewer where an element is much work

  Reduce(const Tensor& like, int64_t code, double weight, const std::optional<Tensor>& weight_tensor)
      : code(code), batch(batch_of(like)), event(event_of(like)),
        weight(weight_tensor ? weight * value_at(*weight_tensor, 0) : weight) {
    STD_TORCH_CHECK(code == kNone || code == kSum || code == kBatchmean, "unknown reduction code");
  }

  int64_t spans() const { return code == kNone ? batch : 1; }
  int64_t length() const { return code == kNone ? event : batch * event; }
  int64_t chunks_per_span() const { return (length() + chunk - 1) / chunk; }

  // The factor of the elements' gradients, for the gradient of the loss in a row (any row, unless code is kNone).
  double factor(double grad_output = 1.0) const {
    return grad_output * (code == kBatchmean ? weight / static_cast<double>(batch) : weight);
  }

  // Calls body(begin, end, span, chunk) for every chunk, in parallel from `grain` elements a thread.
  template <typename F>
  void for_chunks(int64_t grain, const F& body) const {
    const int64_t per_span = chunks_per_span(), size = length() < chunk ? length() : chunk;
    const auto run = [&](int64_t first, int64_t last) {
      for (int64_t at = first; at < last; ++at) {
        const int64_t span = at / per_span, start = at % per_span * chunk, rest = length() - start;
        const int64_t begin = span * length() + start;
        body(begin, begin + (rest < chunk ? rest : chunk), span, at);
      }
    };
    const int64_t chunks = spans() * per_span;
    // A small batch does not even ask for the number of threads.
    if (chunks * size <= grain) return run(0, chunks);
    torch::stable::parallel_for(0, chunks, (grain + size - 1) / size, run);
  }

  // The loss: body(begin, end) gives a chunk's sum; each element adds `constant` to `scale` times its value.
  template <typename F>
  Tensor sum(ScalarType input, int64_t grain, double scale, double constant, const F& body) const {
    const int64_t per_span = chunks_per_span();
    double single = 0.0;
    const std::unique_ptr<double[]> many(spans() * per_span > 1 ? new double[spans() * per_span] : nullptr);
    double* partial = many ? many.get() : &single;
    for_chunks(grain, [&](int64_t begin, int64_t end, int64_t, int64_t chunk) { partial[chunk] = body(begin, end); });

    return total(input, partial, per_span, scale, constant);
  }

  // The loss, from the partial sums of each span, in order.
  Tensor total(ScalarType input, const double* partial, int64_t per_span, double scale, double constant) const {
    const bool wide = input == ScalarType::Double;
    const Tensor loss = dense(&batch, code == kNone, wide ? ScalarType::Double : ScalarType::Float);
    void* out = loss.data_ptr();
    for (int64_t span = 0; span < spans(); ++span) {
      double sum = 0.0;
      for (int64_t chunk = 0; chunk < per_span; ++chunk) sum += partial[span * per_span + chunk];
      sum = sum * scale + constant * static_cast<double>(length());
      if (code == kBatchmean) sum /= static_cast<double>(batch);  // an empty batch has no mean: NaN, as in torch
      sum *= weight;
      if (wide) static_cast<double*>(out)[span] = sum;
      else static_cast<float*>(out)[span] = static_cast<float>(sum);
    }
    return loss;
  }
};

// True if the elements fill a range of memory without gaps, in any order of the dimensions.
inline bool fills_memory(const Tensor& tensor) {
  if (tensor.is_contiguous()) return true;
  const auto sizes = tensor.sizes(), strides = tensor.strides();
  int64_t filled = 1;
  for (size_t d = 0; d < sizes.size();) {
    if (sizes[d] > 1 && strides[d] == filled) {
      filled *= sizes[d];
      d = 0;
    } else {
      ++d;
    }
  }
  return filled == tensor.numel();
}

// The factor of each span's gradients in backward. It is checked before threads start, because they must not throw.
class Factors {
 public:
  Factors(const Reduce& reduce, const Tensor& grad_output) : reduce_(reduce), grad_output_(grad_output) {
    STD_TORCH_CHECK(grad_output.is_contiguous() && grad_output.dim() == (reduce.code == kNone ? 1 : 0),
                    "expected one gradient a loss");
    if (reduce.spans() > 0) value_at(grad_output, reduce.spans() - 1);
    wide_ = grad_output.scalar_type() == ScalarType::Double;
    data_ = grad_output.data_ptr();
  }
  double operator[](int64_t span) const {
    return reduce_.factor(wide_ ? static_cast<const double*>(data_)[span] : static_cast<const float*>(data_)[span]);
  }

 private:
  const Reduce& reduce_;
  Tensor grad_output_;
  bool wide_;
  const void* data_;
};

}  // namespace fastvae
