// Standard normals as fastvae/reference/noise.py specifies them, a block at a time; all four of each Philox call.
#pragma once

#include "block.h"

namespace fastvae {

// The noise of one tensor: given as eps, or the key and the place of a draw. noise_operator.h makes it.
struct Noise {
  bool explicit_eps;
  Source eps;
  uint32_t key[2], step, stream;
  uint64_t first;  // the global index of element 0
};

}  // namespace fastvae

namespace fastvae::FASTVAE_ISA {
namespace {

struct Words {
  uint32_t w0, w1, w2, w3;
};

FASTVAE_INLINE Words philox_round(Words c, uint32_t k0, uint32_t k1) {
  const uint64_t p0 = static_cast<uint64_t>(c.w0) * 0xD2511F53u, p1 = static_cast<uint64_t>(c.w2) * 0xCD9E8D57u;
  return {static_cast<uint32_t>(p1 >> 32) ^ c.w1 ^ k0, static_cast<uint32_t>(p1),
          static_cast<uint32_t>(p0 >> 32) ^ c.w3 ^ k1, static_cast<uint32_t>(p0)};
}

// A recursion, because a loop of ten rounds would keep the loop over quads from being vectorised.
template <int kRounds>
FASTVAE_INLINE Words philox(Words c, uint32_t k0, uint32_t k1) {
  if constexpr (kRounds == 0) return c;
  else return philox<kRounds - 1>(philox_round(c, k0, k1), k0 + 0x9E3779B9u, k1 + 0xBB67AE85u);
}

// The nearest float to a word: halves are exact, so that only their sum rounds. (Instruction sets before AVX-512
// convert signed integers only.)
FASTVAE_INLINE float uniform(uint32_t word) {
  const float high = static_cast<float>(static_cast<int32_t>(word >> 16)) * 65536.0f;
  const float value = high + static_cast<float>(static_cast<int32_t>(word & 0xffffu));
  return value * 0x1p-32f + 0x1p-33f;
}

// The words of the quads that hold a block.
struct WordBlock {
  static constexpr int kQuads = kBlock / 4 + 16;  // a block may start and end inside a quad
  alignas(64) uint32_t words[4][kQuads];
  int skip, quads;  // elements of the first quad that come before the block; quads drawn

  // For elements [at, at + count).
  void draw(const Noise& noise, int64_t at, int count) {
    const uint64_t element = noise.first + static_cast<uint64_t>(at), quad = element / 4;
    // Whole vectors: drawing a few words too many is cheaper than the remainder of a loop this heavy.
    skip = static_cast<int>(element % 4);
    quads = ((skip + count + 3) / 4 + 15) / 16 * 16;
    const uint32_t low = static_cast<uint32_t>(quad), high = static_cast<uint32_t>(quad >> 32);
    const uint32_t k0 = noise.key[0], k1 = noise.key[1], step = noise.step, stream = noise.stream;
    uint32_t *__restrict w0 = words[0], *__restrict w1 = words[1];
    uint32_t *__restrict w2 = words[2], *__restrict w3 = words[3];
#pragma omp simd
    for (int i = 0; i < quads; ++i) {
      const uint32_t c0 = low + static_cast<uint32_t>(i);
      const Words w = philox<10>({c0, high + (c0 < low ? 1u : 0u), step, stream}, k0, k1);
      w0[i] = w.w0;
      w1[i] = w.w1;
      w2[i] = w.w2;
      w3[i] = w.w3;
    }
  }
};

template <typename A>
struct Draw {
  WordBlock block;
  alignas(64) A normals[4 * WordBlock::kQuads];

  // Noise of elements [at, at + count): valid until the next call.
  const A* operator()(const Noise& noise, int64_t at, int count) {
    if (noise.explicit_eps) return load(noise.eps, at, count, normals);
    block.draw(noise, at, count);
    const uint32_t *__restrict w0 = block.words[0], *__restrict w1 = block.words[1];
    const uint32_t *__restrict w2 = block.words[2], *__restrict w3 = block.words[3];
    const int quads = block.quads;
    A* __restrict out = normals;
#pragma omp simd
    for (int i = 0; i < quads; ++i) {
      const A radius0 = sqrt(-2 * log(static_cast<A>(uniform(w0[i]))));
      const A radius1 = sqrt(-2 * log(static_cast<A>(uniform(w2[i]))));
      const Turn<A> turn0 = turn(static_cast<A>(uniform(w1[i]))), turn1 = turn(static_cast<A>(uniform(w3[i])));
      out[4 * i] = radius0 * turn0.cos;
      out[4 * i + 1] = radius0 * turn0.sin;
      out[4 * i + 2] = radius1 * turn1.cos;
      out[4 * i + 3] = radius1 * turn1.sin;
    }
    return out + block.skip;
  }
};

// Pixels drawn from their intensities: white with probability x / 255, to within x / 255 * 2**-32.
template <typename A, int kWhite = 1>
struct Binarized {
  WordBlock block;
  alignas(64) uint32_t flat[4 * WordBlock::kQuads];
  alignas(64) A pixels[kBlock];

  // The pixels [at, at + count) of a dense uint8 target: valid until the next call.
  const A* operator()(const Noise& noise, const Source& target, int64_t at, int count) {
    block.draw(noise, at, count);
    uint32_t* __restrict out = flat;
    for (int lane = 0; lane < 4; ++lane) {
      const uint32_t* __restrict words = block.words[lane];
      for (int i = 0; i < block.quads; ++i) out[4 * i + lane] = words[i];
    }
    const uint8_t* __restrict x = static_cast<const uint8_t*>(target.data) + at;
    const uint32_t* __restrict words = flat + block.skip;
#pragma omp simd
    for (int i = 0; i < count; ++i) {
      // 255 * 0x01010101 is 2**32 - 1: the largest word steps back, so that 255 is always 1 and 0 never.
      const uint32_t word = words[i] < 0xfffffffeu ? words[i] : 0xfffffffeu;
      pixels[i] = word < static_cast<uint32_t>(x[i]) * 0x01010101u ? A(kWhite) : A(0);
    }
    return pixels;
  }
};

}  // namespace
}  // namespace fastvae::FASTVAE_ISA
