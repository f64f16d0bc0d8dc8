// The tiles of a product of fp32 or fp64 matrices.
//
// As in mm.cpp, each thread packs the operands of its tiles in the order of reading, and every element of the product is
// one chain of fused multiply-adds along the contraction: it depends on its row and its column alone.
#include "mm_float.h"

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace fastvae::FASTVAE_ISA {
namespace {

#if defined(__AVX512F__)
constexpr Tile kTile = kTiles[2];
#elif defined(__AVX2__)
constexpr Tile kTile = kTiles[1];
#else
constexpr Tile kTile = kTiles[0];
#endif

// A register of numbers, and integers of the same size to shuffle them by.
template <typename T>
struct Register {
  typedef T Type [[gnu::vector_size(kTile.bytes)]];
};
template <typename T>
using Vector = typename Register<T>::Type;
template <typename T>
constexpr int kLanes = kTile.bytes / sizeof(T);
template <typename T>
struct Index {
  typedef int32_t Type [[gnu::vector_size(kTile.bytes)]];
};
template <>
struct Index<double> {
  typedef int64_t Type [[gnu::vector_size(kTile.bytes)]];
};

template <typename T>
FASTVAE_INLINE Vector<T> load(const T* data) {
  Vector<T> value;
  __builtin_memcpy(&value, data, sizeof value);
  return value;
}

template <typename T>
FASTVAE_INLINE void store(T* data, Vector<T> value) {
  __builtin_memcpy(data, &value, sizeof value);
}

// The first `count` lanes; the others are zeros.
template <typename T>
FASTVAE_INLINE Vector<T> load_first(const T* data, int64_t count) {
  if (count >= kLanes<T>) return load(data);
  Vector<T> value{};
#if defined(__AVX512F__)
  if (count <= 0) return value;
  if constexpr (sizeof(T) == 4) value = _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1u), data);
  else value = _mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << count) - 1u), data);
#else
  for (int64_t i = 0; i < count; ++i) value[i] = data[i];
#endif
  return value;
}

template <typename T>
FASTVAE_INLINE void store_first(T* data, Vector<T> value, int64_t count) {
  if (count >= kLanes<T>) return store(data, value);
#if defined(__AVX512F__)
  if (count <= 0) return;
  if constexpr (sizeof(T) == 4) _mm512_mask_storeu_ps(data, static_cast<__mmask16>((1u << count) - 1u), value);
  else _mm512_mask_storeu_pd(data, static_cast<__mmask8>((1u << count) - 1u), value);
#else
  for (int64_t i = 0; i < count; ++i) data[i] = value[i];
#endif
}

// A square of registers, transposed: neighbours, pairs, fours and eights are exchanged.
template <typename T, int Step = 1>
FASTVAE_INLINE void exchange(Vector<T> (&x)[kLanes<T>]) {
  typename Index<T>::Type low, high;
#pragma GCC unroll 16
  for (int j = 0; j < kLanes<T>; ++j) {
    low[j] = (j & Step) == 0 ? j : kLanes<T> + j - Step;
    high[j] = (j & Step) == 0 ? j + Step : kLanes<T> + j;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<T>; ++i) {
    if ((i & Step) == 0) {
      const Vector<T> first = x[i], second = x[i + Step];
      x[i] = __builtin_shuffle(first, second, low);
      x[i + Step] = __builtin_shuffle(first, second, high);
    }
  }
  if constexpr (2 * Step < kLanes<T>) exchange<T, 2 * Step>(x);
}

// Up to a register of lines whose elements are neighbours in memory, transposed square by square.
template <typename T>
void pack_along(const Vectors<T>& lines, const T* data, int64_t count, int64_t width, T* out) {
  constexpr int kSide = kLanes<T>;
  for (int64_t k = 0; k < lines.depth; k += kSide) {
    const int64_t deep = lines.depth - k < kSide ? lines.depth - k : kSide;
    Vector<T> square[kSide];
#pragma GCC unroll 16
    for (int i = 0; i < kSide; ++i) {
      square[i] = i < count ? load_first(data + i * lines.line_stride + k, deep) : Vector<T>{};
    }
    exchange<T>(square);
#pragma GCC unroll 16
    for (int i = 0; i < kSide; ++i) {
      if (i < deep) store(out + (k + i) * width, square[i]);
    }
  }
}

// Lines that are neighbours in memory, of which `count` are there. A line of the cache that lies far from the one before
// is not foreseen by the processor.
template <typename T>
void pack_across(const Vectors<T>& lines, const T* data, int64_t count, int64_t width, T* out) {
  constexpr int64_t kAhead = 12;
  for (int64_t k = 0; k < lines.depth; ++k) {
    for (int64_t at = (width - 1) / kLanes<T> * kLanes<T>; at >= 0; at -= kLanes<T>) {
      __builtin_prefetch(data + (k + kAhead) * lines.depth_stride + at);
      store(out + k * width + at, load_first(data + k * lines.depth_stride + at, count - at));
    }
  }
}

