// Rows and columns of bf16 matrices, packed for the instruction that multiplies them: as pairs of neighbours along the
// contraction, a strip of lines at a time, in the order in which a tile reads them.
#pragma once

#include "isa.h"

namespace fastvae {

// Vectors to contract with those of another matrix: rows of the left one, columns of the right one.
struct Lines {
  const uint16_t* data;
  int64_t count, depth;               // vectors, and the elements of each
  int64_t line_stride, depth_stride;  // in elements
};

}  // namespace fastvae

#ifndef FASTVAE_REGISTER
#include <immintrin.h>

namespace fastvae::avx512_bf16 {
namespace {

FASTVAE_INLINE __mmask16 first_of_16(int64_t count) {
  return static_cast<__mmask16>(count >= 16 ? 0xffffu : count <= 0 ? 0u : (1u << count) - 1u);
}

FASTVAE_INLINE __mmask32 first_of_32(int64_t count) {
  return count >= 32 ? 0xffffffffu : count <= 0 ? 0u : (1u << count) - 1u;
}

// Sixteen registers as a matrix, transposed: by pairs, fours, and then quarters of registers.
FASTVAE_INLINE void transpose(__m512i (&x)[16]) {
  __m512i y[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
    y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    x[i] = _mm512_unpacklo_epi64(y[i], y[i + 2]);
    x[i + 1] = _mm512_unpackhi_epi64(y[i], y[i + 2]);
    x[i + 2] = _mm512_unpacklo_epi64(y[i + 1], y[i + 3]);
    x[i + 3] = _mm512_unpackhi_epi64(y[i + 1], y[i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const __m512i even01 = _mm512_shuffle_i32x4(x[i], x[i + 4], 0x88);
    const __m512i odd01 = _mm512_shuffle_i32x4(x[i], x[i + 4], 0xdd);
    const __m512i even23 = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0x88);
    const __m512i odd23 = _mm512_shuffle_i32x4(x[i + 8], x[i + 12], 0xdd);
    y[i] = _mm512_shuffle_i32x4(even01, even23, 0x88);
    y[i + 8] = _mm512_shuffle_i32x4(even01, even23, 0xdd);
    y[i + 4] = _mm512_shuffle_i32x4(odd01, odd23, 0x88);
    y[i + 12] = _mm512_shuffle_i32x4(odd01, odd23, 0xdd);
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) x[i] = y[i];
}

// Up to sixteen lines whose elements are neighbours in memory: blocks of 16 lines by 16 pairs, transposed.
void pack_along(const Lines& lines, const uint16_t* data, int64_t count, int64_t wanted, int64_t width, uint32_t* out) {
  for (int64_t k = 0; k < lines.depth; k += 32) {
    const __mmask32 there = first_of_32(lines.depth - k);
    __m512i block[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      block[i] = i < count ? _mm512_maskz_loadu_epi16(there, data + i * lines.line_stride + k) : _mm512_setzero_si512();
    }
    transpose(block);
    const int64_t pairs = (lines.depth - k + 1) / 2;
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      if (i < pairs) _mm512_mask_storeu_epi32(out + (k / 2 + i) * width, first_of_16(wanted), block[i]);
    }
  }
}

// Up to sixteen lines that are neighbours in memory: two rows of them, interleaved.
void pack_across(const Lines& lines, const uint16_t* data, int64_t count, int64_t wanted, int64_t width,
                 uint32_t* out) {
  const __mmask16 there = first_of_16(count);
  for (int64_t k = 0; k < lines.depth; k += 2) {
    const uint16_t* at = data + k * lines.depth_stride;
    const __m256i low = _mm256_maskz_loadu_epi16(there, at);
    const __m256i high =
        k + 1 < lines.depth ? _mm256_maskz_loadu_epi16(there, at + lines.depth_stride) : _mm256_setzero_si256();
    const __m512i upper = _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16);
    const __m512i pairs = _mm512_or_si512(_mm512_cvtepu16_epi32(low), upper);
    _mm512_mask_storeu_epi32(out + k / 2 * width, first_of_16(wanted), pairs);
  }
}

// Lines of any strides.
void pack_any(const Lines& lines, const uint16_t* data, int64_t count, int64_t wanted, int64_t width, uint32_t* out) {
  for (int64_t k = 0; k < lines.depth; ++k) {
    for (int i = 0; i < wanted; ++i) {
      const uint32_t value = i < count ? data[i * lines.line_stride + k * lines.depth_stride] : 0;
      uint32_t& pair = out[k / 2 * width + i];
      pair = k % 2 == 0 ? value : pair | value << 16;
    }
  }
}

// Lines [first, first + width): strip[pair * width + line]. Absent lines become zeros.
void pack(const Lines& lines, int64_t first, int64_t width, uint32_t* strip) {
  const auto group = lines.depth_stride == 1 ? pack_along : lines.line_stride == 1 ? pack_across : pack_any;
  for (int64_t at = 0; at < width; at += 16) {
    const int64_t wanted = width - at < 16 ? width - at : 16, left = lines.count - first - at;
    const uint16_t* data = lines.data + (first + at) * lines.line_stride;
    group(lines, data, left < wanted ? left : wanted, wanted, width, strip + at);
  }
}

}  // namespace
}  // namespace fastvae::avx512_bf16
#endif
