// Products of matrices, several at once, for layers of a few hundred units, over which a library's overhead shows.
// mm_float.cpp has the tiles of fp32 and fp64; those of bf16 are here.
//
// vdpbf16ps adds the products of a pair of neighbours along the contraction to an fp32 sum, in sixteen columns at once.
// Each thread packs the operands of its tiles into such pairs, in the order of reading, and so into its own caches: 7 %
// of the time at 100 x 784 x 400. Every element of the product is one chain of sums along the contraction: it depends
// on its row and its column alone, not on the number of threads or rows.
#include "pack_bf16.h"

namespace fastvae {

constexpr int kColumns = 16;   // columns of a tile: the floats of a register
constexpr int kMostRows = 28;  // rows of a tile: a register each, of 32
constexpr int64_t kPackedRows = int64_t{1} << 17;  // elements of rows that are packed at once: 256 KB of L2

struct Product {
  Lines left, right;
  const uint16_t* bias;  // one a column, or none
  uint16_t* out;         // dense

  // Inlined by force: isa.h says why no two compiles may share one.
  [[gnu::always_inline]] int64_t pairs() const { return (left.depth + 1) / 2; }
  [[gnu::always_inline]] int64_t strips() const { return (right.count + kColumns - 1) / kColumns; }
  // Tiles one below another, of nearly equal height.
  [[gnu::always_inline]] int64_t tiles() const { return (left.count + kMostRows - 1) / kMostRows; }
  [[gnu::always_inline]] int64_t first_row(int64_t tile) const { return tile * left.count / tiles(); }
  [[gnu::always_inline]] int64_t block_tiles() const {  // whose rows are packed at once
    const int64_t fit = kPackedRows / (2 * kMostRows * (pairs() + 1)), all = tiles();
    return fit < 1 ? 1 : fit < all ? fit : all;
  }
  [[gnu::always_inline]] int64_t scratch() const {  // in pairs
    const int64_t most = block_tiles() * kMostRows;
    return ((most < left.count ? most : left.count) + kColumns) * pairs();
  }
  [[gnu::always_inline]] int64_t units() const { return tiles() * strips(); }
  [[gnu::always_inline]] int64_t cost() const {  // of a unit; the sixteen are what a tile takes beside its sums
    return tiles() == 0 ? 1 : (pairs() + 16) * ((left.count + tiles() - 1) / tiles());
  }
};

}  // namespace fastvae

// Compiled and chosen apart from the other kernels: machines with AVX-512 may lack these instructions.
namespace fastvae::avx512_bf16 {
// Tiles [begin, end), in an order in which neighbours share what is packed.
void mm(const Product& op, int64_t begin, int64_t end, uint32_t* scratch);
}  // namespace fastvae::avx512_bf16

#ifndef FASTVAE_REGISTER
namespace fastvae::avx512_bf16 {
namespace {

template <int Rows>
void tile(const Product& op, const uint32_t* __restrict left, const uint32_t* __restrict right, int64_t row,
          int64_t column) {
  __m512 sums[Rows];
  const __mmask16 there = first_of_16(op.right.count - column);
  __m512 bias = _mm512_setzero_ps();
  if (op.bias != nullptr) {
    const __m256i stored = _mm256_maskz_loadu_epi16(there, op.bias + column);
    bias = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(stored), 16));
  }
#pragma GCC unroll 28
  for (int i = 0; i < Rows; ++i) sums[i] = bias;
  for (int64_t pair = op.pairs(); pair > 0; --pair, left += Rows, right += kColumns) {
    const __m512bh columns = (__m512bh)_mm512_loadu_si512(right);
#pragma GCC unroll 28
    for (int i = 0; i < Rows; ++i) {
      const __m512bh both = (__m512bh)_mm512_set1_epi32(static_cast<int32_t>(left[i]));
      sums[i] = _mm512_dpbf16_ps(sums[i], both, columns);
    }
  }
#pragma GCC unroll 28
  for (int i = 0; i < Rows; ++i) {
    _mm256_mask_storeu_epi16(op.out + (row + i) * op.right.count + column, there, (__m256i)_mm512_cvtneps_pbh(sums[i]));
  }
}

