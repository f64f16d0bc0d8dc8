// The entry points of the likelihoods with several predictions a pixel.
#pragma once

#include "operator.h"
#include "pixel_planes.h"

namespace fastvae {

// A dense tensor (B, planes, ...) and its gradient, beside a dense target of `channels` planes (B, channels, ...), or
// (B, ...) for one.
inline Planes planes_of(const Tensor& tensor, const Tensor& target, int64_t channels, const Tensor& grad) {
  STD_TORCH_CHECK(tensor.is_cpu() && target.is_cpu() && tensor.is_contiguous() && target.is_contiguous() &&
                      tensor.dim() > 1 && tensor.size(1) > 0,
                  "expected dense tensors (B, planes, ...) on the CPU");
  const int64_t planes = tensor.size(1), pixels = event_of(tensor) / planes;
  STD_TORCH_CHECK(batch_of(tensor) == batch_of(target) && event_of(target) == channels * pixels,
                  "expected a target for every pixel");
  return {tensor.data_ptr(), grad.data_ptr(), dtype_of(tensor), planes, pixels};
}

// A likelihood's kernel for this machine and what it reads, of `work` exponentials a pixel.
template <typename Op>
struct PlaneKernel {
  double (*run)(const Op& op, int64_t begin, int64_t end, Want want, double scale, void* scratch);
  Op op;
  int64_t scratch_planes, work;

  double operator()(int64_t begin, int64_t end, Want want, double scale) const {
    const std::unique_ptr<double[]> scratch(new double[scratch_planes * op.width]);
    return run(op, begin, end, want, scale, scratch.get());
  }

  // The reduction over pixels, in chunks that are large enough to be worth a thread.
  Reduce reduce(const Tensor& target, int64_t channels, int64_t code, double weight,
                const std::optional<Tensor>& weight_tensor) const {
    Reduce reduce(target, code, weight, weight_tensor);
    reduce.event /= channels;
    reduce.chunk = kChunk / work > 256 ? kChunk / work : 256;
    return reduce;
  }
  int64_t grain() const { return 8192 / work + 1; }
};

template <typename Op>
Tensor planes_forward(const PlaneKernel<Op>& kernel, const Tensor& prediction, const Tensor& target, int64_t channels,
                      int64_t reduction, double weight, const std::optional<Tensor>& weight_tensor, bool with_grad) {
  const Reduce reduce = kernel.reduce(target, channels, reduction, weight, weight_tensor);
  const Want want = with_grad ? Want::both : Want::loss;
  return reduce.sum(prediction.scalar_type(), kernel.grain(), 1.0, 0.0, [&](int64_t begin, int64_t end) {
    return kernel(begin, end, want, reduce.factor());
  });
}

template <typename Op>
void planes_backward(const PlaneKernel<Op>& kernel, const Tensor& grad_output, const Tensor& target, int64_t channels,
                     int64_t reduction, double weight, const std::optional<Tensor>& weight_tensor) {
  const Reduce reduce = kernel.reduce(target, channels, reduction, weight, weight_tensor);
  const Factors factors(reduce, grad_output);
  reduce.for_chunks(kernel.grain(), [&](int64_t begin, int64_t end, int64_t span, int64_t) {
    kernel(begin, end, Want::grad, factors[span]);
  });
}

}  // namespace fastvae
