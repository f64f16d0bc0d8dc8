// The last layer of a decoder and its binary cross-entropy, of several samples a picture, without a gradient: the
// logits of a tile are products that are used at once, and never reach memory beyond L1.
//
// A tile is a few rows of `hidden` times a strip of 96 columns. Inputs that are zero in all rows of a tile, as a ReLU
// makes them, are left out. The samples of a picture are alike: after training, 4 of them share 36 % of 512 ReLU units
// as zeros, and 14 share 29 %. Sums run along the contraction, then along the columns, in a fixed order.
#include "linear_bernoulli_nll_of_samples.h"

// Rows [begin, end).
FASTVAE_KERNEL(void, linear_bernoulli_nll_of_samples, const fastvae::LastLayer& op, int64_t begin, int64_t end,
               float* scratch)
#ifdef FASTVAE_X86
namespace fastvae::avx512_bf16 {
void linear_bernoulli_nll_of_samples(const LastLayer& op, int64_t begin, int64_t end, float* scratch);
}  // namespace fastvae::avx512_bf16
#endif

namespace fastvae::FASTVAE_ISA {
namespace {

// The terms of bernoulli_nll.cpp, of at most as many columns as there are lanes.
FASTVAE_INLINE void add_terms(const float* __restrict logits, const float* __restrict target, int count,
                              float* __restrict product, float* __restrict linear) {
#pragma omp simd
  for (int i = 0; i < count; ++i) {
    const float l = logits[i], a = __builtin_fabsf(l), u = exp_minus(a), x = target[i];
    const float y = as_bits(l) & 0x80000000u ? x : 1 - x;
    product[i] = fma(u, 1 + product[i], product[i]);
    linear[i] = fma(a, y, linear[i]);
  }
}

// Adds the lanes of a row to its value, and sets them to zero.
FASTVAE_INLINE double take(float* __restrict product, float* __restrict linear) {
  float logarithms = 0, products = 0;
#pragma omp simd reduction(+ : logarithms, products)
  for (int i = 0; i < kLanes; ++i) {
    const float s = product[i], w = 1 + s;
    logarithms += log(w) + (s - (w - 1)) / w;
    products += linear[i];
    product[i] = 0;
    linear[i] = 0;
  }
  return static_cast<double>(logarithms) + static_cast<double>(products);
}

// A block of rows as tiles: the inputs of each tile that are not zero in all its rows.
struct Block {
  const LastLayer& op;
  int64_t begin, count;
  uint32_t *left, *right, *unit, *bits, *order, *seen;  // [tile][chunk][row][at], [unit][column], [tile][at], ...
  float* lanes;
  int64_t used[kGroup / kRows];  // units of each tile

  Block(const LastLayer& op, uint32_t* scratch)
      : op(op), begin(0), count(0), left(scratch), right(left + kGroup * op.chunks() * kStride),
        unit(right + op.units * kStrip), bits(unit + kGroup / kLeastRows * op.units),
        order(bits + kGroup / kLeastRows * op.depth), seen(order + op.depth),
        lanes(reinterpret_cast<float*>(seen + op.depth)) {}

  int64_t tiles() const { return (count + kRows - 1) / kRows; }
  const Number* row(int64_t at) const { return static_cast<const Number*>(op.hidden) + (begin + at) * op.depth; }

  // Finds what each tile reads.
  [[gnu::noinline]] void look() {
    for (int64_t tile = 0; tile < tiles(); ++tile) {
      uint32_t* __restrict any = bits + tile * op.depth;
      const Number* in[kRows];
      for (int i = 0; i < kRows; ++i) {
        const int64_t at = tile * kRows + i;
        in[i] = row(at < count ? at : count - 1);
      }
      const uint32_t least = op.skips ? 0 : 2;
#pragma omp simd
      for (int64_t k = 0; k < op.depth; ++k) {
        uint32_t all = 0;
#pragma GCC unroll 6
        for (int i = 0; i < kRows; ++i) all |= in[i][k];
        any[k] = static_cast<Number>(all << 1) | least;  // without the sign
      }
    }
    arrange();
    for (int64_t tile = 0; tile < tiles(); ++tile) {
      const uint32_t* any = bits + tile * op.depth;
      uint32_t* out = unit + tile * op.units;
      int64_t there = 0;
      for (int64_t u = 0; u < op.units; ++u) {
        uint32_t both = any[order[u * kPair]];
        if constexpr (kPair == 2) both |= any[order[u * 2 + 1]];
        out[there] = static_cast<uint32_t>(u);
        there += both != 0;
      }
      used[tile] = there;
    }
  }

