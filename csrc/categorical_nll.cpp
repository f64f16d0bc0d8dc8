// Cross-entropy of class logits: loss and gradient while a tile of pixels, with all its classes, is in the cache.
#include "pixel_planes.h"

namespace fastvae {

struct Categorical {
  Planes logits;
  const void* target;  // one a pixel
  bool wide;           // int64, not uint8
  int width;           // pixels a tile
};

}  // namespace fastvae

// Over pixels [begin, end): the sum of the loss, and scale * gradient. The scratch holds `width` pixels of all logits.
FASTVAE_KERNEL(double, categorical_nll, const fastvae::Categorical& op, int64_t begin, int64_t end, fastvae::Want want,
               double scale, void* scratch)

namespace fastvae::FASTVAE_ISA {
namespace {

// Class indices, -1 for an index that is not a class.
template <typename T>
FASTVAE_INLINE void classes_of(const T* __restrict target, int count, int64_t classes, int32_t* __restrict index) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const int64_t k = target[i];
    index[i] = k < 0 ? -1 : k < classes ? static_cast<int32_t>(k) : -1;
  }
}

template <typename A, bool kGrad>
double categorical(const Categorical& op, int64_t begin, int64_t end, A scale, A* scratch) {
  alignas(64) A highest[kBlock], chosen[kBlock], others[kBlock];
  alignas(64) int32_t index[kBlock];
  const int32_t classes = static_cast<int32_t>(op.logits.count);
  double total = 0.0;
  for_tiles(op.logits, scratch, op.width, begin, end, [&](const Tile<A>& tile, int64_t at) {
    const int count = tile.count;
    if (op.wide) classes_of(static_cast<const int64_t*>(op.target) + at, count, classes, index);
    else classes_of(static_cast<const uint8_t*>(op.target) + at, count, classes, index);
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      highest[i] = -__builtin_inf();
      others[i] = 0;
      chosen[i] = __builtin_nan("");  // where there is no such class, it stays
    }
    for (int32_t k = 0; k < classes; ++k) {
      const A* logit = tile.load(k);
#pragma omp simd
      for (int i = 0; i < count; ++i) highest[i] = logit[i] > highest[i] ? logit[i] : highest[i];
    }
    // The target's own exponential stays out of the sum: a confident, right decoder keeps its digits.
    for (int32_t k = 0; k < classes; ++k) {
      const A* logit = tile.in(k);
      A* grad = kGrad ? tile.out(k) : nullptr;
#pragma omp simd
      for (int i = 0; i < count; ++i) {
        const A below = logit[i] - highest[i], u = exp(below);
        chosen[i] = index[i] == k ? below : chosen[i];
        others[i] += index[i] == k ? A(0) : u;
        if constexpr (kGrad) grad[i] = u;
      }
    }
    A sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int i = 0; i < count; ++i) {
      const A own = exp(chosen[i]), all = own + others[i], reciprocal = 1 / all;
      const A lost = (others[i] - (all - own)) * reciprocal;  // by the rounding of `all`
      sum += (log(all) + lost) - chosen[i] + 0 * all;         // log does not carry NaN; the last term does
      highest[i] = scale * reciprocal;
    }
    total += static_cast<double>(sum);
    if constexpr (kGrad) {
      for (int32_t k = 0; k < classes; ++k) {
        A* grad = tile.out(k);
#pragma omp simd
        for (int i = 0; i < count; ++i) grad[i] = (index[i] == k ? -others[i] : grad[i]) * highest[i];
        tile.store(k);
      }
    }
  });
  return total;
}

template <typename A>
FASTVAE_INLINE A largest(const A* __restrict values, int64_t count) {
  constexpr int kLanes = 16;  // written out: GCC vectorises a maximum only where it may ignore NaN
  alignas(64) A lanes[kLanes];
  for (int j = 0; j < kLanes; ++j) lanes[j] = -__builtin_inf();
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes) {
#pragma omp simd
    for (int j = 0; j < kLanes; ++j) lanes[j] = values[k + j] > lanes[j] ? values[k + j] : lanes[j];
  }
  for (; k < count; ++k) lanes[0] = values[k] > lanes[0] ? values[k] : lanes[0];
  for (int j = 1; j < kLanes; ++j) lanes[0] = lanes[j] > lanes[0] ? lanes[j] : lanes[0];
  return lanes[0];
}

