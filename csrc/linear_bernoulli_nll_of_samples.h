// The layer of linear_bernoulli_nll_of_samples, and the products of a tile in vector registers.
#pragma once

#include "vecmath.h"

namespace fastvae {

constexpr int kStrip = 96;            // columns of weights that are copied together, in the order of reading
constexpr int kLanes = 32;            // partial sums of a row
constexpr int kDepth = 512;           // units of a chunk of a row, of 4 bytes: a float, or a pair of bf16
constexpr int kStride = kDepth + 16;  // of the rows of a tile: another set of L1 for each
constexpr int kGroup = 336;           // rows of a block at most, a multiple of every tile's
constexpr int kLeastRows = 4;         // of a tile

struct LastLayer {
  const void* hidden;  // (rows, depth), dense
  int64_t rows, depth, units;
  const void* weight;  // (strips, depth, kStrip)
  const float* bias;   // strips * kStrip
  const float* target;  // (rows / samples, outputs), dense
  int64_t samples, outputs;
  bool skips;   // inputs that are zero; not where a weight is infinite or NaN
  float* out;  // (rows)

  int64_t group;  // rows of a block: 350 KB of L2 for 512 inputs

  // Inlined by force: isa.h says why no two compiles may share one.
  [[gnu::always_inline]] int64_t chunks() const { return (units + kDepth - 1) / kDepth; }
  [[gnu::always_inline]] int64_t strips() const { return (outputs + kStrip - 1) / kStrip; }
  // In words of 4 bytes, of one thread: rows of tiles; their lanes; a strip of weights; units of each tile, and the
  // numbers of a tile's rows in one; the order of the inputs and their counts.
  [[gnu::always_inline]] int64_t scratch() const {
    const int64_t tiles = kGroup / kLeastRows;
    return kGroup * (chunks() * kStride + 2 * kLanes) + units * kStrip + tiles * (units + depth) + 2 * depth;
  }
};

}  // namespace fastvae

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

namespace fastvae::FASTVAE_ISA {
namespace {

// A vector of sums and its product with a unit of a row; as many rows a tile and vectors of columns as the registers
// hold. (4 x 6 shares more zeros than 14 x 2.)
#if defined(__AVX512F__)
using Sum = __m512;
constexpr int kRows = 4, kVectors = 6;
FASTVAE_INLINE Sum load(const void* at) { return _mm512_loadu_ps(at); }
FASTVAE_INLINE void store(float* at, Sum x) { _mm512_storeu_ps(at, x); }
#if defined(__AVX512BF16__)
FASTVAE_INLINE Sum add_product(Sum sum, uint32_t unit, Sum columns) {
  return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(static_cast<int32_t>(unit)), (__m512bh)columns);
}
#else
FASTVAE_INLINE Sum add_product(Sum sum, uint32_t unit, Sum columns) {
  return _mm512_fmadd_ps(_mm512_set1_ps(as_float(unit)), columns, sum);
}
#endif
#elif defined(__AVX2__)
using Sum = __m256;
constexpr int kRows = 6, kVectors = 2;
FASTVAE_INLINE Sum load(const void* at) { return _mm256_loadu_ps(static_cast<const float*>(at)); }
FASTVAE_INLINE void store(float* at, Sum x) { _mm256_storeu_ps(at, x); }
FASTVAE_INLINE Sum add_product(Sum sum, uint32_t unit, Sum columns) {
  return _mm256_fmadd_ps(_mm256_set1_ps(as_float(unit)), columns, sum);
}
#else
typedef float Sum __attribute__((vector_size(16)));
constexpr int kRows = 6, kVectors = 2;
FASTVAE_INLINE Sum load(const void* at) {
  Sum x;
  __builtin_memcpy(&x, at, sizeof(x));
  return x;
}
FASTVAE_INLINE void store(float* at, Sum x) { __builtin_memcpy(at, &x, sizeof(x)); }
FASTVAE_INLINE Sum add_product(Sum sum, uint32_t unit, Sum columns) { return sum + as_float(unit) * columns; }
#endif
constexpr int kWidth = sizeof(Sum) / sizeof(float);
static_assert(kGroup / 2 % kRows == 0 && kRows >= kLeastRows && kStrip % (kVectors * kWidth) == 0);

#if defined(__AVX512BF16__)
using Number = uint16_t;
constexpr int kPair = 2;
#else
using Number = uint32_t;  // the bits of a float
constexpr int kPair = 1;
#endif

// Adds the products of a chunk to the sums of a tile, in some vectors of columns; `unit` names the units of `right`.
template <int Vectors>
[[gnu::noinline]] void multiply(const uint32_t* __restrict left, const uint32_t* __restrict right,
                                const uint32_t* __restrict unit, int64_t count, float* __restrict sums) {
  Sum own[kRows][Vectors];
#pragma GCC unroll 14
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 6
    for (int v = 0; v < Vectors; ++v) own[i][v] = load(sums + i * kStrip + v * kWidth);
  }
  for (int64_t at = 0; at < count; ++at) {
    const uint32_t* row = right + unit[at] * uint64_t{kStrip};
    Sum columns[Vectors];
#pragma GCC unroll 6
    for (int v = 0; v < Vectors; ++v) columns[v] = load(row + v * kWidth);
#pragma GCC unroll 14
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 6
      for (int v = 0; v < Vectors; ++v) own[i][v] = add_product(own[i][v], left[i * kStride + at], columns[v]);
    }
  }
#pragma GCC unroll 14
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 6
    for (int v = 0; v < Vectors; ++v) store(sums + i * kStrip + v * kWidth, own[i][v]);
  }
}

template <int Vectors = kVectors>
FASTVAE_INLINE void multiply(int vectors, const uint32_t* left, const uint32_t* right, const uint32_t* unit,
                             int64_t count, float* sums) {
  if (vectors >= Vectors) multiply<Vectors>(left, right, unit, count, sums);
  else if constexpr (Vectors > 1) multiply<Vectors - 1>(vectors, left, right, unit, count, sums);
}

}  // namespace
}  // namespace fastvae::FASTVAE_ISA