  // The order of the inputs. Pairs are of inputs that about as many tiles read: else most pairs would hold one.
  [[gnu::noinline]] void arrange() {
    for (int64_t k = 0; k < op.depth; ++k) order[k] = static_cast<uint32_t>(k);
    if constexpr (kPair == 2) {
      constexpr int kMost = kGroup / kRows;
      int64_t first[kMost + 2] = {};
      for (int64_t k = 0; k < op.depth; ++k) seen[k] = 0;
      for (int64_t tile = 0; tile < tiles(); ++tile) {
#pragma omp simd
        for (int64_t k = 0; k < op.depth; ++k) seen[k] += bits[tile * op.depth + k] != 0;
      }
      for (int64_t k = 0; k < op.depth; ++k) ++first[seen[k] + 1];
      for (int i = 0; i <= kMost; ++i) first[i + 1] += first[i];
      for (int64_t k = 0; k < op.depth; ++k) order[first[seen[k]]++] = static_cast<uint32_t>(k);
    }
  }

  // Copies the rows. Absent ones are zeros.
  [[gnu::noinline]] void pack() {
    for (int64_t tile = 0; tile < tiles(); ++tile) {
      uint32_t* out = left + tile * op.chunks() * kRows * kStride;
      const uint32_t* units = unit + tile * op.units;
      const int64_t rows = count - tile * kRows < kRows ? count - tile * kRows : kRows;
      for (int64_t done = 0; done < used[tile]; done += kDepth, out += kRows * kStride, units += kDepth) {
        const int64_t wide = used[tile] - done < kDepth ? used[tile] - done : kDepth;
        if (rows < kRows) __builtin_memset(out, 0, kRows * kStride * 4);
        gather(row(tile * kRows), static_cast<int>(rows), units, wide, out);
      }
    }
  }

  void gather(const Number* __restrict in, int rows, const uint32_t* __restrict units, int64_t wide,
              uint32_t* __restrict out) const {
    const int64_t depth = op.depth;
    for (int64_t at = 0; at < wide; ++at) {
      const uint32_t first = order[units[at] * kPair], second = kPair == 2 ? order[units[at] * 2 + 1] : 0;
      for (int i = 0; i < rows; ++i) {
        const uint32_t low = in[i * depth + first];
        out[i * kStride + at] = kPair == 2 ? low | static_cast<uint32_t>(in[i * depth + second]) << 16 : low;
      }
    }
  }

  // The weights of a strip of columns, by units.
  [[gnu::noinline]] const uint32_t* strip_of(int64_t strip) {
    const Number* weight = static_cast<const Number*>(op.weight) + strip * op.depth * kStrip;
    if constexpr (kPair == 1) {
      return reinterpret_cast<const uint32_t*>(weight);
    } else {
      for (int64_t u = 0; u < op.units; ++u) {
        uint32_t* __restrict out = right + u * kStrip;
        const Number* __restrict first = weight + order[u * 2] * kStrip;
        const Number* __restrict second = weight + order[u * 2 + 1] * kStrip;
#pragma omp simd
        for (int j = 0; j < kStrip; ++j) out[j] = first[j] | static_cast<uint32_t>(second[j]) << 16;
      }
      return right;
    }
  }