template <int Rows = kMostRows>
FASTVAE_INLINE void tile_of(int64_t rows, const Product& op, const uint32_t* left, const uint32_t* right, int64_t row,
                            int64_t column) {
  if (rows == Rows) tile<Rows>(op, left, right, row, column);
  else if constexpr (Rows > 1) tile_of<Rows - 1>(rows, op, left, right, row, column);
}

}  // namespace

void mm(const Product& op, int64_t begin, int64_t end, uint32_t* scratch) {
  const int64_t tiles = op.tiles(), strips = op.strips(), most = op.block_tiles();
  uint32_t *const right = scratch, *const left = scratch + op.pairs() * kColumns;
  int64_t packed_block = -1, packed_strip = -1;
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t block = unit / (most * strips) * most, within = unit - block * strips;
    const int64_t height = tiles - block < most ? tiles - block : most;
    const int64_t strip = within / height, tile = block + within % height, top = op.first_row(block);
    if (block != packed_block) {
      for (int64_t at = block; at < block + height; ++at) {
        const int64_t row = op.first_row(at);
        pack(op.left, row, op.first_row(at + 1) - row, left + (row - top) * op.pairs());
      }
    }
    if (strip != packed_strip || block != packed_block) pack(op.right, strip * kColumns, kColumns, right);
    packed_block = block;
    packed_strip = strip;
    const int64_t row = op.first_row(tile);
    tile_of(op.first_row(tile + 1) - row, op, left + (row - top) * op.pairs(), right, row, strip * kColumns);
  }
}

}  // namespace fastvae::avx512_bf16
#else
#include <memory>
#include <new>
#include <vector>

#include "mm_float.h"
#include "operator.h"

namespace fastvae {
namespace {

constexpr int64_t kGrain = 1 << 15;  // of the cost: 9 us of a Zen 4 core

// The work of one kind of matrix: how a product is made, and which kernel computes some of its units.
struct Bf16 {
  using Product = fastvae::Product;

  static Product product(const Tensor& left, const Tensor& right, const Tensor* bias) {
    return {lines_of(left, true), lines_of(right, false), bias == nullptr ? nullptr : data_of(*bias), nullptr};
  }
  static Lines lines_of(const Tensor& matrix, bool rows) {
    const int64_t line = rows ? 0 : 1;
    return {data_of(matrix), matrix.size(line), matrix.size(1 - line), matrix.stride(line), matrix.stride(1 - line)};
  }
  static uint16_t* data_of(const Tensor& tensor) { return static_cast<uint16_t*>(tensor.data_ptr()); }
  static int64_t bytes(const Product& op) { return op.scratch() * static_cast<int64_t>(sizeof(uint32_t)); }
  static void run(const Product& op, int64_t begin, int64_t end, void* scratch) {
#ifdef FASTVAE_X86
    avx512_bf16::mm(op, begin, end, static_cast<uint32_t*>(scratch));
#else
    (void)op, (void)begin, (void)end, (void)scratch;
#endif
  }
};

template <typename T>
struct Float {
  using Product = FloatProduct<T>;