// The same for one pixel a row, whose classes are neighbours in memory: loops run along classes, not across rows.
template <typename A, bool kGrad>
double rows(const Categorical& op, int64_t begin, int64_t end, A scale, A* scratch) {
  const Planes& logits = op.logits;
  const int64_t classes = logits.count;
  const int count = static_cast<int>(classes);
  double total = 0.0;
  for (int64_t row = begin; row < end; ++row) {
    const A* logit = scratch;
    if (logits.dtype == kOwn<A>) logit = static_cast<const A*>(logits.data) + row * classes;
    else copy_in(logits.dtype, logits.data, row * classes, count, scratch);
    A* __restrict u =
        kGrad ? place(Sink{logits.grad, logits.dtype}, row * classes, scratch + classes) : scratch + classes;
    const int64_t target = op.wide ? static_cast<const int64_t*>(op.target)[row]
                                   : static_cast<const uint8_t*>(op.target)[row];
    const bool exists = target >= 0 && target < classes;
    const A highest = largest(logit, classes), chosen = exists ? logit[target] - highest : A(__builtin_nan(""));
#pragma omp simd
    for (int k = 0; k < count; ++k) u[k] = exp(logit[k] - highest);
    if (exists) u[target] = 0;
    A others = 0;
#pragma omp simd reduction(+ : others)
    for (int k = 0; k < count; ++k) others += u[k];
    const A own = exp(chosen), all = own + others, reciprocal = 1 / all;
    total += static_cast<double>((log(all) + (others - (all - own)) * reciprocal) - chosen + 0 * all);
    if constexpr (kGrad) {
      const A factor = scale * reciprocal;
#pragma omp simd
      for (int k = 0; k < count; ++k) u[k] *= factor;
      if (exists) u[target] = -others * factor;
      store(Sink{logits.grad, logits.dtype}, row * classes, count, u);
    }
  }
  return total;
}

template <typename A>
double categorical(const Categorical& op, int64_t begin, int64_t end, Want want, double scale, void* scratch) {
  const A factor = static_cast<A>(scale);
  if (op.logits.pixels == 1) {
    return want == Want::loss ? rows<A, false>(op, begin, end, factor, static_cast<A*>(scratch))
                              : rows<A, true>(op, begin, end, factor, static_cast<A*>(scratch));
  }
  return want == Want::loss ? categorical<A, false>(op, begin, end, factor, static_cast<A*>(scratch))
                            : categorical<A, true>(op, begin, end, factor, static_cast<A*>(scratch));
}

}  // namespace

double categorical_nll(const Categorical& op, int64_t begin, int64_t end, Want want, double scale, void* scratch) {
  return op.logits.dtype == Dtype::f64 ? categorical<double>(op, begin, end, want, scale, scratch)
                                       : categorical<float>(op, begin, end, want, scale, scratch);
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include "pixel_planes_operator.h"

namespace fastvae {
namespace {

PlaneKernel<Categorical> kernel(const Tensor& logits, const Tensor& target, const Tensor& grad) {
  const Planes planes = planes_of(logits, target, 1, grad);
  const bool wide = target.scalar_type() == ScalarType::Long;
  STD_TORCH_CHECK(wide || target.scalar_type() == ScalarType::Byte, "expected class indices in uint8 or int64");
  return {FASTVAE_CHOSEN(isa(), categorical_nll), {planes, target.data_ptr(), wide, tile_of(planes.count)},
          planes.count, planes.count};
}

std::tuple<Tensor, Tensor> forward(const Tensor& logits, const Tensor& target, int64_t reduction, double weight,
                                   const std::optional<Tensor>& weight_tensor, bool with_grad) {
  const bool both = with_grad && reduction != kNone;
  const Tensor grad = dense_like(logits, both);
  const Tensor loss =
      planes_forward(kernel(logits, target, grad), logits, target, 1, reduction, weight, weight_tensor, both);
  return {loss, grad};
}

Tensor backward(const Tensor& grad_output, const Tensor& logits, const Tensor& target, int64_t reduction,
                double weight, const std::optional<Tensor>& weight_tensor) {
  const Tensor grad = dense_like(logits);
  planes_backward(kernel(logits, target, grad), grad_output, target, 1, reduction, weight, weight_tensor);
  return grad;
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("categorical_nll", TORCH_BOX(&fastvae::forward));
  m.impl("categorical_nll_backward", TORCH_BOX(&fastvae::backward));
}
#endif
