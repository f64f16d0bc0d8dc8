// Shared by both passes of the SiLU of a group norm: their operands, and the sums over an image's channels and groups.
#pragma once

#include "block.h"

namespace fastvae {

// Few channels are repeated to a row of at least this many floats, so that loops have whole vectors.
constexpr int64_t kRow = 128;

struct GroupNormSilu {
  const void* x;  // (images, places, channels), dense
  Dtype dtype;
  int64_t images, places, channels, groups;
  const float *weight, *bias;  // (channels)
  float *mean, *rstd;          // (images, groups): written forward, read backward
  double eps;
  void* output;          // as x: the output, or the gradient of x
  const void* gradient;  // as x; backward alone
  float* sums;           // (images, 2, channels): the gradients of bias and weight from each image

  // Inlined by force: isa.h says why no two compiles may share one.
  [[gnu::always_inline]] int64_t repeats() const { return channels < kRow ? (kRow + channels - 1) / channels : 1; }
  [[gnu::always_inline]] int64_t row() const { return repeats() * channels; }
  [[gnu::always_inline]] int64_t size() const { return places * channels; }
};

// Rows of scratch for an image in each pass. Backward takes an image more where the gradient is not fp32.
constexpr int kForwardRows = 3, kBackwardRows = 6;

}  // namespace fastvae

FASTVAE_KERNEL(void, group_norm_silu, const fastvae::GroupNormSilu& op, int64_t begin, int64_t end, float* scratch)
FASTVAE_KERNEL(void, group_norm_silu_backward, const fastvae::GroupNormSilu& op, int64_t begin, int64_t end,
               float* scratch)

namespace fastvae::FASTVAE_ISA {
namespace {

FASTVAE_INLINE float sigmoid(float v) {
  const float e = exp_minus(v < 0.0f ? -v : v), r = 1.0f / (1.0f + e);
  return v < 0.0f ? e * r : r;
}

// Calls body(at, count) for the rows of an image.
template <typename F>
FASTVAE_INLINE void for_rows(const GroupNormSilu& op, F body) {
  const int64_t row = op.row(), size = op.size();
  for (int64_t at = 0; at < size; at += row) body(at, size - at < row ? size - at : row);
}

FASTVAE_INLINE void clear(float* __restrict row, int64_t count) {
  for (int64_t i = 0; i < count; ++i) row[i] = 0.0f;
}

// The sum of a channel, or of all channels of a group, from what was summed in a row.
FASTVAE_INLINE double sum_of_channel(const GroupNormSilu& op, const float* row, int64_t channel) {
  double sum = 0.0;
  for (int64_t at = channel; at < op.row(); at += op.channels) sum += static_cast<double>(row[at]);
  return sum;
}

FASTVAE_INLINE double sum_of_group(const GroupNormSilu& op, const float* row, int64_t group) {
  const int64_t width = op.channels / op.groups;
  double sum = 0.0;
  for (int64_t c = group * width; c < (group + 1) * width; ++c) sum += sum_of_channel(op, row, c);
  return sum;
}

// A row from one value for each channel.
template <typename F>
FASTVAE_INLINE void fill(const GroupNormSilu& op, float* row, F of_channel) {
  const int64_t width = op.channels / op.groups;
  for (int64_t c = 0; c < op.channels; ++c) {
    const float value = of_channel(c, c / width);
    for (int64_t repeat = 0; repeat < op.repeats(); ++repeat) row[repeat * op.channels + c] = value;
  }
}

}  // namespace
}  // namespace fastvae::FASTVAE_ISA
