// Elementary functions that the compiler vectorises: no branch, no call, no table.
//
// The float versions are minimax polynomials; NaN goes in, NaN comes out. Largest errors seen with AVX-512, against
// fp64: exp 1 ulp; expm1(2 x) as the latent terms build it 3.1 ulp; a normal 5e-7.
// The double versions are libm's: fp64 is there for checking, not for speed.
#pragma once

#include "isa.h"

namespace fastvae::FASTVAE_ISA {

FASTVAE_INLINE float as_float(uint32_t bits) { return __builtin_bit_cast(float, bits); }
FASTVAE_INLINE uint32_t as_bits(float value) { return __builtin_bit_cast(uint32_t, value); }

// a * b + c, rounded once where the instruction set can. Written out, with the compiler's own contraction off: it would
// contract the vector body and the remainder of a loop differently, and a row's z would depend on its place in a batch.
FASTVAE_INLINE float fma(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
FASTVAE_INLINE double fma(double a, double b, double c) { return a * b + c; }

// Added to |x| < 2**22, leaves x rounded to an integer in the low bits.
constexpr float kRound = 12582912.0f;
constexpr uint32_t kRoundBits = 0x4b400000;

// The functions of one argument that the latent terms need.
template <typename A>
struct Exponential {
  A exp;     // inf over 88.73, 0 where it would be under 2**-125
  A expm1;   // keeps its digits near 0
  A excess;  // expm1(x) - x, without the cancellation
};

FASTVAE_INLINE Exponential<float> exponential(float x) {
  // x = n ln2 + r with |r| <= ln2 / 2. Comparisons are written so that a NaN stays.
  float c = -87.5f > x ? -87.5f : x;
  c = 89.0f < c ? 89.0f : c;
  const float shifted = fma(c, 1.44269504f, kRound);
  const float n = shifted - kRound;
  const float r = fma(n, 2.12194440e-4f, fma(n, -0.693359375f, c));
  float q = 0.000198462454f;
  q = fma(q, r, 0.00139407301f);
  q = fma(q, r, 0.00833338872f);
  q = fma(q, r, 0.0416663587f);
  q = fma(q, r, 0.166666657f);
  q = fma(q, r, 0.5f);
  const float tail = q * r * r;
  const float p = r + tail;
  // 2**(n - 1), since 2**128 is not a float; at the low end, n = -126, the bits are those of 0.
  const float s = as_float((as_bits(shifted) - kRoundBits + 126u) << 23);
  const float expm1 = fma(s, p, s - 0.5f) * 2.0f;
  return {fma(s, p, s) * 2.0f, expm1, n == 0.0f ? tail : expm1 - x};
}

FASTVAE_INLINE Exponential<double> exponential(double x) {
  const double expm1 = __builtin_expm1(x);
  return {__builtin_exp(x), expm1, expm1 - x};
}

FASTVAE_INLINE float exp(float x) { return exponential(x).exp; }
FASTVAE_INLINE double exp(double x) { return __builtin_exp(x); }

// exp(-a) for a >= 0 by powers of two, clamped at one end only: two thirds of the work of exp. 2.4 ulp for a < 4, 7 at
// 30, because log2(e) is one word. It is added to 1, so that does not matter. 0 from 87.7 on.
FASTVAE_INLINE float exp_minus(float a) {
  const float c = 88.0f < a ? 88.0f : a;  // a NaN stays
  const float shifted = fma(c, -1.44269504f, kRound);
  const float r = fma(c, -1.44269504f, -(shifted - kRound));  // |r| <= 1/2
  float q = 0.0013264727f;
  q = fma(q, r, 0.009671513f);
  q = fma(q, r, 0.055507336f);
  q = fma(q, r, 0.24022242f);
  q = fma(q, r, 0.693147f);
  q = fma(q, r, 1.0f);
  return as_float((as_bits(shifted) << 23) + 0x3f800000u) * q;  // 2**n from n's low bits; those of 2**-127 are 0
}
FASTVAE_INLINE double exp_minus(double a) { return __builtin_exp(-a); }

// log(u) for a normal u > 0.
FASTVAE_INLINE float log(float u) {
  // u = 2**e m with m in [sqrt(1/2), sqrt(2)).
  const int32_t bits = static_cast<int32_t>(as_bits(u));
  const int32_t e = (bits - 0x3f3504f3) >> 23;
  const float f = as_float(static_cast<uint32_t>(bits - (e << 23))) - 1.0f;
  float q = -0.0763410777f;
  q = fma(q, f, 0.1276142f);
  q = fma(q, f, -0.131602556f);
  q = fma(q, f, 0.142017841f);
  q = fma(q, f, -0.166233525f);
  q = fma(q, f, 0.200012252f);
  q = fma(q, f, -0.250008225f);
  q = fma(q, f, 0.333333313f);
  const float n = static_cast<float>(e);
  const float low = fma(n, -2.12194440e-4f, fma(q, f, -0.5f) * (f * f));
  return fma(n, 0.693359375f, f + low);
}
FASTVAE_INLINE double log(double u) { return __builtin_log(u); }

template <typename A>
struct Turn {
  A cos, sin;
};

// cos and sin of 2 pi u for u in [0, 1]: quarter turns are exact, the rest is within an eighth of a turn.
FASTVAE_INLINE Turn<float> turn(float u) {
  const float shifted = fma(u, 4.0f, kRound);
  const float f = u * 4.0f - (shifted - kRound);
  const uint32_t quarter = as_bits(shifted);
  const float t = f * f;
  float s = -0.00460165786f;
  s = fma(s, t, 0.079680033f);
  s = fma(s, t, -0.64596349f);
  s = fma(s, t, 1.57079637f) * f;
  float c = 0.000903766311f;
  c = fma(c, t, -0.0208601654f);
  c = fma(c, t, 0.253669232f);
  c = fma(fma(c, t, -1.23370051f), t, 1.0f);
  const bool swap = quarter & 1u;
  const float cosine = swap ? s : c, sine = swap ? c : s;
  return {as_float(as_bits(cosine) ^ ((quarter + 1u) & 2u) << 30), as_float(as_bits(sine) ^ (quarter & 2u) << 30)};
}
FASTVAE_INLINE Turn<double> turn(double u) {
  const double angle = 2.0 * 3.14159265358979323846 * u;
  return {__builtin_cos(angle), __builtin_sin(angle)};
}

FASTVAE_INLINE float sqrt(float x) { return __builtin_sqrtf(x); }
FASTVAE_INLINE double sqrt(double x) { return __builtin_sqrt(x); }

}  // namespace fastvae::FASTVAE_ISA
