// Tensors as kernels see them: moved through L1 in blocks of the type that is computed in.
//
// The arithmetic is then written once, for float and double, whatever the storage; a tensor that is stored in that
// type is read and written in place.
#pragma once

#include "vecmath.h"

namespace fastvae {

enum class Dtype { f32, f64, bf16, f16, u8 };

// A tensor (B, event): element e lies at row e / event, column e % event; rows are dense, row_stride apart.
struct Source {
  const void* data;
  Dtype dtype;
  int64_t event, row_stride;  // both in elements
};

// A dense tensor to write.
struct Sink {
  void* data;
  Dtype dtype;
};

// The results that a pass over a loss computes.
enum class Want { loss, grad, both };

// 512 floats are 2 KiB: the buffers of the largest kernel (eight blocks) stay in half of a 32 KiB L1.
constexpr int kBlock = 512;

}  // namespace fastvae

namespace fastvae::FASTVAE_ISA {

template <Dtype> struct Stored;

template <> struct Stored<Dtype::f32> {
  using type = float;
  FASTVAE_INLINE float load(float x) { return x; }
  FASTVAE_INLINE float store(float x) { return x; }
};

template <> struct Stored<Dtype::f64> {
  using type = double;
  FASTVAE_INLINE double load(double x) { return x; }
  FASTVAE_INLINE double store(double x) { return x; }
};

template <> struct Stored<Dtype::bf16> {
  using type = uint16_t;
  FASTVAE_INLINE float load(uint16_t x) { return as_float(static_cast<uint32_t>(x) << 16); }
  FASTVAE_INLINE uint16_t store(float x) {
    const uint32_t bits = as_bits(x);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    return static_cast<uint16_t>(x != x ? 0x7fc0u : rounded);
  }
};

// Half precision by float arithmetic, as in M. Dukhan's FP16 library: no branch, and subnormals are right.
template <> struct Stored<Dtype::f16> {
  using type = uint16_t;
  FASTVAE_INLINE float load(uint16_t x) {
    const uint32_t word = static_cast<uint32_t>(x) << 16, twice = word + word;
    const float normal = as_float((twice >> 4) + (0xe0u << 23)) * 0x1p-112f;
    const float subnormal = as_float((twice >> 17) | (126u << 23)) - 0.5f;
    return as_float((word & 0x80000000u) | (twice < (1u << 27) ? as_bits(subnormal) : as_bits(normal)));
  }
  FASTVAE_INLINE uint16_t store(float x) {
    const uint32_t word = as_bits(x), twice = word + word;
    const float magnitude = as_float(word & 0x7fffffffu) * 0x1p+112f * 0x1p-110f;  // saturates to inf
    const uint32_t bias = (twice & 0xff000000u) < 0x71000000u ? 0x71000000u : twice & 0xff000000u;
    const uint32_t bits = as_bits(as_float((bias >> 1) + 0x07800000u) + magnitude);
    const uint32_t rounded = (bits >> 13 & 0x7c00u) + (bits & 0x0fffu);
    return static_cast<uint16_t>((word >> 16 & 0x8000u) | (twice > 0xff000000u ? 0x7e00u : rounded));
  }
};

// x / 255 to the bit, without a division: 1/255 = 257/65536 + 1/(255 * 65536), and x * 257/65536 is
// exact. No quotient of the 255 is near enough to a rounding boundary for the second term's own rounding to matter.
template <> struct Stored<Dtype::u8> {
  using type = uint8_t;
  FASTVAE_INLINE float load(uint8_t x) {
    const float value = static_cast<float>(static_cast<int32_t>(x));
    return fma(value, 257.0f / 65536.0f, value * (1.0f / 255.0f / 65536.0f));
  }
};

template <Dtype D, typename A>
FASTVAE_INLINE void copy_in(const void* data, int64_t offset, int count, A* __restrict out) {
  const auto* __restrict in = static_cast<const typename Stored<D>::type*>(data) + offset;
#pragma omp simd
  for (int i = 0; i < count; ++i) out[i] = static_cast<A>(Stored<D>::load(in[i]));
}

FASTVAE_INLINE void copy_in(Dtype dtype, const void* data, int64_t offset, int count, float* out) {
  switch (dtype) {
    case Dtype::f32: return copy_in<Dtype::f32>(data, offset, count, out);
    case Dtype::bf16: return copy_in<Dtype::bf16>(data, offset, count, out);
    case Dtype::f16: return copy_in<Dtype::f16>(data, offset, count, out);
    case Dtype::u8: return copy_in<Dtype::u8>(data, offset, count, out);
    case Dtype::f64: __builtin_unreachable();
  }
}

FASTVAE_INLINE void copy_in(Dtype dtype, const void* data, int64_t offset, int count, double* out) {
  if (dtype == Dtype::f64) return copy_in<Dtype::f64>(data, offset, count, out);
  if (dtype == Dtype::f32) return copy_in<Dtype::f32>(data, offset, count, out);
  for (int i = 0; i < count; ++i) out[i] = static_cast<double>(static_cast<const uint8_t*>(data)[offset + i]) / 255.0;
}

template <typename A> constexpr Dtype kOwn = sizeof(A) == 8 ? Dtype::f64 : Dtype::f32;

// Elements [at, at + count) of a tensor: in place, or gathered into the buffer.
template <typename A>
[[gnu::noinline]] static const A* load(const Source& source, int64_t at, int count, A* buffer) {
  if (source.row_stride == source.event) {
    if (source.dtype == kOwn<A>) return static_cast<const A*>(source.data) + at;
    copy_in(source.dtype, source.data, at, count, buffer);
    return buffer;
  }
  int64_t row = at / source.event, column = at % source.event;
  for (int done = 0; done < count; column = 0, ++row) {
    const int64_t left = source.event - column;
    const int take = left < count - done ? static_cast<int>(left) : count - done;
    copy_in(source.dtype, source.data, row * source.row_stride + column, take, buffer + done);
    done += take;
  }
  return buffer;
}

// The place to compute elements of a sink: the sink itself if it has the type of the computation, else the buffer,
// which `store` then converts.
template <typename A>
FASTVAE_INLINE A* place(const Sink& sink, int64_t at, A* buffer) {
  return sink.dtype == kOwn<A> ? static_cast<A*>(sink.data) + at : buffer;
}

template <typename A>
[[gnu::noinline]] static void convert(const Sink& sink, int64_t at, int count, const A* __restrict buffer) {
  auto* __restrict out = static_cast<uint16_t*>(sink.data) + at;
  if (sink.dtype == Dtype::bf16) {
#pragma omp simd
    for (int i = 0; i < count; ++i) out[i] = Stored<Dtype::bf16>::store(buffer[i]);
  } else {
#pragma omp simd
    for (int i = 0; i < count; ++i) out[i] = Stored<Dtype::f16>::store(buffer[i]);
  }
}

template <typename A>
FASTVAE_INLINE void store(const Sink& sink, int64_t at, int count, const A* buffer) {
  if constexpr (sizeof(A) == 4) {
    if (sink.dtype != kOwn<A>) convert(sink, at, count, buffer);
  }
}

// Calls body(at, count) for the blocks of [begin, end).
template <typename F>
FASTVAE_INLINE void for_blocks(int64_t begin, int64_t end, F body) {
  for (int64_t at = begin; at < end; at += kBlock) {
    const int64_t left = end - at;
    body(at, left < kBlock ? static_cast<int>(left) : kBlock);
  }
}

}  // namespace fastvae::FASTVAE_ISA
