// Shared by the entry points of operators on images in channels_last.
#pragma once

#include "operator.h"

namespace fastvae {

inline void check_images(const Tensor& x) {
  const bool four = x.is_cpu() && x.dim() == 4;
  STD_TORCH_CHECK(four, "expected images (N, C, H, W) on the CPU");
  int64_t expected = 1;
  for (const int64_t d : {1, 3, 2, 0}) {
    STD_TORCH_CHECK(x.size(d) <= 1 || x.stride(d) == expected || x.numel() == 0, "expected images in channels_last");
    expected *= x.size(d);
  }
}

inline Tensor empty_images(ScalarType dtype, int64_t images, int64_t channels, int64_t height, int64_t width) {
  const int64_t sizes[4] = {images, channels, height, width};
  const int64_t strides[4] = {channels * height * width, 1, width * channels, channels};
  AtenTensorHandle handle = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      4, sizes, strides, torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)),
      aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

inline Tensor empty_images_like(const Tensor& x) {
  return empty_images(x.scalar_type(), x.size(0), x.size(1), x.size(2), x.size(3));
}

}  // namespace fastvae
