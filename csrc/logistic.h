// The probability of a bin of 8-bit pixels under a logistic distribution, as its logarithm and derivatives.
//
// Salimans et al. 2017, eq. 2, in units of pixels read as x / 255: the bin of x is x +- 1/510, and those of 0 and 1
// reach to infinity. This is exact; the paper's code clamps at 1e-12, and there takes the density for the bin. With a
// and b the far and near ends of the bin in scales from the mean, sigmoid(a) - sigmoid(b) is
// sigmoid(a) * sigmoid(-b) * (1 - exp(b - a)), in which nothing cancels.
#pragma once

#include "vecmath.h"

namespace fastvae::FASTVAE_ISA {

// `x` is a pixel over 255. The derivatives are those of the log-probability. Any scale will do, but exp(-log_scale) has
// to be finite. A mean or log-scale that is not finite gives NaN. (Outputs by reference, not a struct: see kl_of in
// latent.h.)
template <typename A>
FASTVAE_INLINE void logistic_bin(A mean, A log_scale, A x, A& log_prob, A& d_mean, A& d_log_scale) {
  const A half = A(1) / A(510);
  // Conditions are kept as numbers: GCC 12 does not vectorise a loop with a condition inside another, which makes it 8
  // times slower (4096 bins, AVX-512, Zen 4).
  const A side = x < half ? A(-1) : x > 1 - half ? A(1) : A(0);
  const A inverse = exp(-log_scale);
  // Mirrored so that a >= 0; the bin of 0 reaches to infinity on the side that a is on, as that of 1 does.
  const A error = x - mean;
  const A sign = side != 0 ? side : error < 0 ? A(-1) : A(1);
  const A away = sign * error;
  const A a = (away + half) * inverse, b = (away - half) * inverse;
  const A narrow = 2 * half * inverse, width = narrow > A(1e-30) ? narrow : A(1e-30);
  const Exponential<A> gap = exponential(-width);
  const A decay = side != 0 ? A(0) : gap.exp, rest = side != 0 ? A(1) : -gap.expm1;  // exp(b - a), and 1 less it
  const A near = exp(b > 0 ? -b : b);
  const A far = decay * (b > 0 ? near : 1 / (near > A(1e-30) ? near : A(1e-30)));  // exp(-a)
  // For a wide scale the ratio is divided by the width, so that nothing underflows before its logarithm is taken.
  const A span = side != 0 ? A(2) : width, divisor = span < 1 ? span : A(1);
  const A excess = fma(far, near, far + near);
  const A shared = 1 / (divisor * (1 + excess));
  const A ratio = rest * shared, quotient = divisor * shared;  // quotient: 1 / ((1 + far) * (1 + near))
  const A offset = span < 1 ? -log_scale - A(5.541263545158426) : A(0);  // log(width); log 255 is 5.54
  // The digits that the ratio of a probability near 1 has rounded away.
  const A digits = (1 - ratio) - (decay + excess) * quotient;
  const A certain = span < 1 ? A(2) : A(0.5);
  const A lost = ratio > certain ? digits : A(0);
  log_prob = (offset - (b > 0 ? b : 0)) + (log(ratio) + lost) + 0 * (mean + log_scale);
  // sigmoid(b) - sigmoid(-a) and b sigmoid(b) - a sigmoid(-a), each over the common denominator.
  const A above = b > 0 ? 1 : near, slope = (above - far * (b > 0 ? near : 1)) * quotient;
  d_mean = sign * slope * inverse;
  const A held = a < 200 ? a : 200;  // where far is 0, and a may be infinite
  d_log_scale = (b * above * (1 + far) - held * far * (1 + near)) * quotient - width * decay / rest;
}

}  // namespace fastvae::FASTVAE_ISA