  static Product product(const Tensor& left, const Tensor& right, const Tensor* bias) {
    return {vectors_of(left, true), vectors_of(right, false), bias == nullptr ? nullptr : data_of(*bias), nullptr,
            kTiles[static_cast<int>(isa())]};
  }
  static Vectors<T> vectors_of(const Tensor& matrix, bool rows) {
    const int64_t line = rows ? 0 : 1;
    return {data_of(matrix), matrix.size(line), matrix.size(1 - line), matrix.stride(line), matrix.stride(1 - line)};
  }
  static T* data_of(const Tensor& tensor) { return static_cast<T*>(tensor.data_ptr()); }
  static int64_t bytes(const Product& op) { return op.scratch(); }
  static void run(const Product& op, int64_t begin, int64_t end, void* scratch) {
    if constexpr (sizeof(T) == sizeof(float)) FASTVAE_RUN(isa(), mm_f32, op, begin, end, scratch);
    else FASTVAE_RUN(isa(), mm_f64, op, begin, end, scratch);
  }
};

void check(const Tensor& left, const Tensor& right, const Tensor* bias, ScalarType dtype) {
  const auto fits = [dtype](const Tensor& tensor, int64_t dim) {
    return tensor.is_cpu() && tensor.dim() == dim && tensor.scalar_type() == dtype;
  };
  STD_TORCH_CHECK(fits(left, 2) && fits(right, 2), "expected matrices of one dtype, bf16, fp32 or fp64, on the CPU");
  STD_TORCH_CHECK(left.size(1) == right.size(0), "expected matrices (M, K) and (K, N)");
  STD_TORCH_CHECK(bias == nullptr || (fits(*bias, 1) && bias->size(0) == right.size(1) && bias->is_contiguous()),
                  "expected a dense bias (N) of the dtype of the matrices");
}

// This thread's scratch memory, kept from call to call: a fresh buffer would fault in its pages at every call.
void* scratch(int64_t bytes) {
  struct Free {
    void operator()(char* data) const { ::operator delete[](data, std::align_val_t{64}); }
  };
  thread_local std::unique_ptr<char[], Free> kept;
  thread_local int64_t size = 0;
  if (size < bytes) {
    size = 0;  // in case there is none to be had
    kept.reset();
    kept.reset(new (std::align_val_t{64}) char[static_cast<size_t>(bytes)]);
    size = bytes;
  }
  return kept.get();
}

template <typename Kind>
std::vector<Tensor> multiply(const std::vector<Tensor>& lefts, const std::vector<Tensor>& rights,
                             const std::vector<Tensor>& biases, ScalarType dtype) {
  // A product and the point at which its units begin in the work of all products, which threads share by cost.
  struct Placed {
    typename Kind::Product op;
    int64_t begin;
  };
  std::vector<Tensor> outs;
  std::vector<Placed> all;
  int64_t work = 0, most = 0;
  for (size_t k = 0; k < lefts.size(); ++k) {
    const Tensor* bias = biases.empty() ? nullptr : &biases[k];
    check(lefts[k], rights[k], bias, dtype);
    auto op = Kind::product(lefts[k], rights[k], bias);
    const int64_t sizes[] = {op.left.count, op.right.count};
    outs.push_back(dense(sizes, 2, dtype));
    op.out = Kind::data_of(outs.back());
    all.push_back({op, work});
    work += op.units() * op.cost();
    most = Kind::bytes(op) > most ? Kind::bytes(op) : most;
  }
  const auto run = [&](int64_t begin, int64_t end) {
    void* const own = scratch(most);
    for (const Placed& placed : all) {
      const auto& op = placed.op;
      const int64_t at = placed.begin;
      // The units that begin in this thread's part of the work.
      const auto unit = [&](int64_t point) {
        const int64_t first = (point - at + op.cost() - 1) / op.cost();
        return point <= at ? 0 : first < op.units() ? first : op.units();
      };
      if (unit(begin) < unit(end)) Kind::run(op, unit(begin), unit(end), own);
    }
  };
  if (work <= kGrain) run(0, work);
  else torch::stable::parallel_for(0, work, kGrain, run);
  return outs;
}

std::vector<Tensor> mm(std::vector<Tensor> lefts, std::vector<Tensor> rights, std::vector<Tensor> biases) {
  STD_TORCH_CHECK(lefts.size() == rights.size() && (biases.empty() || biases.size() == lefts.size()),
                  "expected as many of each, or no biases");
  if (lefts.empty()) return {};
  const ScalarType dtype = lefts[0].scalar_type();
  if (dtype == ScalarType::Float) return multiply<Float<float>>(lefts, rights, biases, dtype);
  if (dtype == ScalarType::Double) return multiply<Float<double>>(lefts, rights, biases, dtype);
  STD_TORCH_CHECK(dtype == ScalarType::BFloat16, "expected matrices of bf16, fp32 or fp64");
  STD_TORCH_CHECK(multiplies_bf16(), "this CPU has no AVX-512 BF16, or FASTVAE_CPU_CAPABILITY forbids it");
  return multiply<Bf16>(lefts, rights, biases, dtype);
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) { m.impl("mm", TORCH_BOX(&fastvae::mm)); }
#endif