  void run() {
    alignas(64) float sums[kRows * kStrip];
    double totals[kGroup] = {};
    look();
    pack();
    for (int64_t i = 0; i < count * 2 * kLanes; ++i) lanes[i] = 0;
    for (int64_t strip = 0; strip < op.strips(); ++strip) {
      const int64_t column = strip * kStrip, rest = op.outputs - column;
      const int there = rest < kStrip ? static_cast<int>(rest) : kStrip;
      // 2**64 is far from the overflow of a product.
      const bool is_taken = strip % (64 * kLanes / kStrip) == 64 * kLanes / kStrip - 1 || strip + 1 == op.strips();
      const uint32_t* columns = strip_of(strip);
      for (int64_t tile = 0; tile < tiles(); ++tile) {
        for (int i = 0; i < kRows; ++i) {
#pragma omp simd
          for (int j = 0; j < kStrip; ++j) sums[i * kStrip + j] = op.bias[column + j];
        }
        for (int64_t chunk = 0; chunk * kDepth < used[tile]; ++chunk) {
          const int64_t done = chunk * kDepth, wide = used[tile] - done < kDepth ? used[tile] - done : kDepth;
          const uint32_t* rows = left + (tile * op.chunks() + chunk) * kRows * kStride;
          for (int at = 0; at < there; at += kVectors * kWidth) {
            multiply((there - at + kWidth - 1) / kWidth, rows, columns + at, unit + tile * op.units + done, wide,
                     sums + at);
          }
        }
        for (int i = 0; i < kRows && tile * kRows + i < count; ++i) {
          const int64_t row = tile * kRows + i;
          const float* target = op.target + (begin + row) / op.samples * op.outputs + column;
          float *const product = lanes + row * 2 * kLanes, *const linear = product + kLanes;
          for (int at = 0; at < there; at += kLanes) {
            const float* logits = sums + i * kStrip + at;
            if (there - at >= kLanes) add_terms(logits, target + at, kLanes, product, linear);
            else add_terms(logits, target + at, there - at, product, linear);
          }
          if (is_taken) totals[row] += take(product, linear);
        }
      }
    }
    for (int64_t row = 0; row < count; ++row) op.out[begin + row] = static_cast<float>(totals[row]);
  }
};

}  // namespace

void linear_bernoulli_nll_of_samples(const LastLayer& op, int64_t begin, int64_t end, float* scratch) {
  Block block(op, reinterpret_cast<uint32_t*>(scratch));
  for (block.begin = begin; block.begin < end; block.begin += op.group) {
    block.count = end - block.begin < op.group ? end - block.begin : op.group;
    block.run();
  }
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include <memory>
#include <new>

#include "operator.h"

namespace fastvae {
namespace {

void compute(bool is_bf16, const LastLayer& op, int64_t begin, int64_t end, float* scratch) {
#ifdef FASTVAE_X86
  if (is_bf16) return avx512_bf16::linear_bernoulli_nll_of_samples(op, begin, end, scratch);
#endif
  (void)is_bf16;
  FASTVAE_RUN(isa(), linear_bernoulli_nll_of_samples, op, begin, end, scratch);
}

Tensor nll(const Tensor& hidden, const Tensor& weight, const Tensor& bias, const Tensor& target, bool skips) {
  const Dtype dtype = dtype_of(hidden);
  const bool is_bf16 = dtype == Dtype::bf16;
  STD_TORCH_CHECK(is_bf16 ? multiplies_bf16() : dtype == Dtype::f32, "expected fp32, or bf16 where AVX-512 has it");
  STD_TORCH_CHECK(hidden.is_cpu() && hidden.dim() == 2 && hidden.is_contiguous(), "expected dense rows on the CPU");
  STD_TORCH_CHECK(target.is_cpu() && target.dim() == 2 && target.is_contiguous() && dtype_of(target) == Dtype::f32,
                  "expected a dense fp32 target (B, O)");
  LastLayer op{};
  const int64_t pictures = target.size(0);
  op.hidden = hidden.data_ptr();
  op.rows = hidden.size(0);
  op.depth = hidden.size(1);
  op.units = op.depth / (is_bf16 ? 2 : 1);
  op.outputs = target.size(1);
  STD_TORCH_CHECK(!is_bf16 || op.depth % 2 == 0, "expected pairs of bf16");
  STD_TORCH_CHECK(pictures > 0 ? op.rows % pictures == 0 : op.rows == 0, "expected as many rows for each picture");
  op.samples = pictures > 0 && op.rows > 0 ? op.rows / pictures : 1;
  STD_TORCH_CHECK(weight.is_cpu() && weight.is_contiguous() && dtype_of(weight) == dtype &&
                      weight.numel() == op.strips() * op.depth * kStrip,
                  "expected the weights of that layer, padded");
  STD_TORCH_CHECK(bias.is_cpu() && bias.is_contiguous() && dtype_of(bias) == Dtype::f32 &&
                      bias.numel() == op.strips() * kStrip,
                  "expected an fp32 bias for each padded column");
  op.weight = weight.data_ptr();
  op.bias = static_cast<const float*>(bias.data_ptr());
  op.target = static_cast<const float*>(target.data_ptr());
  op.skips = skips;
  op.group = is_bf16 ? kGroup : kGroup / 2;
  const Tensor out = dense(&op.rows, 1, ScalarType::Float);
  op.out = static_cast<float*>(out.data_ptr());
  const auto run = [&](int64_t first, int64_t last) {
    struct Free {
      void operator()(float* data) const { ::operator delete[](data, std::align_val_t{64}); }
    };
    const std::unique_ptr<float[], Free> scratch(
        new (std::align_val_t{64}) float[static_cast<size_t>(op.scratch())]);
    const int64_t end = last * op.group;
    compute(is_bf16, op, first * op.group, end < op.rows ? end : op.rows, scratch.get());
  };
  const int64_t groups = (op.rows + op.group - 1) / op.group;
  if (groups <= 1) run(0, groups);
  else torch::stable::parallel_for(0, groups, 1, run);
  return out;
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) {
  m.impl("linear_bernoulli_nll_of_samples", TORCH_BOX(&fastvae::nll));
}
#endif