template <typename T>
void pack_any(const Vectors<T>& lines, const T* data, int64_t count, int64_t width, T* out) {
  for (int64_t k = 0; k < lines.depth; ++k) {
    Vector<T> value{};
    for (int64_t i = 0; i < count; ++i) value[i] = data[i * lines.line_stride + k * lines.depth_stride];
    store(out + k * width, value);
  }
}

// Lines [first, first + width): strip[k * width + line]. Absent lines become zeros. Registers are stored whole, and what
// the last ones put behind their lines is then overwritten by the lines that belong there, or lies behind the strip.
template <typename T>
void pack(const Vectors<T>& lines, int64_t first, int64_t width, T* strip) {
  const T* const data = lines.data + first * lines.line_stride;
  if (lines.line_stride == 1 && lines.depth_stride != 1) return pack_across(lines, data, lines.count - first, width, strip);
  const auto group = lines.depth_stride == 1 ? pack_along<T> : pack_any<T>;
  for (int64_t at = (width - 1) / kLanes<T> * kLanes<T>; at >= 0; at -= kLanes<T>) {
    const int64_t left = lines.count - first - at, wanted = width - at < kLanes<T> ? width - at : kLanes<T>;
    group(lines, data + at * lines.line_stride, left < 0 ? 0 : left < wanted ? left : wanted, width, strip + at);
  }
}

template <int Rows, int Registers, typename T>
void tile(const FloatProduct<T>& op, const T* __restrict left, const T* __restrict right, int64_t row, int64_t column) {
  constexpr int kSide = kLanes<T>;
  Vector<T> sums[Rows][Registers];
#pragma GCC unroll 2
  for (int j = 0; j < Registers; ++j) {
    const int64_t at = column + j * kSide;
    const Vector<T> bias = op.bias == nullptr ? Vector<T>{} : load_first(op.bias + at, op.right.count - at);
#pragma GCC unroll 14
    for (int i = 0; i < Rows; ++i) sums[i][j] = bias;
  }
  for (int64_t k = op.left.depth; k > 0; --k, left += Rows, right += 2 * kSide) {
    Vector<T> columns[Registers];
#pragma GCC unroll 2
    for (int j = 0; j < Registers; ++j) columns[j] = load(right + j * kSide);
#pragma GCC unroll 14
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 2
      for (int j = 0; j < Registers; ++j) sums[i][j] += left[i] * columns[j];
    }
  }
  const int64_t there = op.right.count - column;
  const bool is_whole = there >= Registers * kSide;
#pragma GCC unroll 14
  for (int i = 0; i < Rows; ++i) {
    T* const out = op.out + (row + i) * op.right.count + column;
#pragma GCC unroll 2
    for (int j = 0; j < Registers; ++j) {
      if (is_whole) store(out + j * kSide, sums[i][j]);
      else store_first(out + j * kSide, sums[i][j], there - j * kSide);
    }
  }
}

template <int Rows = kTile.rows, typename T>
FASTVAE_INLINE void tile_of(int64_t rows, const FloatProduct<T>& op, const T* left, const T* right, int64_t row,
                            int64_t column) {
  if (rows == Rows) {
    if (op.right.count - column > kLanes<T>) tile<Rows, 2>(op, left, right, row, column);
    else tile<Rows, 1>(op, left, right, row, column);
  } else if constexpr (Rows > 1) {
    tile_of<Rows - 1>(rows, op, left, right, row, column);
  }
}

template <typename T>
FASTVAE_INLINE void multiply(const FloatProduct<T>& op, int64_t begin, int64_t end, void* scratch) {
  const int64_t tiles = op.tiles(), strips = op.strips(), most = op.block_tiles(), depth = op.left.depth;
  T *const right = static_cast<T*>(scratch), *const left = right + depth * op.width() + kLanes<T>;
  int64_t packed_block = -1, packed_strip = -1;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t block = unit / (most * strips) * most, within = unit - block * strips;
    const int64_t height = tiles - block < most ? tiles - block : most;
    const int64_t strip = within / height, at = block + within % height, top = op.first_row(block);
    if (block != packed_block) {
      for (int64_t each = block; each < block + height; ++each) {
        const int64_t row = op.first_row(each);
        pack(op.left, row, op.first_row(each + 1) - row, left + (row - top) * depth);
      }
    }
    if (strip != packed_strip || block != packed_block) pack(op.right, strip * op.width(), op.width(), right);
    packed_block = block;
    packed_strip = strip;
    const int64_t row = op.first_row(at);
    tile_of(op.first_row(at + 1) - row, op, left + (row - top) * depth, right, row, strip * op.width());
  }
}

}  // namespace

void mm_f32(const FloatProduct<float>& op, int64_t begin, int64_t end, void* scratch) {
  multiply(op, begin, end, scratch);
}

void mm_f64(const FloatProduct<double>& op, int64_t begin, int64_t end, void* scratch) {
  multiply(op, begin, end, scratch);
}

}  // namespace fastvae::FASTVAE_ISA
