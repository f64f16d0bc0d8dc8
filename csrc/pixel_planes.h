// Tensors (B, planes, ...) with several predictions a pixel, each a plane: moved through the cache in tiles of pixels.
//
// A kernel loops over planes outside and over the pixels of a tile inside, where consecutive pixels are consecutive in
// memory. A tile that is stored in the type of the computation is read and written in place. Any other is converted, or
// gathered plane by plane, into the caller's scratch, where the kernel also leaves its result.
#pragma once

#include "block.h"

namespace fastvae {

struct Planes {
  const void* data;
  void* grad;  // dense, as data is; null where none is wanted
  Dtype dtype;
  int64_t count, pixels;  // planes, and pixels in one
};

// Planes with fewer pixels than this are gathered: a tile then spans rows of the batch.
constexpr int64_t kGathered = 32;

// Pixels a tile: its 32768 floats are 128 KiB of an L2, and it uses at least a cache line of each plane.
inline int tile_of(int64_t planes) {
  const int64_t fits = 32768 / planes / 16 * 16;
  return fits < 16 ? 16 : fits > kBlock ? kBlock : static_cast<int>(fits);
}

}  // namespace fastvae

namespace fastvae::FASTVAE_ISA {
namespace {

template <typename A>
class Tile {
 public:
  // Pixels [at, at + count) of the batch; see for_tiles.
  Tile(const Planes& planes, A* scratch, int width, int64_t at, int64_t end)
      : planes_(planes), scratch_(scratch), width_(width), dense_(planes.pixels >= kGathered) {
    int64_t row = at / planes.pixels, column = at % planes.pixels;
    const int64_t left = dense_ && planes.pixels - column < end - at ? planes.pixels - column : end - at;
    count = left < width ? static_cast<int>(left) : width;
    offset_[0] = row * planes.count * planes.pixels + column;
    for (int i = 1; !dense_ && i < count; ++i) {
      if (++column == planes.pixels) {
        column = 0;
        ++row;
      }
      offset_[i] = row * planes.count * planes.pixels + column;
    }
  }

  bool in_place() const { return dense_ && planes_.dtype == kOwn<A>; }

  // The place of a plane's pixels once they are loaded, and of its gradients: the same, unless in_place().
  const A* in(int64_t plane) const {
    return in_place() ? static_cast<const A*>(planes_.data) + offset_[0] + plane * planes_.pixels : spare(plane);
  }
  A* out(int64_t plane) const {
    return in_place() ? static_cast<A*>(planes_.grad) + offset_[0] + plane * planes_.pixels : spare(plane);
  }
  // The scratch's own plane; those from planes.count on are the kernel's to use.
  A* spare(int64_t plane) const { return scratch_ + plane * width_; }

  const A* load(int64_t plane) const {
    if (in_place()) return in(plane);
    const int64_t shift = plane * planes_.pixels;
    if (dense_) copy_in(planes_.dtype, planes_.data, offset_[0] + shift, count, spare(plane));
    else gather(shift, spare(plane));
    return spare(plane);
  }

  void store(int64_t plane) const {
    if (in_place()) return;
    const int64_t shift = plane * planes_.pixels;
    if (dense_) fastvae::FASTVAE_ISA::store(Sink{planes_.grad, planes_.dtype}, offset_[0] + shift, count, spare(plane));
    else scatter(shift, spare(plane));
  }

  int count;

 private:
  [[gnu::noinline]] void gather(int64_t shift, A* out) const {
    switch (planes_.dtype) {
      case Dtype::f32: return gather<Dtype::f32>(shift, out);
      case Dtype::f64: return gather<Dtype::f64>(shift, out);
      case Dtype::bf16: return gather<Dtype::bf16>(shift, out);
      case Dtype::f16: return gather<Dtype::f16>(shift, out);
      case Dtype::u8: __builtin_unreachable();
    }
  }
  template <Dtype D>
  void gather(int64_t shift, A* __restrict out) const {
    const auto* __restrict from = static_cast<const typename Stored<D>::type*>(planes_.data) + shift;
#pragma omp simd
    for (int i = 0; i < count; ++i) out[i] = static_cast<A>(Stored<D>::load(from[offset_[i]]));
  }

  [[gnu::noinline]] void scatter(int64_t shift, const A* from) const {
    switch (planes_.dtype) {
      case Dtype::f32: return scatter<Dtype::f32>(shift, from);
      case Dtype::f64: return scatter<Dtype::f64>(shift, from);
      case Dtype::bf16: return scatter<Dtype::bf16>(shift, from);
      case Dtype::f16: return scatter<Dtype::f16>(shift, from);
      case Dtype::u8: __builtin_unreachable();
    }
  }
  template <Dtype D>
  void scatter(int64_t shift, const A* __restrict from) const {
    using T = typename Stored<D>::type;
    T* __restrict to = static_cast<T*>(planes_.grad) + shift;
    for (int i = 0; i < count; ++i) {
      if constexpr (sizeof(A) == 8) to[offset_[i]] = static_cast<T>(from[i]);
      else to[offset_[i]] = Stored<D>::store(from[i]);
    }
  }

  const Planes& planes_;
  A* scratch_;
  int width_;
  bool dense_;
  int64_t offset_[kBlock];
};

// Calls body(tile, at) for tiles of the batch's pixels [begin, end); the scratch holds planes of `width` pixels.
template <typename A, typename F>
FASTVAE_INLINE void for_tiles(const Planes& planes, A* scratch, int width, int64_t begin, int64_t end, F body) {
  for (int64_t at = begin; at < end;) {
    const Tile<A> tile(planes, scratch, width, at, end);
    body(tile, at);
    at += tile.count;
  }
}

}  // namespace
}  // namespace fastvae::FASTVAE_ISA
