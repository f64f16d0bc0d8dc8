// Black-and-white pixels drawn from grey ones.
#include "noise.h"

namespace fastvae {

struct Binarize {
  Source grey;  // dense uint8
  uint8_t* drawn;
  Noise noise;
};

}  // namespace fastvae

FASTVAE_KERNEL(void, binarize, const fastvae::Binarize& op, int64_t begin, int64_t end)

namespace fastvae::FASTVAE_ISA {

void binarize(const Binarize& op, int64_t begin, int64_t end) {
  Binarized<uint8_t, 255> binarized;
  for_blocks(begin, end, [&](int64_t at, int count) {
    __builtin_memcpy(op.drawn + at, binarized(op.noise, op.grey, at, count), count);
  });
}

}  // namespace fastvae::FASTVAE_ISA

#ifdef FASTVAE_REGISTER
#include "noise_operator.h"

namespace fastvae {
namespace {

constexpr int64_t kGrain = 16384;

Tensor binarize(const Tensor& target, const Tensor& state, int64_t row_offset, int64_t stream) {
  STD_TORCH_CHECK(dtype_of(target) == Dtype::u8 && target.is_contiguous(), "expected a dense uint8 target");
  const Isa chosen = isa();
  const Tensor drawn = dense_like(target);
  const Binarize op{source(target, target), static_cast<uint8_t*>(drawn.data_ptr()),
                    make_noise(target, std::nullopt, state, row_offset, stream)};
  const Reduce elements(target, kSum, 1.0, std::nullopt);
  elements.for_chunks(kGrain, [&](int64_t begin, int64_t end, int64_t, int64_t) {
    FASTVAE_RUN(chosen, binarize, op, begin, end);
  });
  return drawn;
}

}  // namespace
}  // namespace fastvae

STABLE_TORCH_LIBRARY_IMPL(fastvae, CPU, m) { m.impl("binarize", TORCH_BOX(&fastvae::binarize)); }
#endif
