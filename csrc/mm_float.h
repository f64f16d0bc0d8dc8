// Products of fp32 or fp64 matrices: their operands, and the kernel that computes some of their tiles.
#pragma once

#include "isa.h"

namespace fastvae {

// Vectors to contract with those of another matrix: rows of the left one, columns of the right one.
template <typename T>
struct Vectors {
  const T* data;
  int64_t count, depth;               // vectors, and the elements of each
  int64_t line_stride, depth_stride;  // in elements
};

// The size of a tile for an instruction set: a sum to a register, and the columns of one step beside them.
struct Tile {
  int64_t bytes;  // of a register
  int64_t rows;   // sums are `rows` times two registers

  template <typename T>
  constexpr int64_t columns() const {
    return 2 * bytes / static_cast<int64_t>(sizeof(T));
  }
};

constexpr Tile kTiles[] = {{16, 4}, {32, 6}, {64, 14}};  // by Isa: of 16, 16 and 32 registers

template <typename T>
struct FloatProduct {
  Vectors<T> left, right;
  const T* bias;  // one a column, or none
  T* out;         // dense
  Tile tile;

  static constexpr int64_t kPackedRows = (int64_t{1} << 21) / sizeof(T);  // elements of rows packed at once: half of L2

  // Inlined by force: isa.h says why no two compiles may share one.
  [[gnu::always_inline]] int64_t width() const { return tile.columns<T>(); }
  [[gnu::always_inline]] int64_t strips() const { return (right.count + width() - 1) / width(); }
  // Tiles one below another, of nearly equal height.
  [[gnu::always_inline]] int64_t tiles() const { return (left.count + tile.rows - 1) / tile.rows; }
  [[gnu::always_inline]] int64_t first_row(int64_t at) const { return at * left.count / tiles(); }
  [[gnu::always_inline]] int64_t block_tiles() const {  // whose rows are packed at once
    const int64_t fit = kPackedRows / (tile.rows * (left.depth + 1)), all = tiles();
    return fit < 1 ? 1 : fit < all ? fit : all;
  }
  [[gnu::always_inline]] int64_t scratch() const {  // bytes; full registers are stored, the last one past the end
    const int64_t most = block_tiles() * tile.rows;
    const int64_t rows = most < left.count ? most : left.count;
    return static_cast<int64_t>(sizeof(T)) * (rows + width()) * left.depth + 2 * tile.bytes;
  }
  [[gnu::always_inline]] int64_t units() const { return tiles() * strips(); }
  [[gnu::always_inline]] int64_t cost() const {  // of a unit; the sixteen are what a tile takes beside its sums
    return tiles() == 0 ? 1 : (left.depth + 16) * ((left.count + tiles() - 1) / tiles());
  }
};

}  // namespace fastvae

// Tiles [begin, end), in an order in which neighbours share what is packed.
FASTVAE_KERNEL(void, mm_f32, const FloatProduct<float>& op, int64_t begin, int64_t end, void* scratch)
FASTVAE_KERNEL(void, mm_f64, const FloatProduct<double>& op, int64_t begin, int64_t end, void* scratch)
